"""The command `granum`: what people type. One module for each group of commands; `app` puts them together.

Nothing here decides anything about clusters: commands read their arguments, ask `granum.blocking`, and print. Whatever is
heavy (Twisted, NumPy, YAML, rich) is imported by the command that needs it, so that --help and completion are fast.
"""

from granum.cli.app import app, main

__all__ = ["app", "main"]
