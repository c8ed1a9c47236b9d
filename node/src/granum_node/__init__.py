"""The granum storage node: an HTTP server over one directory of plain files."""

__version__ = "0.1.0"
