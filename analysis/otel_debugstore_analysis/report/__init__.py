"""The report: what is slow, since when, because of what, and what to do about it, in a number of tokens."""
