"""`DebugAnalyzer`: what a store's records say, under the names of the system this one replaces."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.analyses.compare import Comparison
from otel_debugstore_analysis.analysis import Analysis
from otel_debugstore_analysis.closing import Closing
from otel_debugstore_analysis.contexts import with_all_below
from otel_debugstore_analysis.query import Engine, Selection, Table
from otel_debugstore_analysis.report import commands
from otel_debugstore_analysis.report.findings import Findings, find
from otel_debugstore_analysis.report.html import html_report
from otel_debugstore_analysis.report.json import json_report
from otel_debugstore_analysis.report.sections import markdown_report
from otel_debugstore_exporters.store import DebugStore

Format = Literal["markdown", "json", "html"]
MAX_TOKENS: Final = 8_000
_SUFFIXES: Final[Mapping[str, Format]] = {".md": "markdown", ".json": "json", ".html": "html", ".htm": "html"}


@dataclass(frozen=True)
class AnalysisPackage:
    """What was found of a context.

    Attributes:
        context_type: The layer that was asked for; None for all.
        context_id: The context that was asked for; None for all.
        context_name: The component that was asked for; None for all.
        findings: The answers of the analyses, and slow traces.
    """

    context_type: str | None
    context_id: str | None
    context_name: str | None
    findings: Findings

    def to_markdown(self, max_tokens: int = MAX_TOKENS) -> str:
        """Return a report of at most so many tokens: verdict and recommendations first, then what they rest on."""
        return markdown_report(self.findings, max_tokens)

    def to_json(self, max_tokens: int | None = None) -> str:
        """Return all of it as JSON, or what fits into so many tokens."""
        return json_report(self.findings, max_tokens)

    def to_html(self) -> str:
        """Return a page with charts, waterfalls and a flame graph, which needs no other file and no network."""
        return html_report(self.findings)


class DebugAnalyzer(Closing):
    """Analyses what a store's session holds, and compares it with other sessions beside it.

    Args:
        store: The store; what was written to it is taken in before every question.
    """

    def __init__(self, store: DebugStore) -> None:
        self._store = store
        self._analysis = Analysis(base_path=store.base_path, sessions=[store.session_id])

    def analyze_context(
        self,
        context_type: str | None = None,
        context_id: str | None = None,
        context_name: str | None = None,
        include_variants: bool = True,
        max_samples: int = 5,
        error_sample_limit: int = 10,
    ) -> AnalysisPackage:
        """Return what is slow and failing in a context, since when and why, and what to do about it.

        Args:
            context_type: The layer (tool, workflow, step, node, function); all by default.
            context_id: One context, as `records` has it, with all that lies below it; all by default.
            context_name: The component; all by default.
            include_variants: Whether versions of the code are compared, and their source is shown.
            max_samples: How many of the slowest records come with what went in and out.
            error_sample_limit: How many of the newest records that failed.

        Raises:
            ConfigurationError: What was given of a context is no text.
            QueryError: The analyzer was closed.
        """
        engine = self._analysis.engine
        self._store.flush()
        context = {"context_type": context_type, "context_id": context_id, "context_name": context_name}
        chosen = self._chosen(engine, {name: value for name, value in context.items() if value is not None})
        samples = {
            "slow_records": self._records(chosen, "", "duration_ms DESC NULLS LAST", max_samples),
            "failed_records": self._records(chosen, _FAILED, "timestamp DESC", error_sample_limit),
        }
        findings = find(
            engine,
            selection=chosen.selection,
            variants=include_variants,
            records=samples,
            charts=True,
            scope=commands.of_sessions(self._store.base_path, [self._store.session_id]),
        )
        if chosen.notes:
            findings = replace(findings, tables={**findings.tables, "context": Table((), [], 0, chosen.notes)})
        return AnalysisPackage(context_type, context_id, context_name, findings)

    def export_to_file(
        self,
        package: AnalysisPackage,
        output_path: str | os.PathLike[str],
        format: Format | None = None,
        max_tokens: int | None = None,
    ) -> Path:
        """Write a package to a file and return its path.

        Args:
            package: What `analyze_context` returned.
            output_path: The file; directories above it are made.
            format: "markdown", "json" or "html"; by default what the file's name ends in (.md, .json, .html).
            max_tokens: The most that Markdown and JSON may have; by default 8,000 for Markdown, any for JSON.

        Raises:
            ConfigurationError: The format is none of these.
        """
        path = Path(output_path)
        chosen = format if format is not None else _SUFFIXES.get(path.suffix.lower(), "markdown")
        if chosen not in _SUFFIXES.values():
            raise ConfigurationError(f"A package can't be written as {chosen!r}; take markdown, json or html.")
        if chosen == "html":
            text = package.to_html()
        elif chosen == "json":
            text = package.to_json(max_tokens)
        else:
            text = package.to_markdown(MAX_TOKENS if max_tokens is None else max_tokens)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def compare_sessions(
        self, before: str | Sequence[str], after: str | Sequence[str] | None = None, limit: int = 20
    ) -> Comparison:
        """Return what is different between sessions that lie beside the store's: see `Analysis.compare`.

        Args:
            before: One session or several.
            after: Those to compare them with; by default the store's.
            limit: How many rows of each table at most.

        Raises:
            SessionNotFoundError: One of them is not there.
        """
        self._store.flush()
        sides = [[one] if isinstance(one, str) else list(one) for one in (before, after or self._store.session_id)]
        sessions = list(dict.fromkeys(session for side in sides for session in side))
        with Analysis(base_path=self._store.base_path, sessions=sessions) as analysis:
            return analysis.compare(sides[0], sides[1], limit=limit)

    def get_optimization_candidates(
        self, min_executions: int = 1, min_duration_ms: float = 0.0, limit: int = 20
    ) -> list[dict[str, Any]]:
        """Return what to optimise next, what saves most first: see `Analysis.candidates`.

        Args:
            min_executions: Components that were called less often are left out.
            min_duration_ms: Components whose calls took less on average are left out.
            limit: How many at most.

        Raises:
            ConfigurationError: `min_duration_ms` is no duration.
        """
        if not 0 <= min_duration_ms < math.inf:
            raise ConfigurationError(f"Calls can't take {min_duration_ms!r} ms; take a number, at least 0.")
        self._store.flush()
        return self._analysis.candidates(
            min_executions=min_executions, min_duration_ns=round(min_duration_ms * 1e6), limit=limit
        ).dicts()

    def close(self) -> None:
        """Let go of the session; the store stays open."""
        self._analysis.close()

    def _chosen(self, engine: Engine, context: Mapping[str, str]) -> _Chosen:
        """Return which spans a context has, of which this is known: values by columns of the `records` view."""
        for name, value in context.items():
            if not isinstance(value, str):
                raise ConfigurationError(f"{name} can't be {value!r}: it is text.")
        if "context_id" not in context:
            selection = Selection(where={_FIELDS[name]: value for name, value in context.items()})
            return _Chosen(selection, [f"{name} = ?" for name in context], list(context.values()), ())
        where = " AND ".join(f"{name} = ?" for name in context)
        rows = self._store.query_analytics(f"SELECT id FROM records WHERE {where}", list(context.values()))
        spans = with_all_below(engine, [row["id"] for row in rows])
        return _Chosen(spans.selection, ["id IN (SELECT unnest(?))"], [list(spans.record_ids)], spans.notes)

    def _records(self, chosen: _Chosen, condition: str, order: str, limit: int) -> Table:
        """Return records, as the `records` view has them."""
        where = " AND ".join([*chosen.conditions, *([condition] if condition else [])])
        sql = (
            f"SELECT {', '.join(_RECORD)} FROM records {f'WHERE {where}' if where else ''} ORDER BY {order}, id LIMIT ?"
        )
        rows = self._store.query_analytics(sql, [*chosen.values, max(limit, 0)])
        return Table(_RECORD, [tuple(row.values()) for row in rows], None)


class _Chosen(NamedTuple):
    """Which spans are looked at: as a selection, as conditions on the `records` view, and what is said of them."""

    selection: Selection
    conditions: list[str]
    values: list[Any]
    notes: tuple[str, ...]


_FIELDS: Final = {"context_type": "layer", "context_name": "component"}
_RECORD: Final = (
    *("context_type", "context_id", "context_name", "timestamp", "status", "duration_ms", "memory_mb", "cpu_percent"),
    *("error", "request_data", "response_data", "metadata", "variant_id"),
)
_FAILED: Final = "status IN ('error', 'timeout')"
