"""The span that started this process, as the parent of all that has none here.

`TRACEPARENT` (and `TRACESTATE`) in the environment name it. It stands in the context that every thread has from the
beginning; what the program attaches goes before it, and a span started in an explicitly empty context is a root.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final

TRACEPARENT: Final = "TRACEPARENT"
TRACESTATE: Final = "TRACESTATE"

_METHOD: Final = "get_current"


def adopt_parent(environ: Mapping[str, str] = os.environ) -> bool:
    """Make the span that the environment names the parent of root spans; return whether it names one."""
    if not environ.get(TRACEPARENT):
        return False
    from opentelemetry import context as context_api
    from opentelemetry import trace
    from opentelemetry.context.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {name.lower(): environ[name] for name in (TRACEPARENT, TRACESTATE) if environ.get(name)}
    parent = TraceContextTextMapPropagator().extract(carrier, Context())
    if not trace.get_current_span(parent).get_span_context().is_valid:
        return False
    runtime: Any = context_api._RUNTIME_CONTEXT
    variable: Any = getattr(runtime, "_current_context", None)
    if isinstance(variable, ContextVar):
        # The variable's own default is the empty context, which can't be told from one that was attached.
        setattr(runtime, _METHOD, functools.partial(variable.get, parent))
    else:
        context_api.attach(parent)
    return True


def forget_parent() -> None:
    """Undo `adopt_parent`; for tests."""
    from opentelemetry import context as context_api

    vars(context_api._RUNTIME_CONTEXT).pop(_METHOD, None)


def carry(environ: dict[Any, Any]) -> None:
    """Name the current span in the environment of a child."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    if carrier:
        for name in (TRACEPARENT, TRACESTATE):
            environ.pop(name, None)
        environ.update({name.upper(): value for name, value in carrier.items()})
