"""Fuzzing of everything that reads bytes from strangers: the head of a request, chunks, listings, PZF files."""
