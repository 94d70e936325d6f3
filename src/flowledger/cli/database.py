"""What commands about the server's database share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from flowledger.errors import StoreMisconfigured

__all__ = ["backend_store_uri", "needs_server"]


def backend_store_uri(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option that names the database, as the argument `uri`."""
    return click.option(
        "--backend-store-uri",
        "uri",
        envvar="MLFLOW_BACKEND_STORE_URI",
        metavar="URI",
        help="The server's database; without it, what FLOWLEDGER_TRACKING_URI names.",
    )(command)


@contextmanager
def needs_server() -> Iterator[None]:
    """Say what to install where an import in the block fails.

    Raises:
        StoreMisconfigured: a package is missing.
    """
    try:
        yield
    except ImportError as exc:
        raise StoreMisconfigured(
            f"{exc.name} is not installed: pip install 'flowledger[server]'"
        ) from exc
