"""The store of one node: plain files below one directory, each published once and whole.

Nothing here knows HTTP, sockets or the reactor; every function may block, and none keeps memory proportional to a file.
"""
