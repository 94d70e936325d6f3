"""`flowledger report`: a window as a document, with charts."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowledger import config
from flowledger.cli.files import replaced
from flowledger.cli.reading import open_ledger
from flowledger.cli.scope import Scope, windowed
from flowledger.cli.text import json_text

if TYPE_CHECKING:
    from flowledger.cli.reporting.document import Document

SUFFIXES = {"html": "html", "htm": "html", "pdf": "pdf", "md": "md", "json": "json"}


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "pdf", "md", "json"]),
    help="Without it, what the name of --output ends with, else md.",
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; without it, standard output.",
)
@windowed(days=30)
def command(form: str | None, output: Path | None, scope: Scope) -> None:
    """Write a report over a window: numbers, tables and charts.

    html is one file that needs nothing else, pdf is for print, and json has what the API answers
    at /api/analytics/mlflow/report. md with --output has its charts in SVG files beside it, and
    tables alone without.

    \b
    Examples:
      flowledger report --days 30 --format html --output november.html
      flowledger report --feature support -o support.pdf
      flowledger report --days 7
    """
    form = form or _named_by(output)
    if output is None and form == "pdf" and sys.stdout.isatty():
        raise click.UsageError("pdf is not for a terminal: give --output FILE")
    with open_ledger(config.load().tracking_uri) as ledger:
        from flowledger.cli.reporting.document import compose

        document = compose(scope.over(ledger), scope)
    if output is None:
        sys.stdout.buffer.write(_written(document, scope, form, None))
        return
    files = {output: _written(document, scope, form, output.stem)}
    if form == "md":
        from flowledger.cli.reporting.markdown import pictures

        images = pictures(document, output.stem)
        files = {**{output.with_name(name): svg for name, svg in images.items()}, **files}
    for path, content in files.items():
        with replaced(path) as file:
            file.write(content)
    click.echo(f"wrote {', '.join(map(str, reversed(files)))}", err=True)


def _named_by(output: Path | None) -> str:
    suffix = "" if output is None else output.suffix.removeprefix(".").lower()
    return SUFFIXES.get(suffix, "md")


def _written(document: "Document", scope: Scope, form: str, stem: str | None) -> bytes:
    """The report in one form."""
    if form == "html":
        from flowledger.cli.reporting.page import as_html

        return as_html(document)
    if form == "pdf":
        from flowledger.cli.reporting.paper import as_pdf

        return as_pdf(document)
    if form == "json":
        about = {**scope.bounds(), "filters": scope.filters}
        return json_text({**about, **document.numbers.model_dump()}).encode() + b"\n"
    from flowledger.cli.reporting.markdown import as_markdown

    return as_markdown(document, stem)
