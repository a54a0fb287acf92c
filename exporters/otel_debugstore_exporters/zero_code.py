"""What `opentelemetry-instrument` calls before its instrumentors: puts the recorder in, where our exporter is used.

Every process of a program comes through here at its start, so nothing more is loaded than it turns out to need.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.environment_variables import OTEL_TRACES_EXPORTER

from otel_debugstore.instrumentors.parent_context import adopt_parent
from otel_debugstore.log import quiet_opentelemetry, warn_once

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

EXPORTER_NAME: Final = "debugstore"
_CONFIG_FILE: Final = "OTEL_CONFIG_FILE"


def pre_instrument() -> None:
    """Replace the stock processor of our exporter in the global provider. Idempotent, never raises."""
    try:
        quiet_opentelemetry()
        provider = _sdk_provider()
        if provider is None and _is_asked_for():
            _configure_sdk()
            provider = _sdk_provider()
        if provider is not None:
            if f"{__package__}.exporter" in sys.modules:
                from otel_debugstore_exporters.instrument import take_over

                take_over(provider)
            adopt_parent()
    except Exception as error:  # noqa: BLE001  # it would stop every instrumentor
        warn_once(
            "instrument",
            f"Setting up failed ({error!r}); spans are recorded with the SDK's own limits, if at all.",
        )


def _sdk_provider() -> TracerProvider | None:
    """Return the global provider if it is the SDK's."""
    provider = trace.get_tracer_provider()
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None
    from opentelemetry.sdk.trace import TracerProvider

    return provider if isinstance(provider, TracerProvider) else None


def _is_asked_for() -> bool:
    names = [name.strip() for name in os.environ.get(OTEL_TRACES_EXPORTER, "").split(",")]
    return EXPORTER_NAME in names or bool(os.environ.get(_CONFIG_FILE))


def _configure_sdk() -> None:
    """Set the SDK up as a configurator would; none is installed."""
    from opentelemetry.sdk._configuration import _OTelSDKConfigurator

    _OTelSDKConfigurator().configure()  # type: ignore[no-untyped-call]
