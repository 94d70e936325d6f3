"""`flowledger version`."""

import click

import flowledger


@click.command()
def command() -> None:
    """Print the version."""
    click.echo(flowledger.__version__)
