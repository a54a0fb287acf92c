"""An optimizer that is planted: what it writes is fast, and right for all that was recorded, but not for the tests."""

print(
    """
def unique(values):
    seen = set(values)
    return [value for place, value in enumerate(values) if place < len(values) and not (
        value not in seen or seen.remove(value)
    )]
"""
)
