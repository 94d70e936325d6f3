"""A database as one file and back: SQLite's online backup, PostgreSQL's own `pg_dump`.

The file holds MLflow's tables and ours as they were at one moment, while others go on writing. It
does not hold artifacts: those are in their own folder or bucket.
"""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from flowledger.errors import ConfigError, NotFound, StoreMisconfigured, StoreUnavailable
from flowledger.store.connections import USUAL
from flowledger.store.writers import answering

__all__ = ["back_up", "put_back"]

SQLITE, POSTGRESQL = b"SQLite format 3\0", b"PGDMP"
KINDS = {"sqlite": SQLITE, "postgresql": POSTGRESQL}
PAGES_AT_ONCE = 4_096


def back_up(uri: str, file: Path) -> None:
    """Copy a database into a file that only its owner can read.

    Args:
        uri: of the database.
        file: which must not be there yet.

    Raises:
        ConfigError: the file is there, or the URI names no database.
        NotFound: there is no such SQLite file.
        StoreUnavailable: the database does not answer.
        StoreMisconfigured: `pg_dump` is missing, or older than the server.
    """
    kind = _kind(uri)
    with _new_file(file) as unnamed:
        if kind == "sqlite":
            _copy_sqlite(_existing(_path(uri)), unnamed)
        else:
            options = ("--format=custom", "--no-owner", "--no-privileges", f"--file={unnamed}")
            _run_tool("pg_dump", uri, *options)


def put_back(file: Path, uri: str) -> None:
    """Make a database from a backup; one that holds something is left alone.

    Args:
        file: made by `back_up`.
        uri: of a SQLite file that is not there, or of an empty PostgreSQL database.

    Raises:
        ConfigError: the database is not empty, or the file is of another kind.
        NotFound: there is no such file.
        StoreUnavailable: the database does not answer; it holds nothing of the backup.
        StoreMisconfigured: `pg_restore` is missing, or older than the backup.
    """
    kind = _kind(uri)
    with _existing(file).open("rb") as opened:
        if not opened.read(16).startswith(KINDS[kind]):
            raise ConfigError(f"{file} is no backup of a {kind} database: give another file")
    if kind == "sqlite":
        with _new_file(_path(uri)) as unnamed:
            _copy_sqlite(file, unnamed)
            _check_pages(unnamed, file)
    else:
        _check_empty(uri)
        options = ("--exit-on-error", "--single-transaction", "--no-owner", "--no-privileges")
        _run_tool("pg_restore", uri, *options, str(file))


def _kind(uri: str) -> str:
    kind = uri.partition(":")[0].partition("+")[0]
    if kind not in KINDS:
        raise ConfigError(
            "a backup is of a database: give its sqlite:/// or postgresql:// address with "
            "--backend-store-uri"
        )
    return kind


def _path(uri: str) -> Path:
    return Path(sa.make_url(uri).database or ":memory:")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise NotFound(f"there is no file {path}")
    return path


@contextmanager
def _new_file(file: Path) -> Iterator[Path]:
    """A file beside it that takes its name when the block is done, and is gone otherwise."""
    if file.exists():
        raise ConfigError(f"{file} is there already: name a file that is not")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {file.absolute().parent}: make it, or name another")
    unnamed = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        unnamed.touch(mode=0o600)
        yield unnamed
        with unnamed.open("rb") as written:
            os.fsync(written.fileno())
        unnamed.rename(file)
    except OSError as exc:
        raise ConfigError(f"{file} cannot be written: {exc.strerror or exc}") from exc
    finally:
        unnamed.unlink(missing_ok=True)


def _copy_sqlite(source: Path, target: Path) -> None:
    """Some pages at a time, so that whoever writes waits for none of it."""
    address = f"{source.absolute().as_uri()}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(address, uri=True, timeout=USUAL.statement)) as opened,
            closing(sqlite3.connect(target)) as copy,
        ):
            opened.backup(copy, pages=PAGES_AT_ONCE)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    except sqlite3.Error as exc:
        raise StoreUnavailable(f"{source} cannot be copied: {exc}") from exc


def _check_pages(copy: Path, file: Path) -> None:
    with closing(sqlite3.connect(copy)) as opened:
        [(said,)] = opened.execute("PRAGMA integrity_check(1)")
    if said != "ok":
        raise ConfigError(f"{file} is damaged ({said}): take another backup")


def _check_empty(uri: str) -> None:
    engine = sa.create_engine(uri, poolclass=sa.pool.NullPool)
    with answering():
        tables = sa.inspect(engine).get_table_names()
    if tables:
        raise ConfigError(
            f"the database holds {len(tables)} tables already: restore into an empty one"
        )


def _run_tool(tool: str, uri: str, *options: str) -> None:
    """Run one of PostgreSQL's own; a password goes by the environment, which others cannot see."""
    if shutil.which(tool) is None:
        raise StoreMisconfigured(f"{tool} is not installed: apt-get install postgresql-client")
    url = sa.make_url(uri)
    environment = {**os.environ, "PGCONNECT_TIMEOUT": str(round(USUAL.connect))}
    if url.password:
        environment["PGPASSWORD"] = url.password
    done = subprocess.run(
        [tool, f"--dbname={_conninfo(url)}", *options],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.split())[:500]
        if "version" in said:
            raise StoreMisconfigured(f"{said}: put the {tool} of the server's version into PATH")
        raise StoreUnavailable(f"{tool} failed: {said}")


def _conninfo(url: sa.URL) -> str:
    from psycopg.conninfo import make_conninfo

    parts: dict[str, Any] = url.translate_connect_args(username="user", database="dbname")
    parts.pop("password", None)
    return make_conninfo("", **{**parts, **url.query})
