"""Streaming: many puts on few connections, each sent before the receipts of the earlier ones have come.

`window` counts what is on its way, `channel` moves the bytes of one node, `streamer` spreads puts over the nodes and keeps
account of every one, `series` makes a directory of frames and metadata out of them.
"""
