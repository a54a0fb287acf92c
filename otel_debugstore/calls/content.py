"""What is kept of the inputs and the result of a call: a digest in its attributes, and the content in the outbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_debugstore import attributes as names
from otel_debugstore.calls.component import Component, Parameters
from otel_debugstore.guard import swallow
from otel_debugstore.outbox import OUTBOX, Payload
from otel_debugstore.payload.capture import (
    MEDIA_TYPE,
    Captured,
    bound,
    capture,
    capture_arguments,
    capture_waited,
    digests_of_waited,
)
from otel_debugstore.recording_settings import recording_settings

Arguments = tuple[Parameters, tuple[Any, ...], dict[str, Any]]
"""Parameters, and arguments by place and by name. What a method is called on is none of them."""

_MAX_CONTENT_CHARACTERS: Final = 8192
_new_tuple: Final = tuple.__new__  # makes a NamedTuple in half the time


def keep_arguments(component: Component, arguments: Arguments, attributes: dict[str, Any]) -> None:
    """Keep the arguments of a call."""
    (of_parameters, positional), args, kwargs = arguments
    captured = capture_arguments(of_parameters, args, kwargs, None, None, positional)
    _keep(component.capture == "full", captured, attributes, names.INPUT_DIGEST, names.INPUT_CONTENT)


def keep_waited_arguments(is_content_kept: bool, arguments: Arguments, attributes: dict[str, Any]) -> None:
    """Keep the arguments of a call that could wait (see `waiting_bytes`)."""
    (of_parameters, positional), args, kwargs = arguments
    captured = capture_waited(bound(of_parameters, args, kwargs, positional))
    _keep(is_content_kept, captured, attributes, names.INPUT_DIGEST, names.INPUT_CONTENT)


def keep_inputs(component: Component, inputs: Mapping[str, Any], attributes: dict[str, Any]) -> None:
    """Keep inputs that have names; a mapping that can't be read is captured as the object that it is."""
    values: Any = inputs
    try:
        values = dict(inputs)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # the mapping's own code
        swallow(error)
    _keep(component.capture == "full", capture(values), attributes, names.INPUT_DIGEST, names.INPUT_CONTENT)


def keep_result(component: Component, result: Any, attributes: dict[str, Any]) -> None:
    """Keep what a call returned."""
    _keep(component.capture == "full", capture(result), attributes, names.OUTPUT_DIGEST, names.OUTPUT_CONTENT)


def keep_waited_result(is_content_kept: bool, result: Any, attributes: dict[str, Any]) -> None:
    """Keep what a call returned, that could wait (see `waiting_bytes`)."""
    _keep(is_content_kept, capture_waited(result), attributes, names.OUTPUT_DIGEST, names.OUTPUT_CONTENT)


def keep_waited(kept: set[bytes], not_kept: set[bytes]) -> dict[bytes, str]:
    """Keep contents of calls that could wait, of many at once; return by content the digests.

    Args:
        kept: Packed arguments and results, as `keep_waited_arguments` and `keep_waited_result` capture them.
        not_kept: Those of components of which digests only are to be had.

    Returns:
        The digests of all but those that need a closer look, which these two functions take.
    """
    if recording_settings().export_payloads:
        return {}
    digests = digests_of_waited(kept | not_kept)
    OUTBOX.put_payloads(
        [_new_tuple(Payload, (digests[content], MEDIA_TYPE, True, content)) for content in kept if content in digests]
    )
    return digests


def content_bytes(attributes: dict[str, Any]) -> int:
    """Return how many characters of content attributes hold, which is nothing unless settings want it there."""
    return len(attributes.get(names.INPUT_CONTENT, "")) + len(attributes.get(names.OUTPUT_CONTENT, ""))


def _keep(is_content_kept: bool, captured: Captured, attributes: dict[str, Any], digest: str, content: str) -> None:
    attributes[digest] = captured.digest
    if is_content_kept:
        OUTBOX.put_payload(captured.digest, captured.media_type, captured.replayable, captured.content)
        if recording_settings().export_payloads:
            from otel_debugstore.payload.describe import describe

            attributes[content] = describe(captured.content, _MAX_CONTENT_CHARACTERS)
