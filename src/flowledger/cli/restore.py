"""`flowledger restore`: a backup into an empty database, and a look at what is in it."""

import sys
from pathlib import Path

import click

from flowledger import config
from flowledger.cli.database import backend_store_uri, needs_server
from flowledger.cli.text import print_json


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@backend_store_uri
def command(file: Path, as_json: bool, uri: str | None) -> None:
    """Put the backup in FILE into a database that holds nothing, and check it.

    Exit code 1 when the sums in it are not those of its calls.

    \b
    Examples:
      flowledger restore monday.backup --backend-store-uri sqlite:///again.db
    """
    with needs_server():
        from flowledger.store.backup import put_back
        from flowledger.store.upkeep import open_upkeep
    uri = config.load(tracking_uri=uri).tracking_uri
    put_back(file, uri)
    with open_upkeep(uri) as upkeep:
        upkeep.forward()
        found = upkeep.contents()
    if as_json:
        print_json({**found._asdict(), "sums_hold": found.sums_hold})
    else:
        hold = "hold" if found.sums_hold else f"say {found.summed:,}, should say {found.to_sum:,}"
        click.echo(f"{found.calls:,} calls and {found.runs:,} runs are back; their sums {hold}")
    sys.exit(0 if found.sums_hold else 1)
