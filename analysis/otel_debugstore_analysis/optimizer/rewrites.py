"""The rewrites of source text: a cache around a function, and a call that is made once instead of again and again.

Both change as little of the text as they can, and neither looks at what functions do: that the calls are pure is known
from elsewhere. Where a rewrite does not fit, None is returned.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from otel_debugstore_analysis.optimizer.lines import lines_of
from otel_debugstore_analysis.optimizer.modules import edited, import_line, line_edit

_FUNCTOOLS: Final = "functools"
_CACHES: Final = frozenset(("cache", "lru_cache", "cached", "cachedmethod", "memoize"))
_NEW_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.GeneratorExp)
_SIMPLE = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Return)
_LAZY = (ast.IfExp, ast.BoolOp, *_NEW_SCOPES, ast.ListComp, ast.SetComp, ast.DictComp)


def memoized(text: str, function: str, max_size: int) -> str | None:
    """Return a file's text with a cache around one of its functions.

    Args:
        text: The file.
        function: The name of a function of the module.
        max_size: How many results it keeps.
    """
    found = _function(text, function)
    if found is None:
        return None
    tree, node = found
    if any(_last_name(decorator) in _CACHES for decorator in node.decorator_list) or _is_generator(node):
        return None
    bound = _bound_to_functools(tree)
    if bound is None:
        return None
    indent = " " * node.col_offset
    edits = [line_edit(node.lineno, f"{indent}@{_FUNCTOOLS}.lru_cache(maxsize={max_size}, typed=True)\n")]
    if not bound:
        place = _import_place(tree)
        edits.append(line_edit(place, _import_text(text, place, tree)))
    return edited(text, edits)


def hoisted(text: str, function: str, called: str) -> str | None:
    """Return a file's text where a function calls another once, and not again with the same arguments.

    In a loop it is made when it is first wanted, elsewhere before the first of several statements that make it. So
    nothing is called that was not called before.

    Args:
        text: The file.
        function: The name of a function of the module.
        called: The name of the function that it calls.
    """
    found = _function(text, function)
    if found is None:
        return None
    _, node = found
    for hoist in (*_of_loops(node, called), *_of_blocks(node, called)):
        rewritten = _rewritten(text, node, hoist, called)
        if rewritten is not None:
            return rewritten
    return None


class _Hoist(NamedTuple):
    """Equal calls, and where one is made for all.

    Attributes:
        calls: The calls.
        places: The statements before which it is made; if there is a loop, unless it was made before.
        loop: The loop that they are in.
    """

    calls: tuple[ast.Call, ...]
    places: tuple[ast.stmt, ...]
    loop: ast.stmt | None = None


def _function(text: str, name: str) -> tuple[ast.Module, ast.FunctionDef] | None:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return (tree, found[0]) if len(found) == 1 else None


def _bound_to_functools(tree: ast.Module) -> bool | None:
    """Return whether the name `functools` is the module; None if it is something else."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if (alias.asname or alias.name) == _FUNCTOOLS:
                    return True if alias.name == _FUNCTOOLS else None
    stored = (one for one in ast.walk(tree) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))
    return None if any(one.id == _FUNCTOOLS for one in stored) else False


def _import_place(tree: ast.Module) -> int:
    """Return the line before which the import goes: in the order of names, where imports stand."""
    place = import_line(tree)
    for node in tree.body:
        if node.lineno == place and isinstance(node, ast.Import) and node.names[0].name < _FUNCTOOLS:
            place = (node.end_lineno or node.lineno) + 1
    return place


def _import_text(text: str, line: int, tree: ast.Module) -> str:
    """Return the import, with blank lines where what follows is no import."""
    following = next((node for node in tree.body if node.lineno >= line), None)
    follows_import = any(isinstance(node, ast.Import) and node.end_lineno == line - 1 for node in tree.body)
    if follows_import or isinstance(following, (ast.Import, ast.ImportFrom)):
        return f"import {_FUNCTOOLS}\n"
    blank = "" if line == 1 or not lines_of(text)[line - 2].strip() else "\n"
    return f"{blank}import {_FUNCTOOLS}\n\n\n"


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_generator(node: ast.FunctionDef) -> bool:
    return any(isinstance(one, (ast.Yield, ast.YieldFrom)) for one in _own(node))


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below one, but not those of functions and classes within."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, _NEW_SCOPES):
            yield from _own(child)


def _of_loops(function: ast.FunctionDef, called: str) -> Iterator[_Hoist]:
    """Yield calls in loops whose arguments do not change there; the outermost loops first."""
    for loop in _statements(function):
        if not isinstance(loop, (ast.For, ast.While)):
            continue
        changed = _changed(loop)
        by_text: dict[str, list[tuple[ast.Call, ast.stmt]]] = {}
        for statement in (one for block in _blocks(ast.Module(loop.body, [])) for one in block):
            for part in _evaluated(statement):
                for call in _calls(part, called):
                    if _is_fixed(call, changed) and not _is_lazy(part, call):
                        by_text.setdefault(ast.dump(call), []).append((call, statement))
        for equal in by_text.values():
            calls, places = zip(*equal, strict=True)
            yield _Hoist(calls, tuple(dict.fromkeys(places)), loop)


def _evaluated(statement: ast.stmt) -> list[ast.AST]:
    """Return the parts of a statement that are evaluated whenever it is reached, and once."""
    if isinstance(statement, _SIMPLE):
        return [statement]
    if isinstance(statement, ast.If):
        return [statement.test]
    return [statement.iter] if isinstance(statement, ast.For) else []


def _of_blocks(function: ast.FunctionDef, called: str) -> Iterator[_Hoist]:
    """Yield equal calls in statements that follow each other, where no argument changes between."""
    for block in _blocks(function):
        for first, statement in enumerate(block):
            if not isinstance(statement, _SIMPLE):
                continue
            for call in _calls(statement, called):
                if _is_lazy(statement, call) or not _is_fixed(call, frozenset()):
                    continue
                equal, names = [call], _names(call)
                for later in block[first:]:
                    changes = bool(names & _changed(later))
                    if changes and not _changes_last(later):
                        break
                    equal += [
                        one for one in _calls(later, called) if one is not call and ast.dump(one) == ast.dump(call)
                    ]
                    if changes:
                        break
                if len(equal) > 1:
                    yield _Hoist(tuple(equal), (statement,))


def _changes_last(statement: ast.stmt) -> bool:
    """Return whether a statement binds names only after it has computed everything."""
    is_assignment = isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign))
    return is_assignment and not any(isinstance(one, ast.NamedExpr) for one in ast.walk(statement))


def _statements(function: ast.FunctionDef) -> list[ast.stmt]:
    return [one for block in _blocks(function) for one in block]


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """Yield the blocks of statements of a function, the outermost first."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
            yield block
            for statement in block:
                if not isinstance(statement, _NEW_SCOPES):
                    yield from _blocks(statement)
    for handler in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield from _blocks(handler)


def _changed(node: ast.AST) -> frozenset[str]:
    """Return the names that something binds, or whose values it may change where that can be seen."""
    found: set[str] = set()
    for one in (node, *_own(node)):
        if isinstance(one, ast.Name) and isinstance(one.ctx, (ast.Store, ast.Del)):
            found.add(one.id)
        elif isinstance(one, (ast.Attribute, ast.Subscript)) and isinstance(one.ctx, (ast.Store, ast.Del)):
            found.add(_root(one))
        elif isinstance(one, ast.Call) and isinstance(one.func, ast.Attribute):
            found.add(_root(one.func))  # a method may change what it is called on
        elif isinstance(one, ast.ExceptHandler) and one.name:
            found.add(one.name)
        elif isinstance(one, (ast.Global, ast.Nonlocal)):
            found.update(one.names)
    return frozenset(found)


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _calls(node: ast.AST, called: str) -> list[ast.Call]:
    return [one for one in (node, *_own(node)) if isinstance(one, ast.Call) and _last_name(one.func) == called]


def _is_fixed(call: ast.Call, changed: frozenset[str]) -> bool:
    """Return whether the arguments are names and constants, and none of the names, nor the function's, changes."""
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    if any(keyword.arg is None for keyword in call.keywords) or not all(map(_is_plain, arguments)):
        return False
    own = (
        {call.func.value.id}
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name)
        else set()
    )
    return not (_names(call) - own) & changed


def _is_plain(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple):
        return all(map(_is_plain, node.elts))
    return isinstance(node, (ast.Name, ast.Constant))


def _names(call: ast.Call) -> set[str]:
    return {one.id for one in ast.walk(call) if isinstance(one, ast.Name)}


def _is_lazy(statement: ast.AST, call: ast.Call) -> bool:
    """Return whether a statement may be run without the call, or runs it again and again."""
    return any(isinstance(one, _LAZY) and call in ast.walk(one) for one in ast.walk(statement))


def _rewritten(text: str, function: ast.FunctionDef, hoist: _Hoist, called: str) -> str | None:
    taken = {one.id for one in ast.walk(function) if isinstance(one, ast.Name)}
    taken |= {argument.arg for argument in ast.walk(function) if isinstance(argument, ast.arg)}
    name = next(name for name in (f"{called}_once{number or ''}" for number in range(1000)) if name not in taken)
    made = f"{name} = {ast.unparse(hoist.calls[0])}"
    lines = [line.encode() for line in lines_of(text)]
    before: list[tuple[ast.stmt, str]] = []
    for place in hoist.places:
        before.append((place, made if hoist.loop is None else f"if {name} is None:\n    {made}"))
    if hoist.loop is not None:
        before.append((hoist.loop, f"{name} = None"))
    if any(lines[place.lineno - 1][: place.col_offset].strip() or _is_elif(place, lines) for place, _ in before):
        return None  # it does not begin a line, so nothing can stand before it
    for call in sorted(hoist.calls, key=lambda one: (one.lineno, one.col_offset), reverse=True):
        first, last = call.lineno - 1, (call.end_lineno or call.lineno) - 1
        head, tail = lines[first][: call.col_offset], lines[last][call.end_col_offset :]
        lines[first : last + 1] = [head + name.encode() + tail, *[b""] * (last - first)]
    for place, statement in sorted(before, key=lambda pair: -pair[0].lineno):
        indented = "".join(f"{' ' * place.col_offset}{line}\n" for line in statement.split("\n"))
        lines.insert(place.lineno - 1, indented.encode())
    return b"".join(lines).decode()


def _is_elif(statement: ast.stmt, lines: Sequence[bytes]) -> bool:
    return isinstance(statement, ast.If) and lines[statement.lineno - 1].lstrip().startswith(b"elif")
