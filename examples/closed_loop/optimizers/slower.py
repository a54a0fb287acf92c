"""An optimizer that is planted: what it writes is right and slower."""

print(
    """
def unique(values):
    values = list(values)
    return [value for place, value in enumerate(values) if values[:place].count(value) == 0]
"""
)
