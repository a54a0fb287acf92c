"""`debugstore doctor`: what is wrong, what was dropped, and repairs."""

from __future__ import annotations

import click

from otel_debugstore_analysis.cli._errors import Findings
from otel_debugstore_analysis.cli._options import base_path, data_dir_option
from otel_debugstore_analysis.cli._output import format_option, remark, show


@click.command()
@click.option("--session", "-s", multiple=True, metavar="ID", help="A session; may be repeated. All by default.")
@click.option("--repair", is_flag=True, help="Mend what can be mended; unreadable files are set aside, never deleted.")
@format_option
@data_dir_option
def command(session: tuple[str, ...], repair: bool, output_format: str) -> None:
    """Verify journals and segments, show which spans were dropped and why, and repair.

    A problem that is left makes the exit code 1; notes, such as dropped spans, do not.

    \b
    Examples:
      debugstore doctor
      debugstore doctor --repair
    """
    from otel_debugstore_analysis.query import Table
    from otel_debugstore_exporters import doctor

    look = doctor.repair if repair else doctor.examine
    findings = look(base_path(), list(session) or None)
    columns = ("session", "severity", "subject", "what", "remedy", "repaired")
    rows = [(f.session, f.severity, f.subject, f.what, f.remedy, f.repaired) for f in findings]
    if findings or output_format != "table":
        show(Table(columns, rows), output_format)
    else:
        remark("Nothing is wrong, and nothing was dropped.")
    if any(finding.severity == "problem" and not finding.repaired for finding in findings):
        raise Findings
