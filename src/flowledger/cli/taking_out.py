"""What `flowledger erase` and `flowledger purge` share: who, whether, and what came of it."""

import getpass
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from flowledger.cli.text import on_terminal, print_json, printable
from flowledger.errors import StoreMisconfigured

if TYPE_CHECKING:
    from flowledger.audit.erasure import Erasure

Function = Callable[..., Any]

__all__ = ["asked", "confirm", "need_packages", "os_user", "progress", "tell"]


def asked(reason: str) -> Callable[[Function], Function]:
    """Give a command the options of whatever takes something out.

    Args:
        reason: why, unless somebody says.
    """
    options = (
        click.option("--by", help="Who does it; default: the user of this system."),
        click.option("--reason", default=reason, show_default=True, help="Why."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Say how much there is, and change nothing."),
        click.option(
            "--no-vacuum", is_flag=True, help="Leave freed pages as they are, until later."
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    )

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def need_packages() -> None:
    """Say what to install where the packages to write a database are missing."""
    try:
        import sqlalchemy  # noqa: F401
    except ImportError as exc:
        raise StoreMisconfigured(
            f"{exc.name} is not installed: pip install 'flowledger[server]'"
        ) from exc


def os_user() -> str:
    """Who runs this command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in a container
        return str(os.getuid())


def confirm(what: str, *, yes: bool) -> None:
    """Ask whether to go on; without a terminal only --yes does.

    Raises:
        click.UsageError: there is nobody to ask.
        click.Abort: the answer is no.
    """
    if yes:
        return
    if not os.isatty(0):
        raise click.UsageError(f"{what}: this cannot be undone; say --yes to do it")
    click.confirm(f"{what}. This cannot be undone. Go on?", abort=True)


def progress(done: int) -> None:
    """Tell how far it is, on a terminal."""
    if on_terminal():
        click.echo(f"\r{done:,} records", nl=False, err=True)


def tell(done: "Erasure", as_json: bool, **beside: int) -> None:
    """Say what was taken out, and what is left to do by hand.

    Args:
        done: of the database and its artifacts.
        as_json: as one object, for programs.
        beside: how many `turns` of chats and `rejected` records went, and what else is counted.
    """
    if as_json:
        print_json({**msgspec.structs.asdict(done), **beside})
        return
    for line in _told(done):
        click.echo(line)
    turns, rejected = beside["turns"], beside["rejected"]
    click.echo(f"{turns:,} chat turns and {rejected:,} rejected records are deleted")


def _told(done: "Erasure") -> Iterator[str]:
    yield f"taken out of {done.calls:,} calls and {done.jobs:,} jobs, {done.artifacts:,} folders"
    yield f"proof: erasure {done.id} in the chain; `flowledger evidence verify` shows it"
    for root, why in done.unreached.items():
        yield printable(f"NOT reached, delete the artifacts there by hand: {root}: {why}")
    for name in done.named_after:
        yield printable(
            f"NOT renamed: experiment {name!r} is named after the user; do so in MLflow"
        )
    if not done.vacuumed:
        yield "freed pages of the database still hold the texts until it is vacuumed"
