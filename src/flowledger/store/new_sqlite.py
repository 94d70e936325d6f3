"""Making a new SQLite database whole: complete under its name, or not there at all."""

import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from flowledger.journal import sync_folder

__all__ = ["make_database"]

# What SQLite keeps next to a database file.
COMPANIONS = ("-journal", "-wal", "-shm")


def make_database(uri: str, make_tables: Callable[[str], None]) -> None:
    """Make a SQLite database where there is none; one that has tables is left as it is.

    MLflow's migrations on SQLite are many transactions, so a kill or a full disk between two of
    them leaves a file that no later start can use. They run in a temporary file in the same folder,
    which gets its name when it is complete. The file is readable by its owner alone.

    Args:
        uri: of the database; anything but a SQLite file is left alone.
        make_tables: makes the tables in the database with the URI it is given.
    """
    url = sa.make_url(uri)
    name = url.database or ":memory:"
    if url.get_backend_name() != "sqlite" or name == ":memory:" or name.startswith("file:"):
        return
    path = Path(name).resolve()
    if not _is_empty(path) and not _leftovers(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent) as alone:
        if alone:
            for leftover in _leftovers(path):
                leftover.unlink(missing_ok=True)
        if _is_empty(path):
            _make(path, lambda new: make_tables(url.set(database=str(new)).render_as_string()))


def _make(path: Path, make_tables: Callable[[Path], None]) -> None:
    descriptor, name = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)  # mode 0600
    os.close(descriptor)
    new = Path(name)
    try:
        make_tables(new)
        _name(new, path)
    finally:
        for file in (new, *(Path(f"{new}{end}") for end in COMPANIONS)):
            file.unlink(missing_ok=True)


def _name(new: Path, path: Path) -> None:
    """Give a complete database its name, unless somebody else made one meanwhile."""
    try:
        if not path.exists():
            # Left by a database that was deleted: SQLite would apply them to this one.
            for end in COMPANIONS:
                Path(f"{path}{end}").unlink(missing_ok=True)
        os.link(new, path)
    except OSError:
        # The file is there and empty, or the file system has no hard links: all pages in one
        # transaction, which SQLite rolls back after a kill.
        if _is_empty(path):
            with closing(sqlite3.connect(new)) as source, closing(_private(path)) as target:
                source.backup(target)
    sync_folder(path.parent)


def _private(path: Path) -> sqlite3.Connection:
    """A connection to a database file, which is made readable by its owner alone."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return sqlite3.connect(path)


def _is_empty(path: Path) -> bool:
    """Whether there is no such file, or one without any table."""
    if not path.exists():
        return True
    try:
        with closing(sqlite3.connect(path)) as database:  # what a kill broke off is rolled back
            return database.execute("SELECT 1 FROM sqlite_master").fetchone() is None
    except sqlite3.Error:
        return False  # whoever opens it next says what is wrong with it


def _leftovers(path: Path) -> list[Path]:
    """Temporary files of makers, most of whom were killed."""
    prefix = _prefix(path)
    with suppress(OSError):
        return [one for one in path.parent.iterdir() if one.name.startswith(prefix)]
    return []


def _prefix(path: Path) -> str:
    return f".{path.name}.new-"


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """The lock of everybody who makes a database in a folder; False where there are no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)
