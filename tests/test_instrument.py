"""Set-up with zero code, by declarative configuration, and in code."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
)

import otel_debugstore
from instrumented import INSTRUMENT, run_instrumented
from otel_debugstore import BoundedSpanProcessor, DuckDBSyncProcessor, LmdbSpanExporter
from otel_debugstore.errors import ConfigurationError, InvalidSessionIdError
from otel_debugstore_exporters.zero_code import pre_instrument
from stored import stored_spans

APP = """
import sys
from opentelemetry import trace
tracer = trace.get_tracer("app")
for i in range(3000):
    with tracer.start_as_current_span(f"span {i}"):
        pass
processors = trace.get_tracer_provider()._active_span_processor._span_processors
# Each line in one write: another exporter's thread may be printing, too.
sys.stdout.write(" ".join(type(processor).__name__ for processor in processors) + "\\n")
print(sorted(name for name in ("duckdb", "pyarrow", "nanoarrow", "ibis", "numpy") if name in sys.modules))
"""
OURS = "BoundedSpanProcessor DuckDBSyncProcessor"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_text(APP)
    return path


def processors(provider: TracerProvider) -> list[type]:
    return [type(processor) for processor in provider._active_span_processor._span_processors]


def install(provider: TracerProvider, *exporters: SpanExporter) -> None:
    """Make `provider` global, with a stock processor for each exporter, as the SDK's configuration does."""
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def test_zero_code(app: Path, tmp_path: Path) -> None:
    """Under `opentelemetry-instrument` every span is kept, and nothing heavy is imported."""
    run = run_instrumented(app, folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [OURS, "[]"]
    spans = stored_spans(tmp_path / "debug_data")
    assert sorted(span.name for span in spans) == sorted(f"span {i}" for i in range(3000))
    (path,) = (tmp_path / "debug_data").glob("*.lmdb")
    assert path.name.startswith("app_")


def test_beside_another_exporter(app: Path, tmp_path: Path) -> None:
    """The stock processor of another exporter stays as it is, and both get every span."""
    app.write_text(APP.replace("range(3000)", "range(5)"))
    run = run_instrumented(app, folder=tmp_path, traces_exporter="debugstore,console", service_name="shop")
    assert (run.returncode, run.stderr) == (0, "")
    assert "BoundedSpanProcessor BatchSpanProcessor DuckDBSyncProcessor\n" in run.stdout
    assert run.stdout.count('"name": "span ') == 5
    assert len(stored_spans(tmp_path / "debug_data")) == 5
    (path,) = (tmp_path / "debug_data").glob("*.lmdb")
    assert path.name.startswith("shop_")


def test_without_our_exporter_nothing_happens(app: Path, tmp_path: Path) -> None:
    """The hook of an installed package that was not asked for leaves no trace."""
    app.write_text(APP.replace("range(3000)", "range(5)"))
    run = run_instrumented(app, folder=tmp_path, traces_exporter="console")
    assert "BatchSpanProcessor" in run.stdout.split("\n")
    assert not (tmp_path / "debug_data").exists()


def test_without_a_configurator(app: Path, tmp_path: Path) -> None:
    """Where no distribution configures the SDK, selecting the exporter is enough."""
    run = run_instrumented(app, folder=tmp_path, configurator="nobody")
    assert run.stdout.splitlines() == [OURS, "[]"]
    assert len(stored_spans(tmp_path / "debug_data")) == 3000


def test_with_the_instrumentation_of_others(tmp_path: Path) -> None:
    """Third-party instrumentation works beside us: context goes along into threads."""
    path = tmp_path / "app.py"
    path.write_text(
        "import threading\n"
        "from opentelemetry import trace\n"
        "tracer = trace.get_tracer('app')\n"
        "def work():\n"
        "    tracer.start_span('child').end()\n"
        "with tracer.start_as_current_span('parent'):\n"
        "    thread = threading.Thread(target=work)\n"
        "    thread.start()\n"
        "    thread.join()\n"
    )
    run = run_instrumented(path, folder=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    spans = {span.name: span for span in stored_spans(tmp_path / "debug_data")}
    assert spans["child"].parent_id == spans["parent"].span_id


def test_flags() -> None:
    """`opentelemetry-instrument --help` lists our variables as flags."""
    run = subprocess.run([INSTRUMENT, "--help"], capture_output=True, text=True, check=True)
    for name in ("path", "session", "durability", "schedule_delay", "queue_size", "segment_spans"):
        assert f"--debugstore_{name} " in run.stdout
    for name in ("age", "size"):
        assert f"--debugstore_retention_{name} " in run.stdout


@pytest.mark.parametrize("kind", ["batch", "simple"])
def test_declarative_configuration(kind: str, app: Path, tmp_path: Path) -> None:
    """`OTEL_CONFIG_FILE` selects and sets up the exporter, behind either processor."""
    (tmp_path / "otel.yaml").write_text(
        "file_format: '1.0'\n"
        "tracer_provider:\n"
        "  processors:\n"
        f"    - {kind}:\n"
        "        exporter:\n"
        "          debugstore:\n"
        f"            base_path: {tmp_path / 'elsewhere'}\n"
        "            session_id: configured\n"
        "            queue_max_bytes: 8MiB\n"
        "            schedule_delay_millis: 500\n"
    )
    run = run_instrumented(app, folder=tmp_path, config_file=tmp_path / "otel.yaml")
    assert run.returncode == 0
    assert "otel-debugstore" not in run.stderr
    assert run.stdout.splitlines()[0] == OURS
    assert len(stored_spans(tmp_path / "elsewhere")) == 3000
    assert (tmp_path / "elsewhere" / "configured.lmdb").is_dir()


def test_declarative_configuration_with_a_mistake(app: Path, tmp_path: Path) -> None:
    """A wrong key there costs one line; the spans are kept."""
    (tmp_path / "otel.yaml").write_text(
        "file_format: '1.0'\n"
        "tracer_provider:\n"
        "  processors:\n"
        "    - batch:\n"
        "        exporter:\n"
        "          debugstore:\n"
        "            pathh: x\n"
    )
    run = run_instrumented(app, folder=tmp_path, config_file=tmp_path / "otel.yaml")
    assert run.returncode == 0
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("otel-debugstore: ")]
    assert "pathh" in line
    assert len(stored_spans(tmp_path / "debug_data")) == 3000


@pytest.mark.parametrize("multi", [None, ConcurrentMultiSpanProcessor])
def test_pre_instrument_replaces_ours_alone(multi: Callable[[], Any] | None, tmp_path: Path) -> None:
    """Only the stock processor that holds our exporter is replaced, in its place, and only once."""
    exporter = LmdbSpanExporter(base_path=tmp_path, session_id="s")
    provider = TracerProvider(active_span_processor=multi() if multi else None)
    install(provider, ConsoleSpanExporter(out=io.StringIO()), exporter)
    provider.get_tracer("test").start_span("before").end()
    for _ in range(2):
        pre_instrument()
        assert processors(provider) == [BatchSpanProcessor, BoundedSpanProcessor, DuckDBSyncProcessor]
    provider.get_tracer("test").start_span("after").end()
    provider.shutdown()
    assert sorted(span.name for span in stored_spans(tmp_path)) == ["after", "before"]


def test_a_processor_that_does_more_is_left_alone(tmp_path: Path) -> None:
    """A subclass of a stock processor may filter or change spans: it stays."""

    class Filtering(SimpleSpanProcessor):
        pass

    provider = TracerProvider()
    provider.add_span_processor(Filtering(LmdbSpanExporter(base_path=tmp_path)))
    trace.set_tracer_provider(provider)
    pre_instrument()
    assert processors(provider) == [Filtering]


def test_another_sdk(tmp_path: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the SDK's private parts have another shape, the stock processor stays, and a line says so."""
    provider = TracerProvider()
    install(provider, LmdbSpanExporter(base_path=tmp_path))
    monkeypatch.delattr(BatchSpanProcessor, "span_exporter")
    pre_instrument()
    assert processors(provider) == [BatchSpanProcessor]
    monkeypatch.undo()
    assert len(logged) == 1


def test_pre_instrument_without_a_provider() -> None:
    """Without the SDK, or without our exporter, the hook does nothing."""
    pre_instrument()
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)


def test_configure(tmp_path: Path) -> None:
    """In code one call records; a second one for the same session changes nothing."""
    provider = otel_debugstore.configure(session_id="s", base_path=tmp_path, queue_max_bytes="1MiB")
    assert trace.get_tracer_provider() is provider
    assert otel_debugstore.configure(session_id="s") is provider
    assert otel_debugstore.configure() is provider
    assert processors(provider) == [BoundedSpanProcessor, DuckDBSyncProcessor]
    trace.get_tracer("test").start_span("x").end()
    provider.shutdown()
    (span,) = stored_spans(tmp_path)
    assert span.name == "x"
    assert span.resource.attributes["service.name"] in ("pytest", "__main__", "python", Path(sys.argv[0]).stem)


def test_configure_uses_the_provider_that_is_there(tmp_path: Path) -> None:
    """A provider set up by the program is used, with its resource and its processors."""
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    install(provider, ConsoleSpanExporter(out=io.StringIO()))
    assert otel_debugstore.configure(base_path=tmp_path / "data") is provider
    assert processors(provider) == [BatchSpanProcessor, BoundedSpanProcessor, DuckDBSyncProcessor]
    (session,) = {processor.sink.activate().session_id for processor in bounded(provider)}
    assert session.startswith("shop_")


def bounded(provider: TracerProvider) -> list[Any]:
    found = provider._active_span_processor._span_processors
    return [processor for processor in found if isinstance(processor, BoundedSpanProcessor)]


def test_configure_takes_a_stock_processor_over(tmp_path: Path) -> None:
    """A program that set our exporter up behind a stock processor gets ours."""
    provider = TracerProvider()
    install(provider, LmdbSpanExporter(base_path=tmp_path, session_id="s"))
    assert otel_debugstore.configure(session_id="s") is provider
    assert processors(provider) == [BoundedSpanProcessor, DuckDBSyncProcessor]


def test_configure_for_another_session(tmp_path: Path) -> None:
    """One process records into one session."""
    otel_debugstore.configure(session_id="one", base_path=tmp_path)
    with pytest.raises(ConfigurationError, match="'one'"):
        otel_debugstore.configure(session_id="two")
    with pytest.raises(ConfigurationError, match="'one'"):
        otel_debugstore.configure(session_id="one", base_path=tmp_path / "elsewhere")


def test_configure_after_shutdown(tmp_path: Path) -> None:
    """A provider that was shut down records no more, and configure() says so."""
    otel_debugstore.configure(session_id="s", base_path=tmp_path).shutdown()
    with pytest.raises(ConfigurationError, match="shut down"):
        otel_debugstore.configure(session_id="s")


def test_configure_with_bad_settings() -> None:
    """In code a bad setting raises, and nothing is set up."""
    with pytest.raises(ConfigurationError, match="durability"):
        otel_debugstore.configure(durability="sometimes")
    with pytest.raises(InvalidSessionIdError):
        otel_debugstore.configure("../x")
    assert not isinstance(trace.get_tracer_provider(), TracerProvider)


def test_importing_costs_little() -> None:
    """`import otel_debugstore` imports neither the SDK nor any store."""
    code = (
        "import sys, otel_debugstore\n"
        "heavy = ('opentelemetry.sdk', 'lmdb', 'duckdb', 'zstandard', 'pyarrow', 'otel_debugstore_exporters')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
