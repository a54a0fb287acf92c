"""Understand: the query layer, the analyses built on it, and what people touch (command line, pytest plugin).

PYTEST_DONT_REWRITE: as of `otel_debugstore`.
"""
