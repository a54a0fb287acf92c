"""The base class of all instrumentors, for `opentelemetry-instrument` and for programs."""

from __future__ import annotations

from collections.abc import Collection

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]


class Instrumentor(BaseInstrumentor):  # type: ignore[misc]  # it has no types
    """What `instrument()` does, `uninstrument()` undoes. There is one instance of a class."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """Nothing: what is patched belongs to programs and to Python, not to distributions."""
        return ()
