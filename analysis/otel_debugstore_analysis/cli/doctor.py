"""`debugstore doctor`: what is wrong, what was dropped, and repairs."""

from __future__ import annotations

import contextlib

import click

from otel_debugstore.errors import DebugStoreError
from otel_debugstore_analysis.cli._errors import Findings
from otel_debugstore_analysis.cli._options import base_path, data_dir_option
from otel_debugstore_analysis.cli._output import format_option, remark, show


@click.command()
@click.option("--session", "-s", multiple=True, metavar="ID", help="A session; may be repeated. All by default.")
@click.option("--ledger", is_flag=True, help="Show only what recording cost, by component.")
@click.option("--repair", is_flag=True, help="Mend what can be mended; unreadable files are set aside, never deleted.")
@format_option
@data_dir_option
def command(session: tuple[str, ...], ledger: bool, repair: bool, output_format: str) -> None:
    """Verify journals and segments, show which spans were dropped and why, and what recording cost; repair.

    A problem that is left makes the exit code 1; notes, such as dropped spans, do not. The overhead ledger, what
    the recording of a component's calls cost, follows for people; programs ask for it by --ledger.

    \b
    Examples:
      debugstore doctor
      debugstore doctor --repair
      debugstore doctor --ledger --format json
    """
    from otel_debugstore_analysis.query import Table
    from otel_debugstore_exporters import doctor

    if ledger:
        _show_ledger(session, output_format)
        return
    look = doctor.repair if repair else doctor.examine
    findings = look(base_path(), list(session) or None)
    columns = ("session", "severity", "subject", "what", "remedy", "repaired")
    rows = [(f.session, f.severity, f.subject, f.what, f.remedy, f.repaired) for f in findings]
    if findings or output_format != "table":
        show(Table(columns, rows), output_format)
    else:
        remark("Nothing is wrong, and nothing was dropped.")
    if output_format in ("table", "markdown"):
        with contextlib.suppress(DebugStoreError):  # what can't be read is among the findings
            _show_ledger(session, output_format, below=True)
    if any(finding.severity == "problem" and not finding.repaired for finding in findings):
        raise Findings


def _show_ledger(session: tuple[str, ...], output_format: str, below: bool = False) -> None:
    """Show what recording cost; nothing, if it stands below something else and there is nothing to show."""
    from otel_debugstore_analysis import query
    from otel_debugstore_exporters.reader import SessionReader

    with SessionReader(base_path(), list(session) or None) as reader:
        table = query.ledger(query.DuckDBEngine(reader))
    if table.rows or not below:
        if below:
            click.echo("\nWhat recording cost:")
        show(table, output_format)
