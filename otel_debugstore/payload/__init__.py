"""Payloads: what calls were given and what they returned, as content that can be stored, read and replayed."""

from otel_debugstore.payload.capture import MEDIA_TYPE, Captured, capture, capture_arguments
from otel_debugstore.payload.describe import describe
from otel_debugstore.payload.limits import DEFAULT_LIMITS, Limits
from otel_debugstore.payload.mask_content import mask_content
from otel_debugstore.payload.objects import summarize_with
from otel_debugstore.payload.restore import restore

__all__ = [
    "DEFAULT_LIMITS",
    "MEDIA_TYPE",
    "Captured",
    "Limits",
    "capture",
    "capture_arguments",
    "describe",
    "mask_content",
    "restore",
    "summarize_with",
]
