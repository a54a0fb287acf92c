"""Functions as tests find them: by module and qualified name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from otel_debugstore_analysis.auditor._result import AuditResult


class Named(NamedTuple):
    """A function as tests find it.

    Attributes:
        module: The last part of its module's name.
        qualified_name: Its name in the module.
        layer: Its layer.
        variant: The hash of its code; None if that is not known.
    """

    module: str
    qualified_name: str
    layer: str
    variant: str | None


def named(function: object, layer: str, variant: str | None) -> Named | str:
    """Return a function as tests find it; or why they can't, a sentence."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if (
        not isinstance(module, str)
        or not isinstance(name, str)
        or not all(part.isidentifier() for part in name.split("."))
    ):
        return (
            f"The tests were not run: {name or function!r} can't be recorded in their process: nothing there has "
            "that name. Audit a function of a module, or a method of a class of one."
        )
    if module == "__main__":
        file = getattr(sys.modules.get(module), "__file__", None)
        if not file:
            return "The tests were not run: the function was typed in, so tests can't import it. Put it into a module."
        module = Path(file).stem
    return Named(module.rpartition(".")[2], name, layer, variant)


def find_by_code(result: AuditResult) -> Named | str:
    """Return what was audited as tests find it, by the code that was recorded; or why they can't, a sentence."""
    code, name = result.code, result.code.qualified_name
    if name is None or code.file_path is None:
        return (
            f"The tests were not run: which function {result.component_name!r} is was not recorded, so it can't be "
            "recorded in their process. Audit the function itself, by PerformanceAuditor.audit_component."
        )
    path = Path(code.file_path)
    stem = path.parent.name if path.stem == "__init__" else path.stem
    parts = name.split(".")
    modules = parts[:-1]
    if parts[0] == "__main__":
        rest = parts[1:]
    elif stem in modules:
        rest = parts[len(modules) - modules[::-1].index(stem) :]
    else:
        return f"The tests were not run: {name} can't be found by its name in {path.name}."
    if not all(part.isidentifier() for part in rest):
        return (
            f"The tests were not run: {name} can't be recorded in their process, because nothing there has that name."
        )
    return Named(stem, ".".join(rest), result.layer, code.variant)
