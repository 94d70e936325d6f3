"""`flowledger recent`: the latest calls."""

from typing import TYPE_CHECKING

import click

from flowledger import config
from flowledger.cli.reading import open_ledger
from flowledger.cli.text import Column, duration, moment, money, number, print_json, print_table

if TYPE_CHECKING:
    from flowledger.questions import RecentCall

COLUMNS = (
    Column("id"),
    Column("started (UTC)", leaves=4),
    Column("feature", leaves=2),
    Column("operation", leaves=6),
    Column("model", leaves=3),
    Column("user", leaves=5),
    Column("tokens", right=True, leaves=1),
    Column("cost", right=True),
    Column("latency", right=True),
    Column("status"),
)


@click.command()
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="How many calls to list.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with more fields.")
def command(limit: int, as_json: bool) -> None:
    """List the latest calls, newest first.

    Reads the database that MLFLOW_TRACKING_URI or FLOWLEDGER_TRACKING_URI names; without either,
    mlflow.db in this folder. A `?` is a number or a price nobody knows.

    \b
    Examples:
      flowledger recent
      flowledger recent -n 100
      flowledger recent --json | jq '.[] | select(.success | not)'
    """
    with open_ledger(config.load().tracking_uri) as ledger:
        calls = ledger.recent(limit)
    if as_json:
        print_json(calls)
    elif not calls:
        click.echo(f"no calls are stored yet in {ledger.place}")
    else:
        print_table(COLUMNS, map(_cells, calls))


def _cells(call: "RecentCall") -> list[str]:
    # Only a model that answered has tokens and a cost; anything else has none to be unknown.
    used = call.success and call.model is not None
    return [
        call.id,
        moment(call.start_ms),
        call.feature or "-",
        call.operation or call.kind,
        call.model or "-",
        call.user_id or "-",
        number(call.total_tokens) if used or call.total_tokens is not None else "-",
        money(call.cost_usd) if used or call.cost_usd is not None else "-",
        duration(call.latency_ms),
        "ok" if call.success else f"failed: {call.error_type}",
    ]
