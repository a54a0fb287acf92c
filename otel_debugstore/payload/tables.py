"""How arrays and tables are captured: what they are, and their first values; small arrays as a whole.

numpy, pandas, polars and pyarrow are never imported here: a value of theirs can only be met where the program has.
Their own code is trusted as that of Python is, that of classes derived from theirs is not. Nothing is computed over a
whole array: of a large one a few dozen spread values are hashed, so that two of one shape can mostly be told apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from otel_debugstore.digest import blake2b
from otel_debugstore.payload.introspect import library_class, mro, type_name
from otel_debugstore.payload.walk import Handler, Plain, Walk

_NUMERIC: Final = frozenset("biufcmM")
_SPREAD_VALUES: Final = 64


def table_handler(cls: type) -> Handler | None:
    """Return the way to capture an array or a table of a library."""
    for module, name, handler, takes_subclasses in _CLASSES:
        known = library_class(module, name)
        if known is not None and (cls is known or (takes_subclasses and any(base is known for base in mro(cls)))):
            return _contained(handler)
    generic = library_class("numpy", "generic")
    if generic is not None and any(base is generic for base in mro(cls)):
        return _scalar if library_class("numpy", type_name(cls).removeprefix("numpy:")) is cls else None
    return None


def _contained(handler: Handler) -> Handler:
    """A table counts as a container: it may hold others, and itself. What its library calls, the program does not."""

    def handled(walk: Walk, value: Any) -> Plain:
        from otel_debugstore.suppressed import suppressed  # who captures only needs no OpenTelemetry

        with suppressed():
            return walk.contained(type_name(type(value)), value, lambda: handler(walk, value))

    return handled


def _array(walk: Walk, value: Any) -> Plain:
    base, mapped = library_class("numpy", "ndarray"), library_class("numpy", "memmap")
    plain = base.view(value, base)
    dtype = plain.dtype
    content: dict[str, Any] = {"dtype": dtype.str, "shape": list(plain.shape)}
    if plain.flags.f_contiguous and not plain.flags.c_contiguous:
        content["order"] = "F"
    if type(value) is not base:
        walk.replayable = False
        content["type"] = type_name(type(value))
    if mapped is not None and any(found is mapped for found in mro(type(value))):
        return walk.summary("$ndarray", content)  # its values are on the disk
    if dtype.kind in _NUMERIC and plain.nbytes <= walk.room():
        return walk.tagged("$ndarray", {**content, "data": walk.data(plain.tobytes())})
    return _head_of_array(walk, plain, content)


def _head_of_array(walk: Walk, array: Any, content: dict[str, Any]) -> Plain:
    kind, size = array.dtype.kind, array.size
    if kind in "US" and array.nbytes <= walk.room():
        values = array.flatten().tolist()
        items = walk.sequence("list", values, size, lambda count: values[:count])
        return walk.tagged("$ndarray", {**content, "items": items})
    is_small = kind != "T" and array.itemsize <= walk.limits.head_text  # numpy prints errors of flat texts of kind T
    head = array.flat[: walk.limits.head_items].tolist() if is_small else []
    if array.dtype.names:
        head = [_by_name(array.dtype, record) for record in head]
    if kind in _NUMERIC:
        content["sample"] = blake2b(array.flat[:: max(1, size // _SPREAD_VALUES)].tobytes(), digest_size=8).hexdigest()
    return walk.summary("$ndarray", {**content, "head": [walk.value(item) for item in head]})


def _by_name(dtype: Any, record: tuple[Any, ...]) -> dict[str, Any]:
    """Return the fields of a record by their names, those of records in it as well: names tell secrets."""
    fields = zip(dtype.names, record, strict=True)
    return {name: _by_name(dtype[name], item) if dtype[name].names else item for name, item in fields}


def _scalar(walk: Walk, value: Any) -> Plain:
    """A single value of numpy; some of these types are also floats, texts or bytes of Python."""
    kind, dtype = value.dtype.kind, value.dtype.str
    if kind in "biuf" and value.dtype.itemsize <= 8:
        return walk.tagged("$scalar", {"dtype": dtype, "value": walk.value(value.item())})
    if kind in "mM":
        return walk.tagged(
            "$scalar", {"dtype": dtype, "value": walk.integer(int(value.view("i8"))), "text": str(value)}
        )
    if kind in "USc" and value.dtype.itemsize <= walk.room():
        return walk.tagged("$scalar", {"dtype": dtype, "value": walk.value(value.item())})
    return walk.object(value)


def _pandas_frame(walk: Walk, value: Any) -> Plain:
    limits = walk.limits
    head = value.iloc[: limits.head_rows, : limits.head_items]
    rows = head.to_numpy(dtype=object).tolist()
    names, dtypes = head.columns.tolist(), head.dtypes.tolist()
    return _table(walk, "pandas", value.shape, names, dtypes, rows)


def _pandas_series(walk: Walk, value: Any) -> Plain:
    head = value.iloc[: walk.limits.head_items].tolist()
    return _series(walk, "pandas", value.name, value.dtype, len(value), head)


def _pandas_index(walk: Walk, value: Any) -> Plain:
    head = value[: walk.limits.head_items].tolist()
    return _series(walk, "pandas", value.name, value.dtype, len(value), head)


def _pandas_multi_index(walk: Walk, value: Any) -> Plain:
    rows = value[: walk.limits.head_rows].tolist()
    return _table(walk, "pandas", (len(value), value.nlevels), list(value.names), value.dtypes.tolist(), rows)


def _pandas_time(walk: Walk, value: Any) -> Plain:
    return walk.summary("$timestamp", str(value))


def _polars_frame(walk: Walk, value: Any) -> Plain:
    columns = value.get_columns()[: walk.limits.head_items]
    heads = [column.head(walk.limits.head_rows).to_list() for column in columns]  # no query: those hang after a fork
    names, dtypes = [column.name for column in columns], [column.dtype for column in columns]
    return _table(walk, "polars", value.shape, names, dtypes, list(zip(*heads, strict=True)))


def _polars_series(walk: Walk, value: Any) -> Plain:
    head = value.head(walk.limits.head_items).to_list()
    return _series(walk, "polars", value.name, value.dtype, len(value), head)


def _arrow_table(walk: Walk, value: Any) -> Plain:
    limits = walk.limits
    columns = [value.column(index) for index in range(min(limits.head_items, value.num_columns))]
    heads = [column[: limits.head_rows].to_pylist() for column in columns]
    fields = [value.schema.field(index) for index in range(len(columns))]
    names, dtypes = [field.name for field in fields], [field.type for field in fields]
    return _table(walk, "pyarrow", value.shape, names, dtypes, list(zip(*heads, strict=True)))


def _tensor(walk: Walk, value: Any) -> Plain:
    content = {"dtype": str(value.dtype), "shape": list(value.shape), "device": str(value.device)}
    return walk.summary("$tensor", content)


def _table(walk: Walk, library: str, shape: Any, names: Any, dtypes: Any, rows: Any) -> Plain:
    content = {
        "library": library,
        "shape": [int(length) for length in shape],
        "columns": [[walk.value(name), str(dtype)] for name, dtype in zip(names, dtypes, strict=True)],
        "rows": [[walk.value(item) for item in row] for row in rows],
    }
    return walk.summary("$dataframe", content)


def _series(walk: Walk, library: str, name: Any, dtype: Any, length: int, head: list[Any]) -> Plain:
    content = {
        "library": library,
        "name": walk.value(name),
        "dtype": str(dtype),
        "length": length,
        "head": [walk.value(item) for item in head],
    }
    return walk.summary("$series", content)


_INDEXES: Final = (
    "CategoricalIndex",
    "DatetimeIndex",
    "Index",
    "IntervalIndex",
    "PeriodIndex",
    "RangeIndex",
    "TimedeltaIndex",
)
_CLASSES: Final[tuple[tuple[str, str, Callable[[Walk, Any], Plain], bool], ...]] = (
    ("numpy", "ndarray", _array, True),
    ("pandas", "DataFrame", _pandas_frame, False),
    ("pandas", "Series", _pandas_series, False),
    *(("pandas", name, _pandas_index, False) for name in _INDEXES),
    ("pandas", "MultiIndex", _pandas_multi_index, False),
    *(("pandas", name, _pandas_time, False) for name in ("Timestamp", "Timedelta", "Period")),
    ("polars", "DataFrame", _polars_frame, False),
    ("polars", "Series", _polars_series, False),
    ("pyarrow", "Table", _arrow_table, False),
    ("pyarrow", "RecordBatch", _arrow_table, False),
    ("torch", "Tensor", _tensor, False),
)
"""Module, name, handler, and whether subclasses may be handled in the same way."""
