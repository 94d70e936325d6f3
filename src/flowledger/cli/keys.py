"""`flowledger keys`: who may send calls to a server without being one of MLflow's users."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from flowledger import config
from flowledger.cli.database import backend_store_uri, needs_server
from flowledger.cli.text import Column, moment, print_json, print_table

if TYPE_CHECKING:
    from flowledger.store.keys import Keys

COLUMNS = (Column("name"), Column("id"), Column("made (UTC)"), Column("state"))


@click.group()
def command() -> None:
    """Make, list and revoke keys for sending calls to a server.

    A key lets an application send calls, and nothing else. It is set there as FLOWLEDGER_TOKEN.

    \b
    Examples:
      flowledger keys create checkout-service
      flowledger keys list
      flowledger keys revoke checkout-service
      flowledger keys signing
    """


@command.command("create")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@backend_store_uri
def create(name: str, as_json: bool, uri: str | None) -> None:
    """Make a key called NAME and print its token, this once."""
    with _keys(uri, make=True) as keys:
        token = keys.create(name)
    if as_json:
        print_json({"name": name, "token": token})
    else:
        click.echo(token)
    click.echo(
        "This is shown once. Set it as FLOWLEDGER_TOKEN where the application runs.", err=True
    )


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@backend_store_uri
def list_(as_json: bool, uri: str | None) -> None:
    """List every key there is and was; tokens are not kept, so none is shown."""
    with _keys(uri, make=False) as keys:
        found = keys.all()
    if as_json:
        print_json(found)
    elif not found:
        click.echo("there are no keys: `flowledger keys create NAME` makes one")
    else:
        print_table(
            COLUMNS,
            ([key.name, key.id, moment(key.created_ms), _state(key.revoked_ms)] for key in found),
        )


@command.command("revoke")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@backend_store_uri
def revoke(name: str, as_json: bool, uri: str | None) -> None:
    """Take the key called NAME back: the next request with it is refused."""
    with _keys(uri, make=False) as keys:
        keys.revoke(name)
    if as_json:
        print_json({"revoked": name})
    else:
        click.echo(f"the key {name} is revoked")


@command.command("signing")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def signing(as_json: bool) -> None:
    """Make the key that signs exported evidence, unless there is one, and print its public half.

    The private half is a file in FLOWLEDGER_HOME that only you can read, or what
    FLOWLEDGER_SIGNING_KEY names. Give the public half to whoever checks what you export.
    """
    with needs_server():
        from flowledger.audit.signing import key_path, load_key, make_key, public_text
    path = key_path(config.load())
    made = not path.exists()
    public = public_text(make_key(path) if made else load_key(path))
    if as_json:
        print_json({"public_key": public, "file": str(path), "made": made})
        return
    click.echo(public)
    click.echo(f"The private half {'is now' if made else 'is'} in {path}.", err=True)


def _state(revoked_ms: int | None) -> str:
    return "in use" if revoked_ms is None else f"revoked {moment(revoked_ms)}"


@contextmanager
def _keys(uri: str | None, *, make: bool) -> "Iterator[Keys]":
    with needs_server():
        from flowledger.store.keys import open_keys
    with open_keys(config.load(tracking_uri=uri).tracking_uri, make=make) as keys:
        yield keys
