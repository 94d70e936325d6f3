"""`flowledger demo`: see it work on a small application."""

import os
import sys

import click

from flowledger.cli.playback.arrivals import SAMPLE, check
from flowledger.cli.playback.history import LONGEST
from flowledger.cli.playback.performance import Plan, perform
from flowledger.cli.playback.serving import serve

TRACE = (
    "{calls} requests of the Azure LLM inference trace 2023 (conversation; Microsoft, CC-BY 4.0)"
)
KEY_HINT = "(set OPENAI_API_KEY, and OPENAI_BASE_URL, to ask a real one)"
STUB_HINT = "(--stub asks the stub server instead, for nothing)"
SAMPLE_CALLS = 400
REAL_CALLS = 8
SPEED = 25.0
CONCURRENCY = 16
REAL_CONCURRENCY = 4
HISTORY_DAYS = 60  # so that 30 of them have 30 before them to be compared with


@click.command()
@click.option(
    "--calls",
    type=click.IntRange(1, SAMPLE_CALLS),
    help=f"How many calls to make.  [default: {SAMPLE_CALLS}, or {REAL_CALLS} at a real model]",
)
@click.option("--stub", is_flag=True, help="Use the stub server though OPENAI_API_KEY is set.")
@click.option(
    "--model",
    default="gpt-4o-mini",
    show_default=True,
    help="The model to ask when OPENAI_API_KEY is set.",
)
@click.option(
    "--history",
    "history_days",
    type=click.IntRange(0, LONGEST),
    metavar="DAYS",
    help="Before it, as many days of calls that are written down as having happened."
    f"  [default: {HISTORY_DAYS} in a new database of the demo's own that is served, else 0]",
)
@click.option("--once", is_flag=True, help="Leave after the numbers, without a server.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Of the server.  [default: the first free one from 5000 on]",
)
@click.option("--json", "as_json", is_flag=True, help="With --once: print the numbers as JSON.")
def command(
    calls: int | None,
    stub: bool,
    model: str,
    history_days: int | None,
    once: bool,
    port: int | None,
    as_json: bool,
) -> None:
    """See it work: a small application, its calls, and what the ledger says.

    Real arrivals, from the Azure LLM inference trace 2023, go through the real openai client to a
    stub server on this machine; no key and no network are needed. With OPENAI_API_KEY (and
    OPENAI_BASE_URL) set, a few short calls go to that model instead, and cost what they cost.

    Calls are stored in a database of the demo's own, $FLOWLEDGER_HOME/demo/mlflow.db, unless
    MLFLOW_TRACKING_URI or FLOWLEDGER_TRACKING_URI names another. Then a flowledger server shows
    them, until Ctrl-C. So that its pages have something to show, the days before are filled with
    the same arrivals, written down as having happened.

    \b
    Examples:
      flowledger demo
      flowledger demo --once
      flowledger demo --calls 50 --history 0
      MLFLOW_TRACKING_URI=postgresql://me@db/mlflow flowledger demo
    """
    if as_json and not once:
        raise click.UsageError("--json goes with --once: a server prints no numbers")
    real = bool(os.environ.get("OPENAI_API_KEY")) and not stub
    limit = calls or (REAL_CALLS if real else SAMPLE_CALLS)
    total = check(SAMPLE, limit)
    plan = Plan(
        path=SAMPLE,
        trace=TRACE.format(calls=total),
        total=total,
        limit=limit,
        speed=SPEED,
        concurrency=REAL_CONCURRENCY if real else CONCURRENCY,
        model=model if real else None,
        hint=STUB_HINT if real else "" if stub else KEY_HINT,
        served=not once,
        history_days=history_days,
        default_history_days=0 if once or real else HISTORY_DAYS,
        as_json=as_json,
    )
    code = perform(plan)
    if code == 0 and not once:
        serve(port)
    sys.exit(code)
