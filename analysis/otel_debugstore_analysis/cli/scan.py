"""`debugstore scan`: secrets in what was stored."""

from __future__ import annotations

import click

from otel_debugstore_analysis.cli._errors import Findings
from otel_debugstore_analysis.cli._options import base_path, data_dir_option
from otel_debugstore_analysis.cli._output import format_option, remark, show
from otel_debugstore_analysis.cli._progress import progress_bar


@click.command()
@click.option("--session", "-s", multiple=True, metavar="ID", help="A session; may be repeated. All by default.")
@click.option("--fix", is_flag=True, help="Rewrite what holds secrets with these masked; this can't be undone.")
@format_option
@data_dir_option
def command(session: tuple[str, ...], fix: bool, output_format: str) -> None:
    """Find secrets in sessions and archives, by the rules that mask what is recorded now.

    Shows where they are, of which kind and how many, never the secrets themselves. Rules of your own
    (OTEL_DEBUGSTORE_MASK_KEYS, OTEL_DEBUGSTORE_MASK_PATTERNS) count, too. Where something is found and left, the
    exit code is 1. A session that is being recorded can be scanned, and not fixed.

    \b
    Examples:
      debugstore scan
      debugstore scan --session nightly --fix
    """
    from otel_debugstore.masking import masker
    from otel_debugstore_analysis.query import Table
    from otel_debugstore_exporters import scan

    look = scan.fix if fix else scan.scan
    with progress_bar("Fixing" if fix else "Scanning") as progress:
        found = look(base_path(), list(session) or None, masker(), progress)
    if found or output_format != "table":
        show(Table(scan.Found._fields, [tuple(one) for one in found]), output_format)
    if not found:
        remark("No secrets were found.")
    elif fix:
        remark("All of them are masked now.")
    else:
        remark("`debugstore scan --fix` masks them.")
        raise Findings
