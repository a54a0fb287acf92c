"""Survey the sources of Python's standard library; an ordinary program traced with the OpenTelemetry API.

    python examples/stdlib_survey.py                     # all of the library: 5 to 15 seconds
    python examples/stdlib_survey.py asyncio json        # two packages of it
    opentelemetry-instrument --traces_exporter console python examples/stdlib_survey.py json

Nothing here knows where its spans go; without `opentelemetry-instrument` the API makes none. The work is
real: every source is read, tokenized, parsed, checked for syntax that Python 3.7 does not have (that tool
raises where it finds some), searched for repeated lines (slowly) and counted. One trace is one package,
whose modules a pool of threads surveys. At last a child process, which continues the trace of its parent,
ranks the packages by the source that importing them may pull in.
"""

from __future__ import annotations

import argparse
import ast
import functools
import io
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import tokenize
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from opentelemetry import propagate, trace

P = ParamSpec("P")
R = TypeVar("R")

LIBRARY: Final = Path(sysconfig.get_path("stdlib"))
SKIPPED: Final = {"test", "tests", "idlelib", "lib2to3", "turtledemo", "site-packages", "dist-packages"}
OLD_PYTHON: Final = (3, 7)
WORKERS: Final = 4

tracer = trace.get_tracer("stdlib_survey")


@dataclass(frozen=True)
class Module:
    """What was found out about one module; `imports` are the top-level packages it imports."""

    name: str
    lines: int
    tokens: int
    functions: int
    repeated_lines: int
    new_syntax: bool
    imports: Sequence[str]


def traced(span_name: str, **attributes: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that gives every call of a function a span.

    Args:
        span_name: The name of the spans.
        attributes: Names from OpenTelemetry's `gen_ai` conventions, without that prefix, and their values.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        fixed: dict[str, str | int] = {
            "code.function.name": f"stdlib_survey.{function.__name__}",
            "code.file.path": __file__,
            "code.line.number": function.__code__.co_firstlineno,
        }
        fixed |= {f"gen_ai.{name.replace('_', '.')}": value for name, value in attributes.items()}

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with tracer.start_as_current_span(span_name, attributes=fixed) as span:
                try:
                    return function(*args, **kwargs)
                except Exception as error:
                    span.set_attribute("error.type", type(error).__qualname__)
                    raise

        return call

    return decorate


def tool(function: Callable[P, R]) -> Callable[P, R]:
    """Trace a function as a tool."""
    name = function.__name__
    return traced(f"execute_tool {name}", operation_name="execute_tool", tool_name=name)(function)


def workflow(function: Callable[P, R]) -> Callable[P, R]:
    """Trace a function as a workflow: one that calls tools."""
    name = function.__name__
    return traced(f"invoke_workflow {name}", operation_name="invoke_workflow", workflow_name=name)(function)


@tool
def find_sources(only: Sequence[str]) -> dict[str, list[Path]]:
    """Return the library's source files by top-level package or module, sorted."""
    packages: dict[str, list[Path]] = {}
    for entry in sorted(LIBRARY.iterdir()):
        if entry.stem in SKIPPED or (only and entry.stem not in only):
            continue
        paths = sorted(entry.rglob("*.py")) if entry.is_dir() else [entry]
        sources = [
            path for path in paths if path.suffix == ".py" and not SKIPPED & set(path.relative_to(LIBRARY).parts)
        ]
        if sources:
            packages.setdefault(entry.stem, []).extend(sources)
    trace.get_current_span().set_attribute("survey.packages", len(packages))
    return packages


@tool
def read_source(path: Path) -> str:
    """Return the text of a source, decoded as its first lines declare."""
    with tokenize.open(path) as file:
        text = file.read()
    trace.get_current_span().set_attribute("survey.characters", len(text))
    return text


@tool
def count_tokens(source: str) -> int:
    """Return how many tokens a source has."""
    return sum(1 for _ in tokenize.generate_tokens(io.StringIO(source).readline))


@tool
def parse(source: str) -> ast.Module:
    """Return the syntax tree of a source."""
    return ast.parse(source)


@tool
def check_old_syntax(source: str) -> None:
    """Raise SyntaxError where a source has syntax that is newer than `OLD_PYTHON`."""
    ast.parse(source, feature_version=OLD_PYTHON)


@tool
def count_repeated_lines(source: str) -> int:
    """Return how many lines stood in the source before: compared one by one, the slow way."""
    lines = [line.strip() for line in source.splitlines()]
    return sum(1 for number, line in enumerate(lines) if line and line in lines[:number])


@tool
def find_imports(tree: ast.Module) -> list[str]:
    """Return the top-level names of what a module imports, sorted."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return sorted(found)


@traced("survey_module")
def survey_module(path: Path) -> Module:
    """Run every tool over one source."""
    name = ".".join(path.relative_to(LIBRARY).with_suffix("").parts)
    trace.get_current_span().set_attribute("survey.module", name)
    source = read_source(path)
    tree = parse(source)
    try:
        check_old_syntax(source)
        new_syntax = False
    except SyntaxError:
        new_syntax = True
    return Module(
        name=name,
        lines=source.count("\n"),
        tokens=count_tokens(source),
        functions=sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in ast.walk(tree)),
        repeated_lines=count_repeated_lines(source),
        new_syntax=new_syntax,
        imports=find_imports(tree),
    )


@workflow
def survey_package(name: str, sources: Sequence[Path], pool: Executor) -> list[Module]:
    """Survey the modules of one package in the threads of the pool."""
    trace.get_current_span().set_attributes({"survey.package": name, "survey.modules": len(sources)})
    # A thread starts with an empty context: each task gets a copy of ours, and its spans are our children.
    tasks = [pool.submit(copy_context().run, survey_module, path) for path in sources]
    return [task.result() for task in tasks]


@workflow
def rank_packages(modules: Sequence[Module]) -> list[tuple[int, str]]:
    """Have a child process rank the packages by what importing them may pull in."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    environment = os.environ | {name.upper(): value for name, value in carrier.items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "modules.json")
        file.write_text(json.dumps([asdict(module) for module in modules]))
        subprocess.run([sys.executable, __file__, "--rank", str(file)], env=environment, check=True)
        return [(lines, name) for lines, name in json.loads(file.read_text())]


@tool
def reach(start: str, imports: Mapping[str, set[str]]) -> set[str]:
    """Return the packages that importing `start` may import, itself included."""
    trace.get_current_span().set_attribute("survey.package", start)
    reached, waiting = {start}, [start]
    while waiting:
        new = imports[waiting.pop()] - reached
        reached |= new
        waiting.extend(new)
    return reached


@tool
def rank(modules: Sequence[Module]) -> list[tuple[int, str]]:
    """Return the lines of source that each package may pull in, with its name, most first."""
    lines: dict[str, int] = {}
    imports: dict[str, set[str]] = {}
    for module in modules:
        package = module.name.partition(".")[0]
        lines[package] = lines.get(package, 0) + module.lines
        imports.setdefault(package, set()).update(module.imports)
    known = {package: found & lines.keys() for package, found in imports.items()}
    ranking = [(sum(lines[found] for found in reach(package, known)), package) for package in lines]
    return sorted(ranking, reverse=True)


def rank_in_child(file: Path) -> None:
    """Replace the modules in a file by their ranking, in the trace that the environment names."""
    context = propagate.extract({name.lower(): value for name, value in os.environ.items()})
    modules = [Module(**fields) for fields in json.loads(file.read_text())]
    with tracer.start_as_current_span("rank_in_child", context=context):
        file.write_text(json.dumps(rank(modules)))


def report(modules: Sequence[Module], ranking: Sequence[tuple[int, str]]) -> str:
    """Return the survey's result as text."""
    lines = sum(module.lines for module in modules)
    repeated = sum(module.repeated_lines for module in modules)
    newer = [module for module in modules if module.new_syntax]
    largest = max(modules, key=lambda module: module.tokens)
    rows = [
        f"{len(modules):,} modules, {lines:,} lines, {sum(m.tokens for m in modules):,} tokens, "
        f"{sum(m.functions for m in modules):,} functions",
        f"{repeated:,} lines ({repeated / max(lines, 1):.0%}) repeat an earlier one of their module",
        f"{len(newer)} modules need a Python newer than {OLD_PYTHON[0]}.{OLD_PYTHON[1]}",
        f"the largest is {largest.name} with {largest.tokens:,} tokens",
        "importing these may pull in the most source:",
        *(f"  {name:<16} {count:>9,} lines" for count, name in ranking[:5]),
    ]
    return "\n".join(rows)


def main() -> None:
    """Survey the packages named on the command line, or all."""
    arguments = argparse.ArgumentParser(description="Survey the sources of Python's standard library.")
    arguments.add_argument("package", nargs="*", help="a top-level package or module (default: all)")
    arguments.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.rank:
        rank_in_child(options.rank)
        return
    packages = find_sources(options.package)
    if not packages:
        sys.exit(f"No sources of {', '.join(options.package)} in {LIBRARY}: name other packages.")
    with ThreadPoolExecutor(WORKERS) as pool:
        modules = [m for name, sources in packages.items() for m in survey_package(name, sources, pool)]
    print(report(modules, rank_packages(modules)))


if __name__ == "__main__":
    main()
