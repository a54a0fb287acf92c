"""Payloads by their digest."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, NamedTuple

from otel_debugstore.errors import QueryError
from otel_debugstore_exporters.reader import SessionReader

_NAMED: Final = 5


class StoredPayload(NamedTuple):
    """What a digest stands for; `content` is what `payload.restore` reads."""

    digest: str
    media_type: str
    size_bytes: int
    replayable: bool
    content: bytes


def find_payload(reader: SessionReader, digest: str) -> StoredPayload:
    """Return the payload with a digest, or with the only one that begins so.

    Raises:
        QueryError: There is none, or there are several.
    """
    reader.refresh()
    # Not through the view: that makes contents of several segments distinct before it looks for one.
    found: dict[str, str] = {}
    for part in reader.parts:
        sql = f"SELECT digest FROM {part}.payloads WHERE starts_with(digest, ?) ORDER BY digest LIMIT {_NAMED + 1}"
        for (known,) in reader.connection.execute(sql, [digest.lower()]).fetchall():
            found.setdefault(known, part)
    if digest.lower() in found:
        found = {digest.lower(): found[digest.lower()]}
    if not found:
        raise QueryError(
            f"No payload has the digest {digest!r} in {_sessions(reader)}; look in others (--session, --all-sessions). "
            "With OTEL_DEBUGSTORE_CAPTURE=digest none is kept."
        )
    if len(found) > 1:
        some = ", ".join(sorted(found)[:_NAMED])
        raise QueryError(f"Several payloads have a digest that begins with {digest!r} ({some}, ...); give more of it.")
    ((known, part),) = found.items()
    sql = f"SELECT digest, media_type, size_bytes, replayable, content FROM {part}.payloads WHERE digest = ?"
    row = reader.connection.execute(sql, [known]).fetchall()[0]
    return StoredPayload(row[0], row[1] or "", row[2], row[3], bytes(row[4] or b""))


def find_payloads(reader: SessionReader, digests: Collection[str]) -> dict[str, StoredPayload]:
    """Return the payloads that are there of these digests, as of the last refresh."""
    found: dict[str, StoredPayload] = {}
    for part in reader.parts:
        missing = [digest for digest in digests if digest not in found]
        if not missing:
            break
        sql = (
            f"SELECT digest, media_type, size_bytes, replayable, content FROM {part}.payloads "
            "WHERE digest IN (SELECT unnest(?))"
        )
        for digest, media_type, size_bytes, replayable, content in reader.connection.execute(sql, [missing]).fetchall():
            found[digest] = StoredPayload(digest, media_type or "", size_bytes, bool(replayable), bytes(content or b""))
    return found


def _sessions(reader: SessionReader) -> str:
    names = reader.session_ids
    return f"session {names[0]}" if len(names) == 1 else f"{len(names)} sessions"
