"""`flowledger version`."""

import click

import flowledger
from flowledger.cli.text import print_json


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Print the version."""
    if as_json:
        print_json({"version": flowledger.__version__})
    else:
        click.echo(flowledger.__version__)
