"""Which modules are meant: by a name that may stand below any package, or by a glob."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

WILDCARDS = frozenset("*?[")


def is_called(module: str, names: Iterable[str]) -> bool:
    """Return whether a module has one of the names, by itself or below any package: `registry`, `pkg.src.registry`."""
    return any(module == name or (module.endswith(name) and module[-len(name) - 1] == ".") for name in names)


def is_matched(module: str, globs: Iterable[str]) -> bool:
    """Return whether a module's whole name matches one of the globs."""
    return any(module == glob or _matches(module, glob) for glob in globs)


def _matches(module: str, glob: str) -> bool:
    literal = next((number for number, character in enumerate(glob) if character in WILDCARDS), -1)
    if literal < 0 or not module.startswith(glob[:literal]):
        return False
    from fnmatch import fnmatchcase  # late: a light child may have no use for it

    return fnmatchcase(module, glob)
