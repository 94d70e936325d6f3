"""`flowledger keys`: who may send calls to a server without being one of MLflow's users."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from flowledger import config
from flowledger.cli.text import Column, moment, print_json, print_table
from flowledger.errors import StoreMisconfigured

if TYPE_CHECKING:
    from flowledger.store.keys import Keys

COLUMNS = (Column("name"), Column("id"), Column("made (UTC)"), Column("state"))


def _of_database(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--backend-store-uri",
        envvar="MLFLOW_BACKEND_STORE_URI",
        metavar="URI",
        help="The server's database; without it, what FLOWLEDGER_TRACKING_URI names.",
    )(command)


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
@_of_database
def create(name: str, as_json: bool, backend_store_uri: str | None) -> None:
    """Make a key called NAME and print its token, this once."""
    with _keys(backend_store_uri, make=True) as keys:
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
@_of_database
def list_(as_json: bool, backend_store_uri: str | None) -> None:
    """List every key there is and was; tokens are not kept, so none is shown."""
    with _keys(backend_store_uri, make=False) as keys:
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
@_of_database
def revoke(name: str, backend_store_uri: str | None) -> None:
    """Take the key called NAME back: the next request with it is refused."""
    with _keys(backend_store_uri, make=False) as keys:
        keys.revoke(name)
    click.echo(f"the key {name} is revoked")


@command.command("signing")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def signing(as_json: bool) -> None:
    """Make the key that signs exported evidence, unless there is one, and print its public half.

    The private half is a file in FLOWLEDGER_HOME that only you can read, or what
    FLOWLEDGER_SIGNING_KEY names. Give the public half to whoever checks what you export.
    """
    try:
        from flowledger.audit.signing import key_path, load_key, make_key, public_text
    except ImportError as exc:
        raise StoreMisconfigured(
            f"{exc.name} is not installed: pip install 'flowledger[server]'"
        ) from exc
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
def _keys(backend_store_uri: str | None, *, make: bool) -> "Iterator[Keys]":
    try:
        from flowledger.store.keys import open_keys
    except ImportError as exc:
        raise StoreMisconfigured(
            f"{exc.name} is not installed: pip install 'flowledger[server]'"
        ) from exc
    uri = config.load(tracking_uri=backend_store_uri).tracking_uri
    with open_keys(uri, make=make) as keys:
        yield keys
