"""What a replay left behind: numbers asked of the database, and commands to look further."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from msgspec.structs import asdict

from flowledger.cli.playback.stage import named_by
from flowledger.cli.text import Column, duration, money, number, print_table
from flowledger.config import Settings, without_password
from flowledger.questions import Ledger, Over, Percentiles, Sums
from flowledger.records import Kind

__all__ = ["numbers", "print_numbers", "print_ways_to_look"]

PORT = 5000
COLUMNS = (
    Column("feature"),
    Column("calls", right=True),
    Column("failed", right=True),
    Column("input tokens", right=True, leaves=2),
    Column("output tokens", right=True, leaves=3),
    Column("total tokens", right=True, leaves=1),
    Column("cost", right=True),
    Column("unpriced", right=True, leaves=4),
    Column("p50", right=True),
    Column("p95", right=True),
)


def numbers(ledger: Ledger) -> dict[str, Any]:
    """The same for JSON: sums and percentiles of all calls, and by feature."""
    over = ledger.over()
    speeds = over.percentiles_by("feature")
    return {
        "all": {**asdict(over.sums()), **asdict(over.percentiles())},
        "features": [{**asdict(row), **asdict(speeds[row.value])} for row in over.by("feature")],
    }


def print_numbers(ledger: Ledger, made_here: int) -> None:
    """Everything the ledger holds, by feature."""
    over = ledger.over()
    speeds = over.percentiles_by("feature")
    rows = [_cells(row.value or "(none)", row, speeds[row.value]) for row in over.by("feature")]
    sums = over.sums()
    click.echo(f"What is stored, asked of {ledger.place}:\n")
    print_table(COLUMNS, [*rows, _cells("all", sums, over.percentiles())])
    click.echo("")
    for line in _remarks(over, sums, made_here):
        click.echo(line)


def print_ways_to_look(ledger: Ledger, settings: Settings, served: bool) -> None:
    """Commands that show the same calls, ready to be copied.

    Args:
        ledger: what was stored.
        settings: where.
        served: whether a server shows them anyway.
    """
    uri = _uri_for_a_shell(settings.tracking_uri)
    place = "" if named_by() else f"FLOWLEDGER_TRACKING_URI={uri} "
    click.echo("\nLook at them here:\n")
    for words in ("recent", f"show {_worth_showing(ledger)}"):
        click.echo(f"  {place}{_program('flowledger')} {words}")
    if not served:
        click.echo(f"\nOr in a browser, at http://127.0.0.1:{PORT} once this runs:\n")
        click.echo(f"  {_program('flowledger')} server --backend-store-uri {uri} --port {PORT}")


def _cells(name: str, row: Sums, speed: Percentiles) -> list[str]:
    return [
        name,
        number(row.calls),
        number(row.failed),
        *(
            number(tokens) if row.counted else "-"
            for tokens in (row.input_tokens, row.output_tokens, row.total_tokens)
        ),
        money(row.known_cost_usd) if row.priced or row.unpriced else "-",
        number(row.unpriced),
        duration(speed.p50),
        duration(speed.p95),
    ]


def _remarks(over: Over, sums: Sums, made_here: int) -> Iterator[str]:
    if sums.calls > made_here:
        yield f"{made_here:,} of these {sums.calls:,} calls were made now, the others before."
    if sums.failed:
        kinds = ", ".join(
            f"{row.failed} {row.value}" for row in over.by("error_type") if row.failed
        )
        yield f"Failed: {kinds}."
    if sums.unpriced:
        yield f"Unpriced: {sums.unpriced:,} of models whose price nobody knows, not in the cost."
    yield "Costs are by the list prices of the models named."


def _worth_showing(ledger: Ledger) -> str:
    """The latest chat that worked, or else the latest call of all."""
    calls = ledger.recent(100)
    good = (call.id for call in calls if call.success and call.kind == Kind.CHAT)
    return next(good, calls[0].id if calls else "ID")


def _uri_for_a_shell(uri: str) -> str:
    """The URI as a shell takes it; one with a password stays in the variable it came from."""
    if without_password(uri) != uri:
        return f'"${named_by()}"'
    return shlex.quote(uri)


def _program(name: str) -> str:
    """What to type for a program: its name, or its path where it is not on the shell's."""
    beside = Path(sys.executable).parent / name
    found = shutil.which(name)
    if found and (not beside.exists() or Path(found).resolve() == beside.resolve()):
        return name
    return shlex.quote(_short(beside)) if beside.exists() else name


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
