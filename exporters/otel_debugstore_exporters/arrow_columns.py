"""Small tables of texts and integers as Arrow, for DuckDB to take in; spans have their own in `arrow`."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import nanoarrow as na  # type: ignore[import-untyped]


class StagedRows:
    """An Arrow table that DuckDB can scan (by the Arrow PyCapsule interface), any number of times."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._array.__arrow_c_stream__(requested_schema)


def staged(**columns: Any) -> StagedRows:
    """Return columns of equal length as one table."""
    first = next(iter(columns.values()))
    schema = na.struct({name: column.schema for name, column in columns.items()})
    return StagedRows(na.Array(na.c_array_from_buffers(schema, len(first), [None], children=list(columns.values()))))


def integers(values: Sequence[int]) -> Any:
    """Return a column of 64-bit integers."""
    return na.c_array_from_buffers(na.int64(), len(values), [None, array("q", values)])


def texts(values: Sequence[str | bytes], kind: Any = None) -> Any:
    """Return a column of texts, in which lone surrogates become `?`; or one of bytes if `kind` is `na.binary()`."""
    data = [value if isinstance(value, bytes) else value.encode(errors="replace") for value in values]
    offsets = array("i", accumulate(map(len, data), initial=0))
    return na.c_array_from_buffers(kind or na.string(), len(data), [None, offsets, b"".join(data)])
