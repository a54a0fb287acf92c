"""Options that say which spans of the sessions count."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from otel_debugstore_analysis.cli._times import TIME

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Selection

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Chosen:
    """What `--since`, `--until` and `--where` say."""

    since_ns: int | None
    until_ns: int | None
    where: tuple[str, ...]

    def selection(self, component: str | None = None) -> Selection:
        """Return them as a selection, of one component if it is given."""
        from otel_debugstore_analysis.query import Selection

        conditions: dict[str, str] = {}
        for condition in (*self.where, *([f"component={component}"] if component is not None else [])):
            name, equals, value = condition.partition("=")
            if not name or not equals:
                raise click.UsageError(f"--where {condition!r} is no condition; write FIELD=VALUE.")
            if name in conditions:
                raise click.UsageError(f"--where names {name!r} twice; a span has one value of it.")
            conditions[name] = value
        return Selection(self.since_ns, self.until_ns, conditions)


def selection_options(function: F) -> F:
    """Give a command the options that select spans; it gets them as one argument `chosen`."""

    @functools.wraps(function)
    def wrapper(since: int | None, until: int | None, where: tuple[str, ...], **rest: Any) -> Any:
        return function(chosen=Chosen(since, until, where), **rest)

    decorated: Any = wrapper
    for option in (
        click.option(
            "--where",
            multiple=True,
            metavar="FIELD=VALUE",
            help="Only spans with this value; may be repeated.",
        ),
        click.option("--until", type=TIME, help="Only spans that start before."),
        click.option(
            "--since", type=TIME, help="Only spans that start at or after: 10m (ago), 2026-03-01T12:00 (UTC)."
        ),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
