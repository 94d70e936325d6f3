"""`flowledger backup`: a database as one file."""

from pathlib import Path

import click

from flowledger import config
from flowledger.cli.database import backend_store_uri, needs_server


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@backend_store_uri
def command(file: Path, uri: str | None) -> None:
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
    click.echo(f"{file} holds {file.stat().st_size:,} bytes")
