"""`flowledger stats`: what calls add up to, by one dimension, with bars."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from flowledger import config
from flowledger.cli.reading import open_ledger
from flowledger.cli.scope import Scope, windowed
from flowledger.cli.text import Column, duration, money, number, print_json, print_table

if TYPE_CHECKING:
    from flowledger.questions.parts import Part

# What a user calls a dimension, and what the questions call it.
DIMENSIONS = {
    "model": "model",
    "feature": "feature",
    "user": "user_id",
    "persona": "persona_id",
    "provider": "provider",
    "session": "session_id",
    "experiment": "experiment",
    "prompt-version": "prompt_version",
    "environment": "environment",
    "operation": "operation",
    "error": "error_type",
}
MEASURES = {
    "calls": "calls",
    "cost": "cost_usd",
    "tokens": "total_tokens",
    "failed": "failed",
}
PERIODS = ("day", "hour")
TIMED = ("model", "feature", "experiment")  # percentiles are kept by these
MOST = 9_999  # questions answer 10,000 rows, and one tells whether there are more
NOTHING = "-"


@click.command()
@click.option(
    "--by",
    type=click.Choice([*DIMENSIONS, *PERIODS]),
    default="model",
    show_default=True,
    help="What calls are told apart by; days and hours are UTC.",
)
@click.option(
    "--bars",
    type=click.Choice(list(MEASURES)),
    default="calls",
    show_default=True,
    help="What the bars show, and what comes first.",
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, MOST),
    default=20,
    show_default=True,
    help="How many rows; the rest is one row. Days and hours are never left out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@windowed(days=30)
def command(by: str, bars: str, limit: int, as_json: bool, scope: Scope) -> None:
    """Add up the calls of a window, by model, feature, user or anything else.

    All calls of the window are counted, those that only group others excepted. A cost that nobody
    knows is no part of the sum, and `unpriced` says how often that was. `latency` is the mean.
    Exit code 1 when there are no calls.

    \b
    Examples:
      flowledger stats
      flowledger stats --by user --bars cost --days 7
      flowledger stats --by day --feature support --from 2026-11-01
      flowledger stats --by feature --json | jq '.rows[] | select(.error_rate > 5)'
    """
    with open_ledger(config.load().tracking_uri) as ledger:
        from flowledger.questions.parts import parts, periods, whole

        over = scope.over(ledger)
        in_all = whole(over)
        if by in PERIODS:
            rows = periods(over, by)
        else:
            rows = parts(over, DIMENSIONS[by], MEASURES[bars], limit)
    if as_json:
        print_json({**scope.bounds(), "by": by, "whole": in_all, "rows": rows})
    elif in_all.calls:
        click.echo(f"{scope.words()}; bars are {bars}\n")
        print_table(_columns(by), _table(rows, in_all, by, MEASURES[bars]))
        if in_all.unpriced:
            click.echo(f"\n{number(in_all.unpriced)} calls have no known price: not in the cost.")
        if in_all.estimated:
            click.echo(
                f"\n{number(in_all.estimated)} calls have estimated tokens:"
                f" {money(in_all.estimated_cost_usd)} of the cost is an estimate."
            )
    else:
        click.echo(f"no calls: {scope.words()}", err=True)
    sys.exit(0 if in_all.calls else 1)


def _columns(by: str) -> list[Column]:
    return [
        Column(by),
        Column("", bar=True, leaves=1),
        Column("share", right=True, leaves=6),
        Column("calls", right=True),
        Column("failed", right=True, leaves=3),
        Column("error rate", right=True, leaves=8),
        Column("tokens", right=True, leaves=5),
        Column("cost", right=True),
        Column("unpriced", right=True, leaves=9),
        Column("latency", right=True, leaves=4),
        *([Column("p50", right=True, leaves=7)] if by in TIMED else []),
        *([Column("p95", right=True, leaves=2)] if by in TIMED else []),
    ]


def _table(rows: "list[Part]", in_all: "Part", by: str, measure: str) -> Iterator[list[str]]:
    most = max((getattr(row, measure) or 0 for row in rows), default=0)
    total = getattr(in_all, measure) or 0
    for row in rows:
        amount = getattr(row, measure) or 0
        yield _cells(row, by, amount / most if most else 0, amount / total if total else 0)
    yield _cells(in_all, by, 0, 1)


def _cells(row: "Part", by: str, bar: float, share: float) -> list[str]:
    speeds = [duration(row.p50_latency_ms), duration(row.p95_latency_ms)] if by in TIMED else []
    return [
        row.name,
        str(bar),
        f"{share:.1%}",
        number(row.calls),
        number(row.failed),
        f"{row.error_rate:.1f}%",
        number(row.total_tokens),
        money(row.cost_usd),
        number(row.unpriced),
        duration(row.mean_latency_ms) if row.calls else NOTHING,
        *(speeds if row.calls else [NOTHING] * len(speeds)),
    ]
