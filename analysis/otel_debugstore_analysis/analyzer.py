"""`DebugAnalyzer`: what a store's records say, under the names of the system this one replaces."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from otel_debugstore import attributes as names
from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.analyses.compare import Comparison
from otel_debugstore_analysis.analysis import Analysis
from otel_debugstore_analysis.closing import Closing
from otel_debugstore_analysis.query import Selection, Table
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
            context_id: One context; all by default.
            context_name: The component; all by default.
            include_variants: Whether versions of the code are compared, and their source is shown.
            max_samples: How many of the slowest records come with what went in and out.
            error_sample_limit: How many of the newest records that failed.
        """
        self._store.flush()
        given = {"layer": context_type, names.RECORD_CONTEXT_ID: context_id, "component": context_name}
        selection = Selection(where={name: value for name, value in given.items() if value is not None})
        samples = {
            "slow_records": self._records(given, "", "duration_ms DESC NULLS LAST", max_samples),
            "failed_records": self._records(given, _FAILED, "timestamp DESC", error_sample_limit),
        }
        findings = find(
            self._analysis.engine, selection=selection, variants=include_variants, records=samples, charts=True
        )
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
        """
        self._store.flush()
        return self._analysis.candidates(
            min_executions=min_executions, min_duration_ns=round(min_duration_ms * 1e6), limit=limit
        ).dicts()

    def close(self) -> None:
        """Let go of the session; the store stays open."""
        self._analysis.close()

    def _records(self, given: Mapping[str, str | None], condition: str, order: str, limit: int) -> Table:
        """Return records of a context, as the `records` view has them."""
        chosen = [(column, value) for column, value in zip(_CONTEXT, given.values(), strict=True) if value is not None]
        where = " AND ".join([*(f"{column} = ?" for column, _ in chosen), *([condition] if condition else [])])
        sql = (
            f"SELECT {', '.join(_RECORD)} FROM records {f'WHERE {where}' if where else ''} ORDER BY {order}, id LIMIT ?"
        )
        rows = self._store.query_analytics(sql, [*(value for _, value in chosen), max(limit, 0)])
        return Table(_RECORD, [tuple(row.values()) for row in rows], None)


_CONTEXT: Final = ("context_type", "context_id", "context_name")
_RECORD: Final = (
    *("context_type", "context_id", "context_name", "timestamp", "status", "duration_ms", "memory_mb", "cpu_percent"),
    *("error", "request_data", "response_data", "metadata", "variant_id"),
)
_FAILED: Final = "status IN ('error', 'timeout')"
