"""`merged`: a file with the functions that an optimizer wrote in place of its own."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Final, NamedTuple

from otel_debugstore_analysis.optimizer.lines import lines_of
from otel_debugstore_analysis.optimizer.protocol import OptimizerError

_Definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_ENCODING: Final = "utf-8"


class _Edit(NamedTuple):
    """Lines to be replaced, numbered from 1, the last one not included."""

    first: int
    end: int
    text: str


def merged(text: str, module: str) -> str:
    """Return a file's text with what a module defines.

    A module that defines all that the file does replaces it. Of any other, functions and classes go in place of those
    of their names, and keep decorators that only the file's have; imports and new names go before the first of them.

    Raises:
        OptimizerError: One of both is no Python, or the module defines nothing of the file's.
    """
    old = _parsed(text, "The file is no Python")
    new = _parsed(module, "What the optimizer wrote is neither a patch nor a Python module, and has to be one of these")
    known, made = _definitions(old), _definitions(new)
    if not known.keys() & made.keys():
        raise OptimizerError("What the optimizer wrote defines nothing that the file does.")
    if known.keys() <= made.keys() and _imports(old) <= _imports(new):
        return module if module.endswith("\n") else f"{module}\n"
    edits = [_replacement(known[name], made[name], text, module) for name in made if name in known]
    first = min(edit.first for edit in edits)
    added = [_source(node, module) for node in new.body if isinstance(node, _Definition) and node.name not in known]
    others = [
        _source(node, module)
        for node in new.body
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and not _is_in(node, old)
    ]
    missing = [
        _source(node, module)
        for node in new.body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and ast.unparse(node) not in _imports(old)
        and not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    ]
    if missing:
        edits.append(_Edit(import_line(old), import_line(old), "".join(f"{line}\n" for line in missing)))
    if added or others:
        edits.append(_Edit(first, first, "".join(f"{part}\n\n\n" for part in (*others, *added))))
    return edited(text, edits)


def edited(text: str, edits: Sequence[_Edit]) -> str:
    """Return a text with edits made, none of which overlap."""
    lines = lines_of(text)
    for edit in sorted(edits, key=lambda edit: (edit.first, edit.end), reverse=True):
        lines[edit.first - 1 : edit.end - 1] = [edit.text]
    return "".join(lines)


def line_edit(line: int, text: str) -> _Edit:
    """Return the edit that puts text before a line."""
    return _Edit(line, line, text)


def import_line(tree: ast.Module) -> int:
    """Return the line before which an import may be put: after the docstring, and what is imported from the future."""
    for node in tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if not (is_docstring or is_future):
            return _first(node)
    return (tree.body[-1].end_lineno or 0) + 1 if tree.body else 1


def _parsed(text: str, what: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = f"{error.msg} in line {error.lineno}" if isinstance(error, SyntaxError) else str(error)
        raise OptimizerError(f"{what}: {why}.") from error


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    return {node.name: node for node in tree.body if isinstance(node, _Definition)}


def _imports(tree: ast.Module) -> set[str]:
    return {ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))}


def _is_in(node: ast.stmt, tree: ast.Module) -> bool:
    dumped = ast.dump(node)
    return any(ast.dump(other) == dumped for other in tree.body)


def _first(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)])


def _source(node: ast.stmt, text: str) -> str:
    return "".join(lines_of(text)[_first(node) - 1 : node.end_lineno]).removesuffix("\n")


def _replacement(old: ast.stmt, new: ast.stmt, text: str, module: str) -> _Edit:
    kept = {ast.unparse(one) for one in getattr(new, "decorator_list", [])}
    lost = [one for one in getattr(old, "decorator_list", []) if ast.unparse(one) not in kept]
    heads = "".join(f"@{ast.get_source_segment(text, one)}\n" for one in lost)
    return _Edit(_first(old), (old.end_lineno or old.lineno) + 1, f"{heads}{_source(new, module)}\n")
