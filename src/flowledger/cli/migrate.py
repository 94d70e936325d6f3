"""`flowledger migrate`: our tables forward and back, by an operator."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from flowledger import config
from flowledger.cli.database import backend_store_uri, needs_server
from flowledger.cli.text import moment, print_json
from flowledger.errors import NotFound

if TYPE_CHECKING:
    from flowledger.store.upkeep import Upkeep


@click.command()
@click.option(
    "--to",
    type=click.IntRange(min=0),
    metavar="STEP",
    help="Go to this step, forward or back; without it, forward to the newest.",
)
@click.option("--status", is_flag=True, help="Show the steps, and change nothing.")
@click.option(
    "--users", is_flag=True, help="Make the tables of MLflow's users, too, for --auth basic."
)
@click.option("--yes", is_flag=True, help="Lose what going back loses without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@backend_store_uri
def command(
    to: int | None, status: bool, users: bool, yes: bool, as_json: bool, uri: str | None
) -> None:
    """Bring the tables of a database forward, or back for an older flowledger.

    A server and a collector go forward by themselves when their user may change tables. Before
    going back stop everything that writes: a newer flowledger goes forward again.

    On PostgreSQL, with the setting partition_calls=month, calls are kept by month from then on, and
    each `flowledger migrate` makes the months ahead; partition_calls=none puts them into one table
    again. Both move every row, and calls wait meanwhile.

    \b
    Examples:
      flowledger migrate --status
      flowledger migrate
      flowledger migrate --to 5
      FLOWLEDGER_PARTITION_CALLS=month flowledger migrate
    """
    with needs_server():
        from flowledger.store.upkeep import open_upkeep
    settings = config.load(tracking_uri=uri)
    uri = settings.tracking_uri
    began_ms = time.time_ns() // 1_000_000
    if not status and to is None:
        _make_tables(uri, users)
    with open_upkeep(uri) as upkeep:
        done = _Done()
        if status:
            pass
        elif to is not None and any(step > to for step in upkeep.applied()):
            done = _go_back(upkeep, to, yes, as_json)
        else:
            done = _go_forward(upkeep, to, began_ms)
            if to is None:
                _keep(upkeep, settings.partition_calls, as_json)
        if as_json:
            steps, calls = _steps(upkeep), _kept(upkeep)
            print_json({**msgspec.structs.asdict(done), "steps": steps, "calls": calls})
            return
        for line in _told(done, to) if not status else _listed(upkeep):
            click.echo(line)


class _Done(msgspec.Struct, frozen=True, kw_only=True):
    """What was done: steps taken and taken back, calls added to the sums."""

    taken: list[int] = []
    taken_back: list[int] = []
    summed: int = 0
    at: int | None = None


def _make_tables(uri: str, users: bool) -> None:
    """MLflow's tables and ours, as `flowledger server` makes them."""
    with needs_server():
        from flowledger.server.prepare import make_users_tables, prepare
    prepare(uri, auth="")
    if users:
        make_users_tables(uri)


def _steps(upkeep: "Upkeep") -> list[dict[str, Any]]:
    """Every step there is, and when it was taken, Unix milliseconds."""
    from flowledger.store.schema import migrations

    there, known = upkeep.applied(), {step.number: step.name for step in migrations()}
    return [
        {"number": number, "name": known.get(number), "taken_ms": there.get(number)}
        for number in sorted(there.keys() | known)
    ]


def _kept(upkeep: "Upkeep") -> dict[str, Any]:
    """How the table of calls is kept; `ahead` counts the months after this one that are made."""
    parts = upkeep.parts()
    if not parts.by_month:
        return {"by_month": False}
    return {"by_month": True, "months": [str(one) for one in parts.months], "ahead": parts.ahead}


def _listed(upkeep: "Upkeep") -> Iterator[str]:
    for step in _steps(upkeep):
        name = step["name"] or "of a newer flowledger"
        when = "not taken" if step["taken_ms"] is None else f"{moment(step['taken_ms'])} UTC"
        yield f"{step['number']:4}  {name:22}  {when}"
    kept = _kept(upkeep)
    if kept["by_month"]:
        months = kept["months"] or ["none"]
        made = f"{kept['ahead']} made ahead" if kept["ahead"] >= 0 else "this month is not made"
        yield f"calls are kept by month: {months[0]} to {months[-1]}, {made}"


def _told(done: _Done, to: int | None) -> Iterator[str]:
    yield from (f"step {number} is taken" for number in done.taken)
    yield from (f"step {number} is taken back" for number in done.taken_back)
    if done.summed:
        yield f"{done.summed:,} calls were added to the sums"
    if to is None:
        yield f"the tables are at step {done.at}"


def _go_forward(upkeep: "Upkeep", to: int | None, began_ms: int) -> _Done:
    upkeep.forward(to)
    summed = upkeep.sum_missing() if to is None else 0
    there = upkeep.applied()
    taken = sorted(number for number, taken_ms in there.items() if taken_ms >= began_ms)
    return _Done(taken=taken, summed=summed, at=max(there, default=0))


def _go_back(upkeep: "Upkeep", to: int, yes: bool, as_json: bool) -> _Done:
    if as_json and not yes:
        raise click.UsageError("going back loses data: with --json say --yes, too")
    for loss in upkeep.losses(to):
        rows = ", ".join(f"{count:,} rows of {table}" for table, count in loss.rows.items())
        line = f"step {loss.step.number} back loses: {loss.step.loss} ({rows or 'no rows'})"
        click.echo(line, err=as_json)
    if not yes and not click.confirm(f"Go back to step {to}?"):
        raise NotFound("nothing was changed")
    return _Done(taken_back=upkeep.back(to), at=max(upkeep.applied(), default=0))


def _keep(upkeep: "Upkeep", how: str, as_json: bool) -> None:
    """The table of calls, as the setting wants it; what moves is told while it does."""

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    if how == "month" and not upkeep.parts().by_month:
        upkeep.by_month(lambda name, rows: say(f"{rows:,} calls moved to {name}"))
    elif how == "none" and upkeep.in_one_table(
        lambda name, rows: say(f"{rows:,} calls moved out of {name}")
    ):
        say("calls are in one table again")
    elif made := upkeep.keep_ahead():
        say(f"calls have a place for {', '.join(map(str, made))}")
