"""`flowledger backup`: a database as one file."""

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
    """Copy a database to FILE as it is at one moment, while it is in use.

    SQLite is copied by its online backup, PostgreSQL by `pg_dump`. Artifacts are not in the
    database: copy their folder, or keep versions in their bucket.

    \b
    Examples:
      flowledger backup monday.backup
      flowledger restore monday.backup --backend-store-uri sqlite:///again.db
    """
    with needs_server():
        from flowledger.store.backup import back_up
    back_up(config.load(tracking_uri=uri).tracking_uri, file)
    size = file.stat().st_size
    if as_json:
        print_json({"file": str(file), "bytes": size})
    else:
        click.echo(f"{file} holds {size:,} bytes")
