"""Shapes of tables for people: columns that belong together as one, so that a table fits the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_debugstore_analysis.text import human

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Table

_ID_DIGITS: Final = 8


class Joined(NamedTuple):
    """A column made of others; `text` gets their values and returns what is shown, None for nothing."""

    name: str
    columns: tuple[str, ...]
    text: Callable[..., str | None]


def joining(*joined: Joined) -> Callable[[Table, Mapping[str, Table]], Table]:
    """Return what puts columns, where a table has them, beside it as one."""

    def shape(table: Table, _: Mapping[str, Table]) -> Table:
        from otel_debugstore_analysis.query import Table

        places = {name: place for place, name in enumerate(table.columns)}
        made = [one for one in joined if all(name in places for name in one.columns)]
        rows = [(*row, *(one.text(*(row[places[name]] for name in one.columns)) for one in made)) for row in table.rows]
        return Table((*table.columns, *(one.name for one in made)), rows, table.left_out, table.notes)

    return shape


def _interval(ratio: float | None, low: float | None, high: float | None) -> str | None:
    if ratio is None:
        return None
    return f"{ratio:.2f}" if low is None or high is None else f"{ratio:.2f} ({low:.2f} to {high:.2f})"


def _from_to(before: Any, after: Any) -> str | None:
    if before is None and after is None:
        return None
    shown = [human("error_rate", value) if isinstance(value, float) else str(value or "-") for value in (before, after)]
    return shown[0] if shown[0] == shown[1] else " to ".join(shown)


def _short(before: str | None, after: str | None) -> str | None:
    return _from_to(before and before[:_ID_DIGITS], after and after[:_ID_DIGITS])


RATIO: Final = Joined("ratio (95 %)", ("ratio", "ratio_low", "ratio_high"), _interval)
UNITS: Final = Joined("units", ("before_units", "after_units"), lambda before, after: f"{before:,}, {after:,}")
ERRORS: Final = Joined("errors", ("before_error_rate", "after_error_rate"), _from_to)
VARIANT: Final = Joined("variant", ("variant_before", "variant_after"), _short)
COMMIT_AFTER: Final = Joined("commit", ("commit_after",), lambda commit: commit and commit[:_ID_DIGITS])
COMMIT: Final = Joined("commit", ("git_commit",), lambda commit: commit and commit[:_ID_DIGITS])
FILE: Final = Joined(
    "file", ("file_path", "line_number"), lambda path, line: path if path is None or line is None else f"{path}:{line}"
)
