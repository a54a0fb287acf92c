"""`debugstore queue`: what is to be made faster, who works on it, and what was proven."""

from __future__ import annotations

import contextlib
import getpass
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import click

from otel_debugstore.config import parse_seconds
from otel_debugstore.errors import DebugStoreError
from otel_debugstore_analysis.cli._analysis import MIN_TOKENS
from otel_debugstore_analysis.cli._errors import Findings
from otel_debugstore_analysis.cli._items import show_item, show_items
from otel_debugstore_analysis.cli._options import base_path, data_dir_option
from otel_debugstore_analysis.cli._output import FORMATS, format_option, remark

if TYPE_CHECKING:
    from otel_debugstore_analysis.queue import OptimizationQueue

F = TypeVar("F", bound=Callable[..., Any])

_TOKENS: Final = 4_000
_MAX_EVIDENCE_BYTES: Final = 10_000_000


class _Lease(click.ParamType[float]):
    """A length of time, as seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_seconds(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no length of time; say 90s, 30m or 2h.", param, ctx)


def _user() -> str:
    with contextlib.suppress(OSError, KeyError, ImportError):  # a container's user may have no name
        return getpass.getuser()
    return "somebody"


_item_argument: Final = click.argument("item", metavar="ITEM")
_by_option: Final = click.option(
    "--by",
    metavar="NAME",
    default=_user,
    show_default="the user",
    help="Who does it. Each agent takes a name of its own, the same for all it does.",
)
_max_tokens_option: Final = click.option(
    "--max-tokens",
    type=click.IntRange(MIN_TOKENS),
    default=_TOKENS,
    show_default=True,
    metavar="N",
    help=f"Tokens of Markdown at most, a hard limit, at least {MIN_TOKENS}; what is left out is named.",
)
_refresh_option: Final = click.option(
    "--no-refresh", is_flag=True, help="Do not look in the sessions whether the code of components changed."
)
_evidence_option: Final = click.option(
    "--evidence",
    type=click.File("rb"),
    metavar="FILE",
    help="JSON with the outcome of a benchmark or a replay; - is standard input.",
)


def _package_format(function: F) -> F:
    option = click.option(
        "--format",
        "output_format",
        type=click.Choice(FORMATS),
        default="markdown",
        show_default=True,
        help="markdown is the package for an agent, json is all that is known.",
    )
    decorated: Any = option(_max_tokens_option(function))
    return decorated  # type: ignore[no-any-return]


@click.group()
@data_dir_option
def command() -> None:
    """Show and change the optimization queue: what is too slow, who works on it, and what was proven.

    An audit puts items into it (debugstore audit). Somebody claims one, proposes a candidate, and a comparison proves
    or rejects it. Only a proof closes an item: faster, with outputs that were compared. ITEM is an id, its first
    digits, or the name of a component.

    \b
    Examples:
      debugstore queue list
      debugstore queue claim --by agent-1                 the most urgent one
      debugstore queue propose 8e2ff60afaac --candidate fast.parse:parse --by agent-1
      debugstore queue prove 8e2ff60afaac --evidence comparison.json
    """


@command.command("list")
@click.option("--state", "-s", multiple=True, metavar="STATE", help="Only items in this state; may be repeated.")
@click.option("--min-priority", type=float, metavar="N", help="Only items of at least this priority.")
@_refresh_option
@format_option
@data_dir_option
def list_(state: tuple[str, ...], min_priority: float | None, no_refresh: bool, output_format: str) -> None:
    """List the items, the most urgent first.

    The priority is (1 + milliseconds saved in a second) x times over the limit / (1 + rejections).
    States: open, claimed, proposed, proven (not applied: its old code was still called after the proof), rejected (it
    can be claimed again), stale (its code changed: audit again).

    \b
    Examples:
      debugstore queue list
      debugstore queue list --state open --state rejected
      debugstore queue list --format json
    """
    queue = _queue(refresh=not no_refresh)
    items = queue.items(state or None, min_priority=min_priority)  # type: ignore[arg-type]  # it says which there are
    if items or output_format in ("json", "csv"):
        show_items(items, output_format)
    else:
        remark("No item of the kind is in the queue; `debugstore audit` puts in what does not keep its limits.")


@command.command("show")
@_item_argument
@_refresh_option
@_package_format
@data_dir_option
def show_(item: str, no_refresh: bool, output_format: str, max_tokens: int) -> None:
    """Show an item as a package for an agent, in a number of tokens.

    It has what is wrong, the limits, what to do, traces, what happened so far, and the code.

    \b
    Examples:
      debugstore queue show parse
      debugstore queue show 8e2ff60a --max-tokens 1000
      debugstore queue show 8e2ff60a --format json
    """
    show_item(_queue(refresh=not no_refresh).get(item), output_format, max_tokens)


@command.command()
@click.argument("item", metavar="[ITEM]", required=False)
@click.option("--lease", type=_Lease(), default=3600.0, show_default="1h", metavar="TIME", help="For how long.")
@click.option("--release", is_flag=True, help="Give the claim up instead.")
@_by_option
@_refresh_option
@_package_format
@data_dir_option
def claim(
    item: str | None, lease: float, release: bool, by: str, no_refresh: bool, output_format: str, max_tokens: int
) -> None:
    """Take an item, the most urgent by default, and show it.

    Others can't take it while the lease lasts; claiming it again makes the lease longer. The exit code is 1 if there
    is nothing to take.

    \b
    Examples:
      debugstore queue claim --by agent-1 --lease 30m
      debugstore queue claim parse --by agent-1
      debugstore queue claim parse --by agent-1 --release
    """
    if release:
        if item is None:
            raise click.UsageError("--release needs an ITEM.")
        found = _queue(refresh=False).release(item, by)
        remark(f"{found.id} is open again.")
        return
    queue = _queue(refresh=not no_refresh)
    taken = queue.claim(item, by, lease) if item is not None else queue.claim_next(by, lease)
    if taken is None:
        remark("No item is open.")
        raise Findings
    show_item(taken, output_format, max_tokens)


@command.command()
@_item_argument
@click.option("--candidate", required=True, metavar="TEXT", help="A patch, a path, or package.module:function.")
@click.option("--variant", metavar="HASH", help="The hash of its code: the item does not go stale when it runs.")
@_by_option
@data_dir_option
def propose(item: str, candidate: str, variant: str | None, by: str) -> None:
    """Say what the candidate is, which waits for a proof then.

    \b
    Example:
      debugstore queue propose parse --candidate fast.parse:parse --by agent-1
    """
    found = _queue(refresh=False).propose(item, candidate, by, variant=variant)
    remark(f"{found.id} is proposed: prove or reject it.")


@command.command()
@_item_argument
@_evidence_option
@click.option("--session", "-s", metavar="ID", help="A session: the newest benchmark in it is the evidence.")
@click.option("--benchmark", metavar="NAME", help="The newest of this name in the session.")
@_by_option
@data_dir_option
def prove(item: str, evidence: IO[bytes] | None, session: str | None, benchmark: str | None, by: str) -> None:
    """Close an item: its candidate is faster, and right.

    Any other evidence is refused (exit code 2). It is what `debugstore benchmark` recorded in a session, or JSON as
    `debugstore replay` and `debugstore benchmark` print it: verdict ("faster"), ratio (time of the candidate, divided
    by that of the code as it is), low and high (its interval, below 1), and checked (how many outputs were compared,
    and right: at least 1). The component or the code that it is about has to be the item's, and its candidate, where it
    names one, what was proposed. While somebody has the item, only they prove it; a stale one is audited again first.

    \b
    Examples:
      debugstore replay parse --candidate fast.parse:parse --format json > outcome.json
      debugstore queue prove parse --evidence outcome.json
      debugstore queue prove parse --session benchmark_20260301T120000.000Z
    """
    if (evidence is None) == (session is None):
        raise click.UsageError("An item is closed by a proof: give its outcome, by --evidence FILE or --session ID.")
    if benchmark is not None and session is None:
        raise click.UsageError("--benchmark goes with --session.")
    outcome = _evidence(evidence) if evidence is not None else _recorded(str(session), benchmark)
    found = _queue(refresh=False).prove(item, outcome, by)
    remark(f"{found.id} is closed. {found.history[-1].what.capitalize()}.")


@command.command()
@_item_argument
@click.option("--why", required=True, metavar="TEXT", help="What is wrong with the candidate; the next one reads it.")
@_evidence_option
@_by_option
@data_dir_option
def reject(item: str, why: str, evidence: IO[bytes] | None, by: str) -> None:
    """Turn the candidate down.

    The item stays: it can be claimed again, after others.

    \b
    Example:
      debugstore queue reject parse --why "other result for empty input" --evidence outcome.json --by agent-1
    """
    outcome = _evidence(evidence) if evidence is not None else None
    found = _queue(refresh=False).reject(item, why, outcome, by)
    remark(f"{found.id} is rejected; it can be claimed again.")


@command.command()
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file; by default optimization_queue.json in the data directory.",
)
@data_dir_option
def export(output: Path | None) -> None:
    """Write all items into a JSON file.

    It is there as a whole, or as it was.

    \b
    Examples:
      debugstore queue export
      debugstore queue export -o queue.json
    """
    click.echo(str(_queue(refresh=False).export_json(output)))


def _queue(*, refresh: bool) -> OptimizationQueue:
    """Return the queue; what has changed in the code is looked for first, if it can be."""
    from otel_debugstore_analysis.queue import OptimizationQueue

    queue = OptimizationQueue(base_path())
    if refresh:
        try:
            for item in queue.refresh():
                remark(f"{item.id} ({item.component}) is stale now: its code changed.")
        except DebugStoreError as error:
            remark(f"Whether code changed could not be found out: {error}")
    return queue


def _evidence(file: IO[bytes]) -> Any:
    """Return the JSON object in a file.

    Raises:
        QueueError: There is none.
    """
    from otel_debugstore_analysis.queue import QueueError

    name = "standard input" if file is sys.stdin.buffer else file.name
    content = file.read(_MAX_EVIDENCE_BYTES + 1)
    try:
        if len(content) > _MAX_EVIDENCE_BYTES:
            raise ValueError(f"more than {_MAX_EVIDENCE_BYTES:,} bytes")
        found = json.loads(content)
        if not isinstance(found, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise QueueError(f"The evidence in {name} can't be read ({error}); it is the JSON of a comparison.") from error
    return found


def _recorded(session: str, name: str | None) -> dict[str, Any]:
    """Return the newest benchmark of a session.

    Raises:
        QueueError: There is none.
        SessionNotFoundError: There is no such session.
    """
    from otel_debugstore_analysis.benchmark.history import history
    from otel_debugstore_analysis.queue import QueueError

    rows = history(base_path(), name, sessions=[session], limit=1).dicts()
    if not rows:
        which = f"benchmark {name!r}" if name is not None else "benchmark"
        raise QueueError(f"No {which} is in session {session}; `debugstore benchmark --history` shows those there are.")
    row = rows[0]
    renamed = {"low": row["ratio_low"], "high": row["ratio_high"], "trace_ids": [row["trace_id"]], "kind": "benchmark"}
    return row | renamed
