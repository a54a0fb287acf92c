"""Thresholds of audits: the defaults, pyproject.toml, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_debugstore import PerformanceThreshold
from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.auditor import Thresholds, read_thresholds


def test_the_defaults() -> None:
    """The limits that users of the replaced system know, by layer."""
    found = {
        layer: (one.max_duration_ms, one.max_memory_mb, one.min_success_rate)
        for layer, one in Thresholds().by_layer.items()
    }
    assert found == {
        "function": (100, 50, 0.99),
        "tool": (1000, 100, 0.95),
        "step": (5000, 200, 0.95),
        "node": (10_000, 500, 0.90),
        "workflow": (60_000, 1000, 0.85),
    }


def test_from_pyproject(tmp_path: Path) -> None:
    """By layer, by glob of components (of which the last counts), by attribute; false takes a limit away."""
    path = tmp_path / "pyproject.toml"
    path.write_text(
        """
        [tool.otel-debugstore.thresholds.layer.tool]
        max-p95-ms = 500
        max-memory-mb = false
        [tool.otel-debugstore.thresholds.component."shop.*"]
        max-duration-ms = "auto"
        max-sums = { "gen_ai.usage.output_tokens" = 2000 }
        [tool.otel-debugstore.thresholds.component."shop.buy"]
        max-error-rate = 0
        [tool.otel-debugstore.thresholds.attribute."http.route"."/api/*"]
        max-p99-ms = 250
        """
    )
    found = read_thresholds(path)
    assert found.value("tool", "x") == PerformanceThreshold(max_duration_ms=1000, max_p95_ms=500, min_success_rate=0.95)
    assert found.value("node", "shop.sell") == PerformanceThreshold(
        max_duration_ms="auto",
        max_memory_mb=500,
        min_success_rate=0.9,
        max_sums={"gen_ai.usage.output_tokens": 2000},
    )
    buy = found.value("tool", "shop.buy")
    assert buy is not None
    assert (buy.max_error_rate, buy.max_duration_ms) == (0, 1000)
    assert found.of_attribute("http.route", "/api/x") == PerformanceThreshold(max_p99_ms=250)
    assert found.of_attribute("http.route", "/x") is None
    assert found.value("", "x") is None


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file the defaults hold; one that was named has to be there."""
    monkeypatch.chdir(tmp_path)
    assert read_thresholds() == Thresholds()
    with pytest.raises(ConfigurationError, match="There is no file"):
        read_thresholds(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("layer.tol.max-p95-ms = 1", "'tol' is no layer"),
        ("layer.tool.max-p96-ms = 1", "there is no limit 'max-p96-ms'"),
        ("layer.tool.max-p95-ms = -1", "max_p95_ms can't be -1"),
        ("layer.tool.max-p95-ms = '1'", "max_p95_ms can't be '1'"),
        ("layer.tool.max-p95-ms = true", "max_p95_ms can't be True"),
        ("layer.tool.max-p95-ms = nan", "max_p95_ms can't be nan"),
        ("layer.tool.max-p50-ms = 'auto'", "max_p50_ms can't be 'auto': .*; no history proposes it"),
        ("layer.tool.max-error-rate = 5", "it is a share"),
        ("layer.tool.duration-statistic = 'p42'", "There is no statistic 'p42'"),
        ("layer.tool.max-sums = 3", "it takes limits by attribute"),
        ("layer.tool.max-sums.x = 'many'", "max_sums of x can't be 'many'"),
        ("layer = 3", "'layer' is 3, and not a table"),
        ("layer.tool = 3", "'tool' is 3, and not a table"),
        ("layers.tool.max-p95-ms = 1", "there is no 'layers'"),
        ("defaults = 1", "defaults has to be true or false"),
        ("layer.tool.max-p95-ms = ", "can't be read"),
    ],
)
def test_what_is_no_threshold(tmp_path: Path, text: str, why: str) -> None:
    """A limit that can't be used is an error that names it: an audit that overlooks one is worth nothing."""
    path = tmp_path / "pyproject.toml"
    path.write_text("\n".join(["[tool.otel-debugstore.thresholds]", text]))
    with pytest.raises(ConfigurationError, match=why):
        read_thresholds(path)


def test_no_defaults(tmp_path: Path) -> None:
    """With `defaults = false` only what the file says is limited."""
    path = tmp_path / "pyproject.toml"
    path.write_text("[tool.otel-debugstore.thresholds]\ndefaults = false\nlayer.tool.max-p50-ms = 1\n")
    found = read_thresholds(path)
    assert dict(found.by_layer) == {"tool": PerformanceThreshold(max_p50_ms=1)}
