"""The HTTP side of a node: a small engine of its own, and the verbs built on it.

Only this package knows status codes. Why the engine is not twisted.web: docs/decisions/0002-own-http-engine.md.
"""
