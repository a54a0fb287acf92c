"""Progress bars, on standard error and only on a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

Update = Callable[[str, int, int], None]


@contextlib.contextmanager
def progress_bar(description: str, unit_bytes: bool = False) -> Iterator[Update | None]:
    """Yield a function (what, done, of how many) that moves a bar; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from otel_debugstore_analysis.text import printable

    amount = DownloadColumn() if unit_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=None)

        def update(what: str, done: int, total: int) -> None:
            shown = f"{description} {escape(printable(what))}".strip()
            progress.update(task, description=shown, completed=done, total=total or None)

        yield update


def progress_over(items: Sequence[str], description: str) -> Iterator[str]:
    """Yield the items, and show how many are done."""
    with progress_bar(description) as update:
        for number, item in enumerate(items):
            if update is not None:
                update(item, number, len(items))
            yield item
