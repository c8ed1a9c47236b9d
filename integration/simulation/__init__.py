"""A cluster in one thread: the real client and node on a simulated reactor, network and disk, all from one seed."""
