"""`debugstore trace ID`: one trace as a tree."""

from __future__ import annotations

from dataclasses import asdict, astuple, fields
from typing import TYPE_CHECKING, Final

import click

from otel_debugstore_analysis.cli._options import Scope, engine_options
from otel_debugstore_analysis.cli._output import format_option, remark, show, show_json
from otel_debugstore_analysis.text import duration, instant

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Trace, TraceSpan

_MAX_INDENT: Final = 40
_MARKS: Final = {"orphan": " (its parent was not recorded)", "cycle": " (it is its own ancestor)"}


@click.command()
@click.argument("trace_id", metavar="ID")
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="Spans at most: the longest.",
)
@format_option
@engine_options
def command(scope: Scope, trace_id: str, limit: int, output_format: str) -> None:
    """Show one trace as a tree with times.

    ID is a trace id or its beginning. Offsets count from the start of the trace.

    \b
    Examples:
      debugstore trace 4bf92f35
      debugstore trace 4bf92f35 --all-sessions --format json
      debugstore top --slowest        shows ids
    """
    from otel_debugstore_analysis import query

    with scope.engine() as engine:
        found = query.trace(engine, trace_id, limit)
    show_trace(found, output_format)


def show_trace(trace: Trace, output_format: str) -> None:
    """Print a trace."""
    from otel_debugstore_analysis.query import Table, TraceSpan

    if output_format == "json":
        show_json(asdict(trace))
        return
    if output_format == "csv":
        columns = tuple(field.name for field in fields(TraceSpan))
        show(Table(columns, [astuple(span) for span in trace.spans]), "csv")
        return
    began = f", began {instant(trace.start_ns)} UTC" if trace.start_ns is not None else ""
    lasted = f", {duration(trace.duration_ns)}" if trace.duration_ns is not None else ""
    click.echo(f"trace {trace.trace_id}: {trace.span_count:,} spans, {trace.error_count:,} failed{lasted}{began}")
    rows = [(span.offset_ns, span.duration_ns, span.self_ns, _label(span)) for span in trace.spans]
    show(Table(("offset_ns", "duration_ns", "self_ns", "span"), rows), output_format)
    if trace.left_out:
        remark(f"{trace.left_out:,} shorter spans are not shown; --limit {trace.span_count} shows all.")


def _label(span: TraceSpan) -> str:
    indent = "  " * min(span.depth, _MAX_INDENT)
    deeper = f"[{span.depth}] " if span.depth > _MAX_INDENT else ""
    failed = f" ERROR {span.error or ''}".rstrip() if span.status == "ERROR" else ""
    hidden = f" (+{span.hidden:,} below)" if span.hidden else ""
    return f"{indent}{deeper}{span.name}{failed}{_MARKS.get(span.mark, '')}{hidden}"
