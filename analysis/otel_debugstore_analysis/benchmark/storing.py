"""Comparisons as spans of a session, so that everything that reads spans reads them.

A comparison is a span `benchmark NAME` whose attributes are its result (`debugstore.benchmark.*`, the view
`benchmarks`). Below it is a span for each process and side that lasts as long as a call took there (the median), with
the name of the
implementation as its component, and its variant: `compare`, `regressions` and `variants` take these like any calls.
It is written when all is measured, in one transaction.
"""

from __future__ import annotations

import json
import math
import os
import platform
import secrets
import time
from typing import Any

from otel_debugstore import attributes as names
from otel_debugstore.config import Settings
from otel_debugstore.layers import Layer, check_layer
from otel_debugstore_analysis.benchmark.results import Comparison
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import Resource, Scope, SpanBatch, SpanRecord, batch_from_records
from otel_debugstore_exporters.ingestion import ingested
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.session import SessionPaths

_ERROR = 2
_SCOPE = Scope("otel_debugstore.benchmark")


def record_comparison(
    base_path: str | os.PathLike[str],
    session_id: str,
    name: str,
    comparison: Comparison,
    *,
    baseline: str = "baseline",
    candidate: str = "candidate",
    layer: Layer = "function",
) -> str:
    """Write a comparison into a session, and return the id of its trace.

    Args:
        base_path: Where sessions lie.
        session_id: The session; it is made if it is not there.
        name: Of the benchmark.
        comparison: What was found.
        baseline, candidate: The names of the implementations: the components of the spans of their calls.
        layer: Theirs.

    Raises:
        ConfigurationError: The layer is none.
        InvalidSessionIdError: The session can't be named so.
        JournalError: The session can't be written.
    """
    settings = Settings.from_environment(base_path=base_path, session_id=session_id)
    end_ns = time.time_ns()
    start_ns = end_ns - int(comparison.seconds * 1e9)
    resource = Resource({names.SERVICE_NAME: session_id, names.SESSION_ID: session_id})
    trace_id = secrets.token_bytes(16)
    root = SpanRecord(
        trace_id=trace_id,
        span_id=secrets.token_bytes(8),
        name=f"benchmark {name}",
        start_ns=start_ns,
        end_ns=end_ns,
        status_code=0 if comparison.is_ranked else _ERROR,
        status_message="" if comparison.is_ranked else comparison.cause,
        attributes=_attributes(name, comparison, baseline, candidate) | {names.LAYER: check_layer(layer)},
        resource=resource,
        scope=_SCOPE,
    )
    batches = [batch_from_records([root], os.getpid())]
    if comparison.unit == "ns":
        batches += _calls(root, comparison, (baseline, candidate), layer)
    paths = SessionPaths(settings.base_path, session_id)
    with Journal.open(paths.journal, map_size=settings.map_size_bytes) as journal:
        journal.append([codec.encode(ingested(batch), end_ns) for batch in batches])
    return trace_id.hex()


def _attributes(name: str, comparison: Comparison, baseline: str, candidate: str) -> dict[str, Any]:
    memory = comparison.memory
    found = {
        names.BENCHMARK_NAME: name,
        names.BENCHMARK_BASELINE: baseline,
        names.BENCHMARK_CANDIDATE: candidate,
        names.BENCHMARK_VERDICT: comparison.verdict,
        names.BENCHMARK_CAUSE: comparison.cause,
        names.BENCHMARK_RATIO: comparison.ratio,
        names.BENCHMARK_RATIO_LOW: comparison.low,
        names.BENCHMARK_RATIO_HIGH: comparison.high,
        names.BENCHMARK_MIN_EFFECT: comparison.min_effect,
        names.BENCHMARK_UNIT: comparison.unit,
        names.BENCHMARK_BASELINE_TIME: comparison.baseline_ns,
        names.BENCHMARK_CANDIDATE_TIME: comparison.candidate_ns,
        names.BENCHMARK_BASELINE_VARIANT: comparison.baseline_variant,
        names.BENCHMARK_CANDIDATE_VARIANT: comparison.candidate_variant,
        names.BENCHMARK_PROCESSES: comparison.processes,
        names.BENCHMARK_PAIRS: comparison.pairs,
        names.BENCHMARK_CHECKED: comparison.checked,
        names.BENCHMARK_BASELINE_PEAK_BYTES: memory.baseline_peak_bytes if memory else None,
        names.BENCHMARK_CANDIDATE_PEAK_BYTES: memory.candidate_peak_bytes if memory else None,
        names.BENCHMARK_CLASSES: json.dumps(comparison.to_dict()["per_class"]),
        names.BENCHMARK_HOST: platform.node(),
        names.BENCHMARK_PYTHON: platform.python_version(),
    }
    return {key: value for key, value in found.items() if not _is_unknown(value)}


def _is_unknown(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _calls(root: SpanRecord, comparison: Comparison, sides: tuple[str, str], layer: Layer) -> list[SpanBatch]:
    """Return what processes measured as spans, one after the other from the beginning of the comparison's on."""
    variants = comparison.baseline_variant, comparison.candidate_variant
    start_ns, batches = root.start_ns or 0, []
    for unit in comparison.units:
        spans = []
        for side, variant, time_ns in zip(sides, variants, (unit.baseline_ns, unit.candidate_ns), strict=True):
            attributes = {names.LAYER: layer, names.COMPONENT: side, names.BENCHMARK_HOST: unit.host}
            end_ns = start_ns + round(time_ns)
            spans.append(
                SpanRecord(
                    trace_id=root.trace_id,
                    span_id=secrets.token_bytes(8),
                    parent_id=root.span_id,
                    name=side,
                    start_ns=start_ns,
                    end_ns=end_ns,
                    attributes=attributes | ({names.VARIANT: variant} if variant else {}),
                    resource=root.resource,
                    scope=_SCOPE,
                )
            )
            start_ns = end_ns
        batches.append(batch_from_records(spans, unit.pid))
    return batches
