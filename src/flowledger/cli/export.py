"""`flowledger export`: calls as JSON lines, CSV or Parquet."""

import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from flowledger import config
from flowledger.cli.files import replaced
from flowledger.cli.reading import open_ledger
from flowledger.cli.scope import Scope, windowed
from flowledger.cli.text import number

FORMATS = ("jsonl", "csv", "parquet")
PROGRESS_SECONDS = 0.5


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Without it, what the name of --output ends with, else jsonl.",
)
@click.option("--json", "form", flag_value="jsonl", help="The same as --format jsonl.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; without it, standard output.",
)
@click.option("--content", is_flag=True, help="With prompts, responses, tool calls and stacks.")
@click.option(
    "--search",
    "text",
    metavar="TEXT",
    help="Only calls with this text in a prompt, a response, a name or an error.",
)
@windowed(days=None)
def command(
    form: str | None, output: Path | None, content: bool, text: str | None, scope: Scope
) -> None:
    """Export every call of a window, one row each, in the order in which they began.

    The columns are the same in every format, listed in docs/cli.md. Calls that only group others
    (`inner_calls` above 0) are rows, too, and are in no sum. Rows are as they were when the export
    began, and are streamed: it does not matter how many there are. A file is there when it is
    whole.

    \b
    Examples:
      flowledger export --output calls.parquet
      flowledger export --format csv --days 7 --feature support > support.csv
      flowledger export --search "refund" --format csv -o refunds.csv
      flowledger export --from 2026-11-01 --to 2026-11-30 --content -o november.jsonl
    """
    form = form or _named_by(output)
    if output is None and form == "parquet" and sys.stdout.isatty():
        raise click.UsageError("parquet is not for a terminal: give --output FILE")
    with open_ledger(config.load().tracking_uri) as ledger:
        from flowledger.questions import export

        over = scope.over(ledger)
        columns = export.columns(content=content)
        rows = export.values(over, content=content, text=text)
        watched = sys.stderr.isatty() and (output is not None or not sys.stdout.isatty())
        total = over.count() if watched and text is None else None
        with nullcontext(sys.stdout.buffer) if output is None else replaced(output) as file:
            writer = export.FORMATS[form](file, columns)
            count = _write(writer, rows, total)
            writer.close()
    where = "" if output is None else f" to {output}"
    click.echo(f"exported {number(count)} calls{where}", err=True)


def _named_by(output: Path | None) -> str:
    suffix = "" if output is None else output.suffix.removeprefix(".")
    return suffix if suffix in FORMATS else "jsonl"


def _write(writer: Any, rows: Iterable[tuple[Any, ...]], total: int | None) -> int:
    """Write every row and say how far it is; how many there were."""
    count, told = 0, time.monotonic()
    for row in rows:
        writer.write(row)
        count += 1
        if total is not None and time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            click.echo(f"\r{number(count)} of {number(total)} calls", nl=False, err=True)
    if total is not None:
        click.echo("\r\x1b[K", nl=False, err=True)
    return count
