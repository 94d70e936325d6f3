"""`flowledger migrate`: our tables forward and back, by an operator."""

from typing import TYPE_CHECKING

import click

from flowledger import config
from flowledger.cli.database import backend_store_uri, needs_server
from flowledger.cli.text import moment
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
@backend_store_uri
def command(to: int | None, status: bool, users: bool, yes: bool, uri: str | None) -> None:
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
    if not status and to is None:
        _make_tables(uri, users)
    with open_upkeep(uri) as upkeep:
        if status:
            _show(upkeep)
        elif to is not None and any(step > to for step in upkeep.applied()):
            _go_back(upkeep, to, yes)
        else:
            _go_forward(upkeep, to)
            if to is None:
                _keep(upkeep, settings.partition_calls)


def _make_tables(uri: str, users: bool) -> None:
    """MLflow's tables and ours, as `flowledger server` makes them."""
    with needs_server():
        from flowledger.server.prepare import make_users_tables, prepare
    prepare(uri, auth="")
    if users:
        make_users_tables(uri)


def _show(upkeep: "Upkeep") -> None:
    from flowledger.store.schema import migrations

    there, known = upkeep.applied(), {step.number: step for step in migrations()}
    for number in sorted(there.keys() | known):
        name = known[number].name if number in known else "of a newer flowledger"
        when = f"{moment(there[number])} UTC" if number in there else "not taken"
        click.echo(f"{number:4}  {name:22}  {when}")
    parts = upkeep.parts()
    if parts.by_month:
        ahead = "this month is not made" if parts.ahead < 0 else f"{parts.ahead} made ahead"
        months = f"{parts.months[0]} to {parts.months[-1]}" if parts.months else "no month"
        click.echo(f"calls are kept by month: {months}, {ahead}")


def _go_forward(upkeep: "Upkeep", to: int | None) -> None:
    for number in upkeep.forward(to):
        click.echo(f"step {number} is taken")
    if to is None:
        if summed := upkeep.sum_missing():
            click.echo(f"{summed:,} calls were added to the sums")
        click.echo(f"the tables are at step {max(upkeep.applied())}")


def _keep(upkeep: "Upkeep", how: str) -> None:
    """The table of calls, as the setting wants it."""
    if how == "month" and not upkeep.parts().by_month:
        upkeep.by_month(lambda name, rows: click.echo(f"{rows:,} calls moved to {name}"))
    elif how == "none" and upkeep.in_one_table(
        lambda name, rows: click.echo(f"{rows:,} calls moved out of {name}")
    ):
        click.echo("calls are in one table again")
    elif made := upkeep.keep_ahead():
        click.echo(f"calls have a place for {', '.join(map(str, made))}")


def _go_back(upkeep: "Upkeep", to: int, yes: bool) -> None:
    for loss in upkeep.losses(to):
        rows = ", ".join(f"{count:,} rows of {table}" for table, count in loss.rows.items())
        click.echo(f"step {loss.step.number} back loses: {loss.step.loss} ({rows or 'no rows'})")
    if not yes and not click.confirm(f"Go back to step {to}?"):
        raise NotFound("nothing was changed")
    for number in upkeep.back(to):
        click.echo(f"step {number} is taken back")
