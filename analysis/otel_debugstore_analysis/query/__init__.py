"""The one query layer: analyses over the canonical span table, on whichever engine holds the spans.

Names are imported when they are first used: Ibis takes 0.3 s, and not every command needs it.
"""

from typing import TYPE_CHECKING

from otel_debugstore_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from otel_debugstore_analysis.query._clickhouse import ClickHouseEngine
    from otel_debugstore_analysis.query._columns import Coded
    from otel_debugstore_analysis.query._connect import connect
    from otel_debugstore_analysis.query._engine import Compiled, DuckDBEngine, Engine
    from otel_debugstore_analysis.query._follow import Follower
    from otel_debugstore_analysis.query._frame import SpanFrame, frame
    from otel_debugstore_analysis.query._ledger import ledger
    from otel_debugstore_analysis.query._rollup import percentiles_from_rollup
    from otel_debugstore_analysis.query._selection import EVERYTHING, Selection
    from otel_debugstore_analysis.query._table import Table
    from otel_debugstore_analysis.query._top import ORDERS, slowest, slowest_traces, top
    from otel_debugstore_analysis.query._trace import Trace, trace
    from otel_debugstore_analysis.query._tree import TraceSpan

_MODULES = {
    "EVERYTHING": "_selection",
    "ORDERS": "_top",
    "ClickHouseEngine": "_clickhouse",
    "Coded": "_columns",
    "Compiled": "_engine",
    "DuckDBEngine": "_engine",
    "Engine": "_engine",
    "Follower": "_follow",
    "Selection": "_selection",
    "SpanFrame": "_frame",
    "Table": "_table",
    "Trace": "_trace",
    "TraceSpan": "_tree",
    "connect": "_connect",
    "frame": "_frame",
    "ledger": "_ledger",
    "percentiles_from_rollup": "_rollup",
    "slowest": "_top",
    "slowest_traces": "_top",
    "top": "_top",
    "trace": "_trace",
}

__all__ = [
    "EVERYTHING",
    "ORDERS",
    "ClickHouseEngine",
    "Coded",
    "Compiled",
    "DuckDBEngine",
    "Engine",
    "Follower",
    "Selection",
    "SpanFrame",
    "Table",
    "Trace",
    "TraceSpan",
    "connect",
    "frame",
    "ledger",
    "percentiles_from_rollup",
    "slowest",
    "slowest_traces",
    "top",
    "trace",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
