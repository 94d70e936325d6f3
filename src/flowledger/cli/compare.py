"""`flowledger compare`: models side by side, and how sure the differences are."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from flowledger import config
from flowledger.cli.reading import open_ledger
from flowledger.cli.scope import Scope, windowed
from flowledger.cli.text import (
    Column,
    duration,
    money,
    number,
    print_json,
    print_table,
    print_text,
)

if TYPE_CHECKING:
    from flowledger.questions.certainty import Interval
    from flowledger.questions.compare import Side

UNMEASURED, TOO_FEW = "-", "too few calls"
LINES: tuple[tuple[str, "Callable[[Side], str]"], ...] = (
    ("calls", lambda side: number(side.calls)),
    ("failed", lambda side: number(side.failed)),
    ("error rate", lambda side: f"{side.error_rate:.2f}%"),
    ("  at 95 %", lambda side: _rates(side.error_rate_interval)),
    ("cost", lambda side: money(side.cost_usd)),
    ("  per call", lambda side: money(side.cost_per_call_usd)),
    ("  unpriced", lambda side: number(side.unpriced)),
    ("input tokens", lambda side: number(side.input_tokens)),
    ("output tokens", lambda side: number(side.output_tokens)),
    ("  all, per call", lambda side: _measured(side.tokens_per_call, ",.0f")),
    ("mean latency", lambda side: duration(side.mean_latency_ms)),
    ("  p50", lambda side: duration(side.p50_latency_ms)),
    ("  p90", lambda side: duration(side.p90_latency_ms)),
    ("  p95", lambda side: duration(side.p95_latency_ms)),
    ("  at 95 %", lambda side: _speeds(side.p95_latency_interval)),
    ("  p99", lambda side: duration(side.p99_latency_ms)),
    ("confidence", lambda side: _measured(side.confidence, ".3f")),
    ("template match", lambda side: _measured(side.template_match_rate, ".3f")),
)


@click.command()
@click.argument("models", metavar="MODEL MODEL...", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@windowed(days=30)
def command(models: tuple[str, ...], as_json: bool, scope: Scope) -> None:
    """Compare models: cost, latency, errors, tokens and quality, side by side.

    The others are compared with the first. `confidence` and `template match` are your own metrics
    `confidence_score` and `template_match_rate`. Exit code 1 when a model has no calls.

    \b
    Examples:
      flowledger compare gpt-4o gpt-4o-mini
      flowledger compare gpt-4o gpt-4.1 gpt-4.1-mini --feature support --days 7
      flowledger compare gpt-4o gpt-4o-mini --json | jq '.differences[] | select(.sure)'
    """
    if len(set(models)) < 2 or len(set(models)) != len(models):
        raise click.UsageError("name two or more models, each once")
    if "model" in scope.filters:
        raise click.UsageError("leave --model out: the models are named already")
    with open_ledger(config.load().tracking_uri) as ledger:
        from flowledger.questions.certainty import SOURCES
        from flowledger.questions.compare import compare

        found = compare(models, lambda model: scope.only(model=model).over(ledger))
    if as_json:
        print_json({**scope.bounds(), "models": found.models, "differences": found.differences})
        return
    click.echo(f"{scope.words()}\n")
    columns = [Column(""), *(Column(model, right=True) for model in models)]
    print_table(columns, ([name, *map(of, found.models)] for name, of in LINES))
    click.echo("")
    for difference in found.differences:
        print_text(difference.sentence)
    click.echo("")
    print_text(f"The models answered different calls, which may differ, too. {SOURCES}.")


def _measured(value: float | None, form: str) -> str:
    return UNMEASURED if value is None else f"{value:{form}}"


def _rates(interval: "Interval | None") -> str:
    return TOO_FEW if interval is None else f"{interval.low:.2f} to {interval.high:.2f}%"


def _speeds(interval: "Interval | None") -> str:
    if interval is None:
        return TOO_FEW
    return f"{interval.low:,.0f} to {interval.high:,.0f} ms"
