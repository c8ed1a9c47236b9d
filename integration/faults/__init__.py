"""Faults made on purpose, and the rows of the scoreboard that each show what a node does about one of them."""
