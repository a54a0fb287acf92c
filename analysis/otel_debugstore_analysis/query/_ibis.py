"""Ibis, imported when it is first used: that takes 0.3 s, and SQL that was kept needs it for nothing (see `_kept`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ibis
else:

    class _Late:
        def __getattr__(self, name: str) -> Any:
            import ibis

            return getattr(ibis, name)

    ibis = _Late()

__all__ = ["ibis"]
