"""Understand: the one query layer, the analyses built on it, and what people touch (the command line)."""
