"""Columns of an Arrow table as numpy arrays: texts as codes, ids as numbers, rows in one order everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from otel_debugstore_analysis.query._links import Ints

_ID_LENGTH: Final = 16
MAX_NS: Final = 2**63 - 1

Codes = npt.NDArray[np.int32]


class Coded(NamedTuple):
    """A column of texts: by row the place of its text in `values`, which are sorted; None, where it is, comes first."""

    codes: Codes
    values: tuple[str | None, ...]


def numpy_of(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[Any]:
    """Return numbers, or truths, without NULLs among them.

    As pyarrow's `to_numpy`, which imports pandas where that is installed: 0.3 s.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    end = array.offset + len(array)
    data = array.buffers()[1] or b""
    if pa.types.is_boolean(array.type):
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return bits[array.offset : end].astype(np.bool_)
    return np.frombuffer(data, _DTYPES[str(array.type)])[array.offset : end]


_DTYPES: Final = {"double": np.float64} | {
    f"{sign}int{bits}": getattr(np, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)
}


def coded(column: pa.ChunkedArray) -> Coded:
    """Return a column of texts as codes into its sorted values."""
    encoded = pc.dictionary_encode(column.combine_chunks(), null_encoding="encode")
    texts: list[str | None] = encoded.dictionary.to_pylist()
    places = sorted(range(len(texts)), key=lambda place: (texts[place] is not None, texts[place] or ""))
    rank = np.empty(len(texts), np.int32)
    rank[places] = np.arange(len(texts), dtype=np.int32)
    return Coded(rank[numpy_of(encoded.indices)], tuple(texts[place] for place in places))


def extra(column: pa.ChunkedArray, rows: Ints) -> Coded | npt.NDArray[np.float64]:
    """Return rows of a column: texts as codes, numbers as float64 with NaN for NULL."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        codes, values = coded(column)
        return Coded(codes[rows], values)
    numbers: npt.NDArray[np.float64] = numpy_of(column.cast(pa.float64(), safe=False).fill_null(float("nan")))[rows]
    return numbers


def integers(column: pa.ChunkedArray, missing: int = 0) -> Ints:
    """Return a column of integers, with `missing` for NULL."""
    return np.asarray(numpy_of(column.cast(pa.int64()).fill_null(missing)), dtype=np.int64)


def order(trace: Codes, start_ns: Ints, ties: Sequence[npt.NDArray[Any]]) -> Ints:
    """Return the rows by trace, then by start, then by the others."""
    if not len(trace):
        return np.empty(0, np.int64)
    least, most = int(start_ns.min()), int(start_ns.max())
    if (int(trace.max()) + 1) * (most - least + 1) > MAX_NS:
        return np.lexsort((*ties[::-1], start_ns, trace))
    key = trace.astype(np.int64) * (most - least + 1) + (start_ns - least)
    rows = np.argsort(key)
    same = np.diff(key[rows]) == 0
    if np.any(same):
        tied = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
        within = rows[tied]
        rows[tied] = within[np.lexsort((*(tie[within] for tie in ties[::-1]), key[within]))]
    return rows


def ids(span_id: pa.ChunkedArray, parent_id: pa.ChunkedArray) -> tuple[npt.NDArray[np.uint64], ...]:
    """Return ids as numbers, in the order of their texts and equal where they are."""
    numbers = [_hexadecimal(column) for column in (span_id, parent_id)]
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0], numbers[1]
    both = coded(pa.chunked_array([*span_id.chunks, *parent_id.chunks], pa.string())).codes.astype(np.uint64)
    return both[: len(span_id)], both[len(span_id) :]


def _pairs() -> npt.NDArray[np.uint16]:
    """Return by two characters (as a number of 16 bits) the byte that they say as hexadecimal digits, else 256."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8).astype(np.uint16)
    bytes_of = np.full(1 << 16, 256, np.uint16)
    bytes_of[(digits[None, :] << 8) | digits[:, None]] = np.arange(256).reshape(16, 16)
    return bytes_of


_BYTES: Final = _pairs()


def _hexadecimal(column: pa.ChunkedArray) -> npt.NDArray[np.uint64] | None:
    """Return the numbers that texts of 16 hexadecimal digits say, 0 for NULL; None where others are among them."""
    texts = column.fill_null("0" * _ID_LENGTH).cast(pa.large_binary()).combine_chunks()
    if not pc.all(pc.equal(pc.binary_length(texts), _ID_LENGTH), min_count=0).as_py():
        return None
    _, offsets, data = texts.buffers()
    begin = int(np.frombuffer(offsets, np.int64)[texts.offset]) if len(texts) else 0
    characters = np.frombuffer(data or b"", np.uint8)[begin : begin + _ID_LENGTH * len(texts)]
    values = _BYTES[characters.view("<u2")]
    if np.any(values > 255):
        return None
    numbers: npt.NDArray[np.uint64] = values.astype(np.uint8).view(">u8").astype(np.uint64)
    return numbers
