"""`flowledger recent`: the latest calls, and those to come."""

import sys
from typing import TYPE_CHECKING, Any

import click

from flowledger import config
from flowledger.cli.reading import open_ledger
from flowledger.cli.scope import filtered
from flowledger.cli.text import (
    Column,
    Lines,
    duration,
    moment,
    money,
    number,
    print_json,
    print_json_line,
    print_table,
)

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
    type=click.IntRange(0, 10_000),
    default=20,
    show_default=True,
    help="How many calls to list.",
)
@click.option(
    "-f", "--follow", is_flag=True, help="Go on with each call as it is stored, until Ctrl-C."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with more fields.")
@filtered
def command(limit: int, follow: bool, as_json: bool, filters: dict[str, Any]) -> None:
    """List the latest calls, newest first.

    Reads the database that MLFLOW_TRACKING_URI or FLOWLEDGER_TRACKING_URI names; without either,
    mlflow.db in this folder. A `?` is a number or a price nobody knows. Exit code 1 when no call
    is found.

    With --follow the newest call is last, and others follow as they are stored; with --json, too,
    each is one line. -n 0 begins with what comes next.

    \b
    Examples:
      flowledger recent
      flowledger recent -n 100 --user ana --failed
      flowledger recent --follow --feature support
      flowledger recent --json | jq '.[] | select(.success | not)'
    """
    uri = config.load().tracking_uri
    if not follow and not limit:
        raise click.BadParameter("0 is for --follow, give more", param_hint="-n")
    if follow:
        from flowledger.cli.following import follow as follow_calls

        follow_calls(uri, filters, limit, _OneALine() if as_json else _Growing())
        return
    with open_ledger(uri) as ledger:
        from flowledger.questions import Filters

        calls = ledger.over(filters=Filters(**filters)).calls(limit).rows
    if as_json:
        print_json(calls)
    elif calls:
        print_table(COLUMNS, map(_cells, calls))
    else:
        click.echo(f"no such call is stored in {ledger.place}", err=True)
    sys.exit(0 if calls else 1)


class _OneALine:
    """Each call as JSON."""

    def first(self, calls: "list[RecentCall]") -> None:
        for call in calls:
            self.another(call)

    def another(self, call: "RecentCall") -> None:
        print_json_line(call)


class _Growing:
    """Calls in columns."""

    def first(self, calls: "list[RecentCall]") -> None:
        self._lines = Lines(COLUMNS, map(_cells, calls))

    def another(self, call: "RecentCall") -> None:
        self._lines.print(_cells(call))


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
