"""Python imports this when a light child starts."""

try:  # `contextlib` takes as long to import as all the rest
    from otel_debugstore.instrumentors.light_start import start

    start()
except Exception:  # noqa: BLE001  # another interpreter, which has not what we need: it starts as it would
    pass
