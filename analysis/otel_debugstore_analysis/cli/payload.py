"""`debugstore payload DIGEST`: the arguments or the result that a digest stands for."""

from __future__ import annotations

import sys

import click

from otel_debugstore_analysis.cli._options import Scope, reading_options
from otel_debugstore_analysis.cli._output import show_json
from otel_debugstore_analysis.text import printable


@click.command()
@click.argument("digest")
@click.option(
    "--max-chars",
    type=click.IntRange(1),
    default=4000,
    show_default=True,
    help="Characters at most; what is left out is named.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(("text", "json", "raw")),
    default="text",
    show_default=True,
    help="text for people, json with what is known of it, raw for the stored bytes.",
)
@reading_options
def command(scope: Scope, digest: str, max_chars: int, output_format: str) -> None:
    """Show what a digest stands for: the arguments or the result of a call.

    DIGEST is one, or its beginning. Spans carry them in debugstore.input.digest and debugstore.output.digest.

    \b
    Examples:
      debugstore payload 9f86d081
      debugstore sql "SELECT attributes['debugstore.input.digest']::VARCHAR FROM spans" --limit 5
    """
    from otel_debugstore_exporters.payloads import find_payload

    with scope.reader() as reader:
        found = find_payload(reader, digest)
    if output_format == "raw":
        sys.stdout.buffer.write(found.content)
        sys.stdout.buffer.flush()
        return
    from otel_debugstore.payload import describe

    text = describe(found.content, max_chars)
    if output_format == "json":
        show_json({**found._asdict(), "content": text})
        return
    for line in text.split("\n"):
        click.echo(printable(line))
