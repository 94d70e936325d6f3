"""Files that a command writes: there when they are whole, and not before."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

__all__ = ["replaced"]


@contextmanager
def replaced(path: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of what was there once all is written."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            yield file
        unfinished.replace(path)
    except OSError as exc:
        raise click.ClickException(f"{path} cannot be written: {exc.strerror or exc}") from exc
    finally:
        unfinished.unlink(missing_ok=True)
