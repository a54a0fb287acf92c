"""A deterministic stand-in for language models: what it "answers" is computed from the prompt's Python source."""

from __future__ import annotations

import ast
import textwrap

MODELS = ("critic", "coder")
CONTEXT_CHARACTERS = 4000


def generate(model: str, prompt: str) -> str:
    """Return a model's answer; "" where a real one would fail: an unknown model, a prompt that is too long.

    The prompt of "critic" and "coder" is the source of a function, after a line that says what to do.
    """
    if model not in MODELS or len(prompt) > CONTEXT_CHARACTERS:
        return ""
    _, _, source = prompt.partition("\n")
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:
        return ""
    return _criticise(tree) if model == "critic" else _rewrite(tree)


def _criticise(tree: ast.Module) -> str:
    found = []
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        if _calls_itself(function):
            found.append(f"{function.name} calls itself: the same values are computed again and again.")
        if _searched_list(function):
            found.append(f"{function.name} searches a list in a loop: that takes quadratic time.")
    return " ".join(found) or "Nothing to criticise."


def _rewrite(tree: ast.Module) -> str:
    imports: list[ast.stmt] = []
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        if _calls_itself(function):
            imports = ast.parse("import functools").body
            function.decorator_list = [ast.parse("functools.cache", mode="eval").body]
        if name := _searched_list(function):
            _remember_in_set(function, name)
    return ast.unparse(ast.fix_missing_locations(ast.Module([*imports, *tree.body], [])))


def _calls_itself(function: ast.FunctionDef) -> bool:
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return any(isinstance(called, ast.Name) and called.id == function.name for called in calls)


def _searched_list(function: ast.FunctionDef) -> str | None:
    """Return the list that a function looks into with `not in` before it appends to it."""
    for node in ast.walk(function):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.NotIn):
            (searched,) = node.comparators
            if isinstance(searched, ast.Name):
                return searched.id
    return None


def _remember_in_set(function: ast.FunctionDef, name: str) -> None:
    """Look things up in a set `seen` that is kept beside the list."""
    known = name if any(argument.arg == name for argument in function.args.args) else ""
    function.body.insert(0, ast.parse(f"seen = set({known})").body[0])
    for node in ast.walk(function):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.NotIn):
            node.comparators = [ast.Name("seen", ast.Load())]
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare):
            left = ast.unparse(node.test.left)
            node.body.insert(0, ast.parse(f"seen.add({left})").body[0])
