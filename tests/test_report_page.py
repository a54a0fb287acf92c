"""The report's page in a real browser: it shows what was recorded, runs none of it, and asks for nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import Tab, browser
from otel_debugstore import Analysis
from otel_debugstore_analysis.report.findings import find
from otel_debugstore_analysis.report.html import html_report
from otel_debugstore_exporters.batch import SpanRecord
from reports import HOSTILE, hostile, shop
from sessions import span, write_sealed

ATTACKS = (
    "<script>window.owned=1</script>",
    "<img src=http://127.0.0.1:9/a onerror=window.owned=1>",
    "</title></text></svg><script src=http://127.0.0.1:9/b></script>",
    '"><svg onload=window.owned=1>',
    "' onmouseover='window.owned=1",
    "</script></style><style>@import 'http://127.0.0.1:9/c';*{display:none}</style>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/d'><base href=http://127.0.0.1:9/>",
    "javascript:window.owned=1",
    "&lt;script&gt;window.owned=1&lt;/script&gt;",
    "{body}{script}%s${window.owned=1}`${window.owned=1}`",
    "]]><!--<script>window.owned=1//-->",
)


def attacks() -> list[SpanRecord]:
    """Return spans whose names, messages, services and attributes would run a script, or load something."""
    spans = []
    for number, text in enumerate(ATTACKS, 1):
        first = 100 * number
        own = {"debugstore.variant": text, "key": text, text: "value"}
        spans.append(span(first, text, trace=number, duration_ms=90, error=text, service=text, attributes=own))
        for n in range(1, 7):
            spans.append(span(first + n, text, parent=first, trace=number, start_ms=10 * n, duration_ms=9))
    return spans


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser."""
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def page_of(folder: Path, spans: list[SpanRecord]) -> Path:
    """Write the report of some spans as a page."""
    write_sealed(folder, "s", spans)
    with Analysis(base_path=folder) as analysis:
        text = html_report(find(analysis.engine, charts=True))
    page = folder / "report.html"
    page.write_text(text, encoding="utf-8")
    return page


@pytest.mark.slow
@pytest.mark.parametrize("spans", [attacks(), hostile()], ids=["attacks", "hostile"])
def test_nothing_recorded_runs_or_is_loaded(tab: Tab, tmp_path: Path, spans: list[SpanRecord]) -> None:
    """The page is all that is asked for, no script but its own runs, and the policy has nothing to refuse."""
    page = page_of(tmp_path, spans)
    tab.open(page)
    for box in range(3):
        tab.click(f"svg.flame .box:nth-of-type({box + 1})")
    assert tab.ask("typeof window.owned") == "undefined"
    assert tab.requests == [page.as_uri()]
    assert tab.problems == []
    assert tab.ask("document.querySelectorAll('img, iframe, object, embed, link, base, script[src]').length") == 0
    assert tab.ask("document.scripts.length") == 1
    assert tab.ask("location.href") == page.as_uri()


def test_names_are_shown_as_they_are(tab: Tab, tmp_path: Path) -> None:
    """Markup is text, and what steers is written out."""
    tab.open(page_of(tmp_path, [*attacks(), *hostile()]))
    shown = tab.ask("document.body.textContent")
    assert ATTACKS[0] in shown
    assert "&lt;script&gt;" in shown
    assert "\\x1b[2J" in shown
    assert not {character for name in HOSTILE for character in name if character in "\x1b\x07\u202e\u200b"} & set(shown)


def test_a_click_looks_closer(tab: Tab, tmp_path: Path) -> None:
    """A box of the flame graph becomes as wide as all, and a click beside the boxes goes back."""
    tab.open(page_of(tmp_path, shop()))
    widths = "[...document.querySelectorAll('svg.flame rect')].map(rect => Math.round(rect.getAttribute('width')))"
    before = tab.ask(widths)
    tab.click("svg.flame .box:nth-of-type(2)")
    assert tab.ask(widths)[:2] == [1000, 1000]
    assert tab.ask("document.querySelector('svg.flame .box:nth-of-type(3)').style.display") == "none"
    tab.ask("document.querySelector('svg.flame').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert tab.ask(widths) == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read(tab: Tab, tmp_path: Path, scheme: str) -> None:
    """On a telephone and on a wide screen nothing is cut off; texts stand out from what is behind them."""
    tab.open(page_of(tmp_path, [*shop(), *hostile()]))
    for width in (360, 1280, 2400):
        tab.look(width, scheme=scheme)
        assert tab.ask("document.documentElement.scrollWidth") <= width
    colors = tab.ask(f"({_CONTRASTS})()")
    assert len(colors) > 50
    assert min(colors) >= 4.5


_CONTRASTS = """() => {
  const light = color => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255);
    const [r, g, b] = parts.map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = getComputedStyle(document.body).backgroundColor;
  const behind = text => {
    const rect = text.parentElement.querySelector('rect');
    const isIn = text.matches('.in, .box text');
    return rect && isIn ? getComputedStyle(rect).fill : paper;
  };
  return [...document.querySelectorAll('svg text, td, th, li, h1, h2, p')].map(text => {
    const style = getComputedStyle(text);
    const [one, other] = [light(text.closest('svg') ? style.fill : style.color), light(behind(text))];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  });
}"""
