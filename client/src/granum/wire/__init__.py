"""The contract between node and client: names, listings, addresses, the put exchange and the frame format.

Nothing in this package reads a socket, a clock or a disk, so both sides, and any test, can run it on plain bytes.
The standard library is all it needs; `frame` alone uses NumPy, so that a node never imports it.
"""
