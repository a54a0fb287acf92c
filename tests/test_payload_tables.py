"""Arrays and tables: what is captured of them, and that they are left as they were."""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pytest
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

import captured
from captured import CALLS
from otel_debugstore.payload import capture, restore
from payload_values import MASKER, plain, same


def test_arrays_come_back() -> None:
    """Small ones of numbers, times and texts, with dtype and shape; and single values."""
    arrays = [
        np.arange(12, dtype="<i4").reshape(3, 4).T,
        np.array([1.5, np.nan, np.inf]),
        np.array([], dtype=complex),
        np.array(5.0),
        np.array([True, False]),
        np.arange(4, dtype=">u2"),
        np.array(["2020-01-01", "NaT"], dtype="M8[ns]"),
        np.array([["a", "bc"], ["", "d"]]),
        np.array([b"x", b"yz"]),
    ]
    scalars = [np.float32(1.1), np.int8(-3), np.bool_(True), np.datetime64("2020-01-01T01"), np.timedelta64(5, "s")]
    for value in [*arrays, *scalars, np.str_("x"), np.complex64(1j), {"a": [np.float64(2)]}]:
        kept = capture(value, MASKER)
        assert kept.replayable, value
        assert same(restore(kept.content), value), value


def test_what_a_table_runs_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its library's functions may be recorded themselves: capturing their arguments would have no end."""
    may_record, to_numpy = [], pd.DataFrame.to_numpy

    def watched(*args: object, **kwargs: object) -> object:
        may_record.append(is_instrumentation_enabled())
        return to_numpy(*args, **kwargs)

    monkeypatch.setattr(pd.DataFrame, "to_numpy", watched)
    capture(pd.DataFrame({"n": [1, 2]}), MASKER)
    assert may_record == [False]
    assert is_instrumentation_enabled()


def test_large_array() -> None:
    """What it is, its head, and a fingerprint of spread values; never its values as a whole."""
    array = np.arange(1_000_000.0)
    content = plain(array)["$ndarray"]
    assert (content["dtype"], content["shape"], content["head"]) == ("<f8", [1_000_000], list(range(32)))
    changed = array + (np.arange(1_000_000) >= 500_000)
    assert plain(changed)["$ndarray"]["sample"] != content["sample"]
    assert not capture(array).replayable
    objects = np.empty(2, dtype=object)
    objects[0] = captured.OfHostileMeta()
    CALLS.clear()
    assert plain(objects)["$ndarray"]["head"] == [{"$object": "captured:OfHostileMeta"}, None]
    assert CALLS == []


def test_array_on_the_disk_is_not_read(tmp_path: pathlib.Path) -> None:
    """Of a mapped file only dtype and shape are told."""
    mapped = np.memmap(tmp_path / "x", dtype="f8", mode="w+", shape=(10,))
    assert set(plain(mapped)["$ndarray"]) == {"dtype", "shape", "type"}


def test_tables() -> None:
    """Shape, names, dtypes and first rows; columns with the name of a secret are masked."""
    columns = {"n": list(range(100)), "password": ["geheim"] * 100}
    pandas, polars = pd.DataFrame(columns), pl.DataFrame(columns)
    for table, library, dtype in (
        (pandas, "pandas", "int64"),
        (polars, "polars", "Int64"),
        (pa.table(columns), "pyarrow", "int64"),
    ):
        content = plain(table)["$dataframe"]
        assert (content["library"], content["shape"]) == (library, [100, 2])
        assert content["columns"][0] == ["n", dtype]
        assert content["rows"] == [[row, {"$masked": "password"}] for row in range(5)]
        assert not capture(table).replayable
    assert plain(pandas["n"])["$series"]["head"] == list(range(32))
    assert plain(polars["n"])["$series"]["length"] == 100
    assert plain(pandas.index)["$series"]["dtype"] == "int64"
    assert plain(pl.LazyFrame(columns)) == {"$object": "polars.lazyframe.frame:LazyFrame"}
    wide = plain(pd.DataFrame(np.zeros((2, 500))))["$dataframe"]
    assert (wide["shape"], len(wide["columns"])) == ([2, 500], 32)


def test_table_is_left_as_it_was() -> None:
    """pandas copies a block when somebody else still looks at it: a write after the capture is in place."""
    frame = pd.DataFrame(np.zeros((1000, 3)))
    before = frame[0].to_numpy()
    address = before.__array_interface__["data"]
    del before
    capture(frame)
    frame.iloc[0, 0] = 1.0
    assert frame[0].to_numpy().__array_interface__["data"] == address


def test_records_of_an_array() -> None:
    """Fields are told by name, in one another too, so that one with the name of a secret is masked."""
    inner = np.dtype([("password", "U20"), ("n", "i4")])
    records = np.array([(1, ("hunter2", 2))], dtype=[("a", "i4"), ("login", inner)])
    head = plain(records)["$ndarray"]["head"]
    assert head == [{"a": 1, "login": {"password": {"$masked": "password"}, "n": 2}}]


def test_texts_of_any_length(capfd: pytest.CaptureFixture[str]) -> None:
    """Reading them one after the other has numpy print a traceback, so only dtype and shape are told."""
    texts = np.array(["a", "b" * 40], dtype=np.dtypes.StringDType())
    assert plain(texts) == {"$ndarray": {"dtype": "StringDType()", "shape": [2], "head": []}}
    assert capfd.readouterr() == ("", "")


def test_tables_in_themselves() -> None:
    """An array or series of objects that holds itself, and others in one another, end as lists do."""
    array = np.empty(3, dtype=object)
    array[:] = [array] * 3
    assert plain([array])[0]["$ndarray"]["head"] == [{"$cycle": 1}] * 3
    series = pd.Series([None], dtype=object)
    series.array._ndarray[0] = series
    assert plain(series)["$series"]["head"] == [{"$cycle": 1}]
    nested = np.array(0)
    for _ in range(100):
        outer = np.empty(1, dtype=object)
        outer[0] = nested
        nested = outer
    found, depth = plain(nested), 0
    while "$ndarray" in found:
        (found,), depth = found["$ndarray"]["head"], depth + 1
    assert (depth, found) == (20, {"$cut": {"kind": "numpy:ndarray"}})


def test_indexes_of_pandas() -> None:
    """Of several levels as a table; a level, and a column of several, is masked by any of its names."""
    levels = pd.MultiIndex.from_tuples([("geheim", 1), ("geheim", 2)], names=["password", "n"])
    content = plain(levels)["$dataframe"]
    assert (content["shape"], content["columns"][1]) == ([2, 2], ["n", "int64"])
    assert content["rows"] == [[{"$masked": "password"}, 1], [{"$masked": "password"}, 2]]
    columns = pd.MultiIndex.from_tuples([("login", "password"), ("login", "n")])
    assert plain(pd.DataFrame([["geheim", 1]], columns=columns))["$dataframe"]["rows"] == [[{"$masked": "password"}, 1]]
    for index in (pd.CategoricalIndex(["a"]), pd.period_range("2020", periods=3), pd.interval_range(0, 2)):
        assert plain(index)["$series"]["length"] == len(index)
