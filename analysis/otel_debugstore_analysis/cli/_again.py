"""The command that is running, as a command line that asks the same, for all rows."""

from __future__ import annotations

from typing import Final

import click
from click.core import ParameterSource

from otel_debugstore_analysis.cli._options import Scope
from otel_debugstore_analysis.cli._selection import Chosen

_SAID_OTHERWISE: Final = frozenset(
    {"session", "all_sessions", "engine", "no_seal", "since", "until", "where", "limit", "max_tokens", "output_format"}
)
"""Options that sessions and selection are said with, and those that say how an answer is printed."""


def for_all_rows(scope: Scope, chosen: Chosen) -> str:
    """Return the command line; empty where it can't be shown."""
    from otel_debugstore_analysis.report import commands

    context = click.get_current_context()
    options: list[str] = []
    arguments: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in _SAID_OTHERWISE or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params.get(name)
        if isinstance(parameter, click.Argument):
            arguments.append(str(value))
        elif isinstance(value, bool):
            options.append(parameter.opts[0])
        elif value is not None:
            values = value if isinstance(value, tuple) else (value,)
            options += [word for one in values for word in (parameter.opts[0], str(one))]
    selection = commands.of_selection(chosen.selection())
    if selection is None:
        return ""
    options += ["--limit", "0", *scope.options(), *selection]
    if any(argument.startswith("-") for argument in arguments):
        arguments = ["--", *arguments]
    return commands.line("debugstore", context.info_name or "", *options, *arguments)
