"""`debugstore serve`: an OTLP/HTTP receiver."""

from __future__ import annotations

import click

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.cli._options import base_path, data_dir_option
from otel_debugstore_analysis.cli._output import remark


@click.command()
@click.option("--session", "-s", metavar="ID", help="The session to receive into; a new one by default.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=4318,
    show_default=True,
    help="The port; 0 for a free one.",
)
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Listen also where other machines can reach it; there is no authentication.",
)
@data_dir_option
def command(session: str | None, host: str, port: int, allow_remote: bool) -> None:
    """Receive spans by OTLP/HTTP (protobuf or JSON) into a session, until Ctrl-C.

    A request that is answered is durable. Needs: pip install 'otel-debugstore[serve]'

    \b
    Examples:
      debugstore serve
      debugstore serve --session from-go --port 4320
    """
    from otel_debugstore.session_id import default_session_id
    from otel_debugstore_exporters.session import SessionPaths

    try:
        from otel_debugstore_exporters.server import serve
    except ImportError as error:
        raise ConfigurationError(
            f"The receiver needs {error.name}, which is not installed: pip install 'otel-debugstore[serve]'."
        ) from error
    paths = SessionPaths(base_path(), session or default_session_id("serve"))

    def on_start(address: str, bound: int) -> None:
        shown = f"[{address}]" if ":" in address else address
        remark(
            f"Receiving on http://{shown}:{bound}/v1/traces into session {paths.session_id} "
            f"in {paths.base_path}; Ctrl-C ends it."
        )

    serve(paths, host, port, allow_remote=allow_remote, on_start=on_start)
