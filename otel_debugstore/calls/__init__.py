"""Recorded calls: from the decorator to the ended span.

`decorators` is what users write; `recorded` wraps a function, whatever kind it is; `component` is what is known
of it before it is called; `call` is one call of it: a span, and what the call cost; `meter` decides whether a
call becomes a span, and counts those that do not; `outcome` says how a call ended.
"""
