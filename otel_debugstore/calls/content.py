"""What is kept of the inputs and the result of a call: a digest in its attributes, and the content in the outbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_debugstore import attributes as names
from otel_debugstore.calls.component import Component, Parameters
from otel_debugstore.guard import swallow
from otel_debugstore.masking import masker as default_masker
from otel_debugstore.outbox import OUTBOX
from otel_debugstore.payload.capture import Captured, bound, capture, capture_arguments, capture_waited
from otel_debugstore.payload.limits import DEFAULT_LIMITS, limits_of_settings
from otel_debugstore.payload.walk import PACK
from otel_debugstore.recording_settings import recording_settings

Arguments = tuple[Parameters, tuple[Any, ...], dict[str, Any]]
"""Parameters, and arguments by place and by name. What a method is called on is none of them."""

_MAX_CONTENT_CHARACTERS: Final = 8192


def keep_arguments(component: Component, arguments: Arguments, attributes: dict[str, Any]) -> None:
    """Keep the arguments of a call."""
    (of_parameters, positional), args, kwargs = arguments
    captured = capture_arguments(of_parameters, args, kwargs, None, None, positional)
    _keep(component, captured, attributes, names.INPUT_DIGEST, names.INPUT_CONTENT)


def keep_waited_arguments(component: Component, arguments: Arguments, attributes: dict[str, Any]) -> None:
    """Keep the arguments of a call that could wait (see `waiting_bytes`)."""
    (of_parameters, positional), args, kwargs = arguments
    captured = capture_waited(bound(of_parameters, args, kwargs, positional))
    _keep(component, captured, attributes, names.INPUT_DIGEST, names.INPUT_CONTENT)


def keep_inputs(component: Component, inputs: Mapping[str, Any], attributes: dict[str, Any]) -> None:
    """Keep inputs that have names; a mapping that can't be read is captured as the object that it is."""
    values: Any = inputs
    try:
        values = dict(inputs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # the mapping's own code
        swallow(error)
    _keep(component, capture(values), attributes, names.INPUT_DIGEST, names.INPUT_CONTENT)


def keep_result(component: Component, result: Any, attributes: dict[str, Any]) -> None:
    """Keep what a call returned."""
    _keep(component, capture(result), attributes, names.OUTPUT_DIGEST, names.OUTPUT_CONTENT)


def keep_waited_result(component: Component, result: Any, attributes: dict[str, Any]) -> None:
    """Keep what a call returned, that could wait (see `waiting_bytes`)."""
    _keep(component, capture_waited(result), attributes, names.OUTPUT_DIGEST, names.OUTPUT_CONTENT)


def digests_of_known() -> Callable[[Any], str | None]:
    """Return what finds the digest of a value that could wait, if content like it was captured and sent before.

    Of a map of names to such values, too; of others it returns None. For one batch: settings may change.
    """
    known, sent = default_masker().digests, OUTBOX.sent
    if limits_of_settings() is not DEFAULT_LIMITS or recording_settings().export_payloads:
        known = {}

    def digest_of(value: Any) -> str | None:
        try:
            content = PACK(value)
        except Exception:  # noqa: BLE001  # such as a lone surrogate; `keep_waited_result` deals with it
            return None
        digest = known.get(content)
        return digest if digest in sent and b"$" not in content else None

    return digest_of


def content_bytes(attributes: dict[str, Any]) -> int:
    """Return how many characters of content attributes hold, which is nothing unless settings want it there."""
    return len(attributes.get(names.INPUT_CONTENT, "")) + len(attributes.get(names.OUTPUT_CONTENT, ""))


def _keep(component: Component, captured: Captured, attributes: dict[str, Any], digest: str, content: str) -> None:
    attributes[digest] = captured.digest
    if component.capture == "full":
        OUTBOX.put_payload(captured.digest, captured.media_type, captured.replayable, captured.content)
        if recording_settings().export_payloads:
            from otel_debugstore.payload.describe import describe

            attributes[content] = describe(captured.content, _MAX_CONTENT_CHARACTERS)
