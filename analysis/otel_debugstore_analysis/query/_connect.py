"""Connections to ClickHouse by URL."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.query._clickhouse import ClickHouseEngine, first_line

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LIMITS: Final = {
    "max_execution_time": "120",
    "max_result_rows": "10000000",
    "result_overflow_mode": "throw",
}
"""Settings of ClickHouse that bound every query; the URL's query string may say otherwise, or set more."""
_PASSWORD: Final = "CLICKHOUSE_PASSWORD"
_CONNECT_SECONDS: Final = 10
_FORMS: Final = "clickhouse://user:password@host:port/database, clickhouses:// (TLS), or chdb:///path"


def connect(url: str, sessions: Sequence[str] = ()) -> ClickHouseEngine:
    """Return the engine of a ClickHouse database.

    Args:
        url: `clickhouse://user:password@host:port/database` (the HTTP port, 8123 by default), `clickhouses://...`
            with TLS (8443), or `chdb:///path` for a database in this process (the package chdb). The environment
            variable `CLICKHOUSE_PASSWORD` counts where the URL has no password. A query string has settings of
            ClickHouse, such as `?max_execution_time=30&max_rows_to_read=100000000`.
        sessions: Which sessions count; all spans if it is empty.

    Raises:
        QueryError: The URL is none of these, the database can't be reached, or it has no `otel_traces`.
    """
    return ClickHouseEngine(client(url), shown(url), sessions)


def client(url: str) -> Client:
    """Return a connection to the database of a URL."""
    parts, options = _parts(url)
    try:
        import clickhouse_connect
    except ImportError as error:
        raise QueryError(
            "ClickHouse needs the package clickhouse-connect: pip install 'otel-debugstore[clickhouse]'."
        ) from error
    from clickhouse_connect.driver.exceptions import Error

    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())  # what it says is in the error
    try:
        return clickhouse_connect.get_client(**options)
    except ImportError as error:
        raise QueryError(f"{shown(url)} needs the package chdb: pip install chdb.") from error
    except (Error, OSError) as error:
        raise QueryError(
            f"{shown(url)} can't be reached ({first_line(_origin(error))}); check that the server runs, its HTTP port "
            f"({parts.port or 'by default 8123, with TLS 8443'}), user, password and database."
        ) from error


def _origin(error: BaseException) -> BaseException:
    """Return the error at the bottom: those above it say where in the client it passed."""
    below = error.__cause__ or error.__context__
    return _origin(below) if below is not None else error


def shown(url: str) -> str:
    """Return a URL as it may be shown: without the password."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def without_password(url: str) -> str:
    """Return a URL that connects to the same database where `CLICKHOUSE_PASSWORD` is set, if it needs a password."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}@{host}").geturl() if at else url


def _parts(url: str) -> tuple[SplitResult, dict[str, Any]]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise QueryError(f"The engine's URL can't be read ({error}); write {_FORMS}.") from error
    settings = LIMITS | dict(parse_qsl(parts.query))
    database = unquote(settings.pop("database", "") or "")
    if parts.scheme == "chdb":
        if parts.netloc or not parts.path.strip("/"):
            raise QueryError(f"{shown(url)} names no directory; write chdb:///path.")
        options = {"interface": "chdb", "path": unquote(parts.path)}
        return parts, options | {"settings": settings} | ({"database": database} if database else {})
    if parts.scheme not in ("clickhouse", "clickhouses") or not parts.hostname:
        raise QueryError(f"An engine's URL begins with {_FORMS}; this one is {shown(url) or 'empty'!r}.")
    secure = parts.scheme == "clickhouses"
    return parts, {
        "host": parts.hostname,
        "port": port or (8443 if secure else 8123),
        "username": unquote(parts.username or "default"),
        "password": unquote(parts.password or os.environ.get(_PASSWORD, "")),
        "database": database or unquote(parts.path.strip("/")) or "default",
        "secure": secure,
        "connect_timeout": _CONNECT_SECONDS,
        "settings": settings,
        "client_name": "otel-debugstore",
    }
