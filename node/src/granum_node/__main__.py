"""`python -m granum_node` is the command `granum-node`."""

from granum_node.cli import main

main(prog_name="granum-node")
