"""`flowledger replay FILE`: a whole trace of arrivals through a real client."""

import sys
from pathlib import Path

import click

from flowledger.cli.playback.arrivals import check
from flowledger.cli.playback.performance import Plan, perform


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@click.option(
    "--speed",
    type=click.FloatRange(min=0),
    default=25.0,
    show_default=True,
    help="How many times faster than the trace; 0 is as fast as answers come.",
)
@click.option("--limit", type=click.IntRange(1), help="Play only so many arrivals.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    help="How many calls may be under way at once.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(file: Path, speed: float, limit: int | None, concurrency: int, as_json: bool) -> None:
    """Replay a trace of LLM arrivals through the real openai client and a stub server.

    FILE is a CSV with the columns TIMESTAMP, ContextTokens and GeneratedTokens, as in the Azure LLM
    inference traces (https://github.com/Azure/AzurePublicDataset, CC-BY 4.0). Each line becomes one
    recorded call at its time, divided by the speed. Prompts are cut at 1,500 tokens. Everything
    else is as in `flowledger demo`, its database included; no key is ever used.

    \b
    Examples:
      flowledger replay AzureLLMInferenceTrace_conv.csv --limit 1000
      flowledger replay AzureLLMInferenceTrace_conv.csv --speed 0 --concurrency 32
    """
    total = check(file, limit)
    counted = "requests" if total is None else f"{total:,} requests"
    plan = Plan(
        path=file,
        trace=f"{counted} of {file.name}",
        total=total,
        limit=limit,
        speed=speed,
        concurrency=concurrency,
        model=None,
        as_json=as_json,
    )
    sys.exit(perform(plan))
