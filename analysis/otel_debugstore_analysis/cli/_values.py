"""Values of options: names of functions, and shares."""

from __future__ import annotations

from typing import Any

import click


class FunctionName(click.ParamType[str]):
    """The name of a function with that of its module; whether there is one is not looked at."""

    name = "function"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        parts = str(value).split(":")
        names = [name for part in parts for name in part.split(".")]
        if len(parts) > 2 or len(names) < 2 or not all(names):
            self.fail(f"{value!r} names no function; write package.module:function.", param, ctx)
        return str(value)


class Share(click.ParamType[float]):
    """A share from 0 to 1, written as "0.03" or "3%"."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is no share from 0 to 1; write 3% or 0.03.", param, ctx)
        return share
