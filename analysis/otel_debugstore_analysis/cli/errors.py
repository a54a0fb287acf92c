"""`debugstore errors`: what failed, in groups."""

from __future__ import annotations

from typing import Final

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option

_GROUPS: Final = ("exception_type", "message", "count", "share", "first_ns", "last_ns", "components", "trace_ids")
_COMMON: Final = ("exception_type", "message", "field", "value", "share", "other_share", "lift", "traces")


@click.command()
@limit_option(20, "Groups")
@analysis_options
def command(ask: Ask, limit: int) -> None:
    """Group what failed by kind and message, with numbers, ids and paths masked; and what the failures have in common.

    \b
    Examples:
      debugstore errors
      debugstore errors --component fetch --since 1d
      debugstore errors --format json --max-tokens 2000
    """
    from otel_debugstore_analysis.analyses.errors import errors

    ask.show(
        "errors",
        lambda engine: errors(engine, selection=ask.selection(), limit=limit),
        {"groups": View("Failures", _GROUPS), "common": View("What the failures have in common", _COMMON)},
    )
