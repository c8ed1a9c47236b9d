"""Arrays: series of the cluster and movies on the local disk, read frame by frame as NumPy arrays."""
