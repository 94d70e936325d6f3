"""`flowledger server` and `flowledger keys`: one sentence for what is wrong, nothing left over."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from flowledger.cli import main
from flowledger.store.keys import open_keys
from tests.server_client import JSON, Server
from tests.servers import answers_at, free_port
from tests.test_server_auth import ADMIN, METRICS_TOKEN, PASSWORD, basic, bearer

FLOWLEDGER = str(Path(sys.executable).with_name("flowledger"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in, which is also the temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    """A command's exit code and the last line it prints for people."""
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--host", "0.0.0.0"], 2, "add --auth basic, or --allow-unauthenticated"),
        (["--host", "::"], 2, "anybody in reach could read every prompt"),
        (["--host", "example.invalid"], 2, "anybody in reach could read every prompt"),
        (["--host", "example.invalid", "--allow-unauthenticated"], 2, "cannot listen on port"),
        (["--port", "99999"], 2, "99999 is not in the range"),
        (["--workers", "0"], 2, "0 is not in the range"),
        (["--backend-store-uri", "mysql://db/x"], 2, "give sqlite:///file.db or postgresql://"),
        (["--backend-store-uri", "./mlruns"], 2, "give sqlite:///file.db or postgresql://"),
        (["--backend-store-uri", "postgresql://u@h:port/x"], 2, "--backend-store-uri cannot be"),
        (["--backend-store-uri", "sqlite://"], 2, "name a file, as in sqlite:///mlflow.db"),
        (["--backend-store-uri", "sqlite:///no/such.db"], 2, "for the database: make it"),
        (["--artifacts-destination", "no/such/folder"], 2, "for artifacts: make it"),
        (["--backend-store-uri", "postgresql://u:pw@127.0.0.1:9/x"], 3, "does not answer"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence_before_anything_starts(
    place: Path, options: list[str], code: int, said: str
) -> None:
    port = [] if "--port" in options else ["--port", str(free_port())]
    ended, sentence = run("server", *port, *options)
    assert (code, True, False) == (ended, said in sentence, "pw@" in sentence), sentence
    assert [] == list(place.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FLOWLEDGER_SERVER_SINKS", "many", "a FLOWLEDGER_SERVER_... setting has the wrong type"),
        ("FLOWLEDGER_SERVER_BODY_SECONDS", "0", "FLOWLEDGER_SERVER_BODY_SECONDS must be more than"),
        ("FLOWLEDGER_SERVER_AUTH", "none", "'none' is not 'basic'"),
        ("FLOWLEDGER_STORE_AS", "files", "store_as='files': use one of"),
    ],
)
def test_a_setting_that_cannot_be_used_is_told_in_one_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    code, sentence = run("server", "--port", str(free_port()))
    assert (2, True) == (code, said in sentence), sentence


def test_a_port_that_is_taken_is_told_in_one_sentence(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, sentence = run("server", "--port", str(port))
    assert 2 == code
    assert f"cannot listen on port {port} of 127.0.0.1 (Address already in use)" in sentence


def test_a_database_of_another_mlflow_is_told_before_the_server_starts(
    place: Path, empty_sqlite: Path
) -> None:
    import sqlite3

    (place / "mlflow.db").write_bytes(empty_sqlite.read_bytes())
    with sqlite3.connect(place / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '5b0e9adcef9c'")
    database.close()
    code, sentence = run("server", "--port", str(free_port()))
    assert (3, True) == (code, "mlflow db upgrade" in sentence)


@contextmanager
def started(place: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`flowledger server`, once it answers; the caller stops it."""
    port, log = free_port(), place / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [FLOWLEDGER, "server", "--port", str(port), *options], stdout=output, stderr=output
        )
    try:
        prefix = options[-1] if "--static-prefix" in options else ""
        answers_at(f"http://127.0.0.1:{port}{prefix}/health", process, log)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_server_and_leaves_nothing_of_it(
    place: Path, empty_sqlite: Path, how: signal.Signals
) -> None:
    if how == signal.SIGTERM:  # the other server makes its tables itself, which takes seconds
        (place / "mlflow.db").write_bytes(empty_sqlite.read_bytes())
    with started(place, "--workers", "2") as (process, url):
        server = Server(url, f"sqlite:///{place / 'mlflow.db'}", place / "server.log")
        assert 200 == server.post_json({"feature": "f"}).status
        family = psutil.Process(process.pid).children(recursive=True)
        assert 4 <= len(family)  # mlflow, uvicorn and two workers at least
        process.send_signal(how)
        assert 0 == process.wait(60)
        _, alive = psutil.wait_procs(family, timeout=60)
    assert [] == alive
    assert {"mlflow.db", "server.log"} == {found.name for found in place.iterdir()} - ARTIFACTS


ARTIFACTS = {"mlartifacts"}


def test_a_static_prefix_is_put_before_our_routes_too(place: Path, empty_sqlite: Path) -> None:
    (place / "mlflow.db").write_bytes(empty_sqlite.read_bytes())
    with started(place, "--workers", "1", "--", "--static-prefix", "/llm") as (_, url):
        server = Server(url, f"sqlite:///{place / 'mlflow.db'}", place / "server.log")
        assert 200 == server.get("/llm/api/flowledger/v1/health").status
        call = server.ask(
            "POST",
            "/llm/api/flowledger/v1/calls",
            body=b'{"feature": "f"}',
            headers={"Content-Type": JSON},
        )
        assert (200, 404) == (call.status, server.get("/api/flowledger/v1/health").status)
        assert [{"url": "/llm"}] == server.get("/llm/api/openapi.json").json()["servers"]


def test_a_static_prefix_and_a_login_go_together(
    place: Path, empty_sqlite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "mlflow.db").write_bytes(empty_sqlite.read_bytes())
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", PASSWORD)
    monkeypatch.setenv("FLOWLEDGER_SERVER_METRICS_TOKEN", METRICS_TOKEN)
    uri = f"sqlite:///{place / 'mlflow.db'}"
    with (
        started(place, "--workers", "1", "--auth", "basic", "--", "--static-prefix", "/llm") as (
            _,
            url,
        ),
        open_keys(uri, make=False) as keys,
    ):
        server, key = Server(f"{url}/llm", uri, place / "server.log"), bearer(keys.create("web"))
        token = bearer(METRICS_TOKEN)
        statuses = {
            "health": server.get("/api/flowledger/v1/health").status,
            "nobody": server.get("/api/docs").status,
            "a wrong password": server.get("/api/docs", **basic(ADMIN, "wrong")).status,
            "a user": server.get("/api/docs", **basic(ADMIN)).status,
            "the token": server.get("/metrics", **token).status,
            "the token elsewhere": server.get("/api/docs", **token).status,
            "a key": server.post_json({"feature": "f"}, **key).status,
            "a key elsewhere": server.get("/metrics", **key).status,
        }
    assert {
        "health": 200,
        "nobody": 401,
        "a wrong password": 401,
        "a user": 200,
        "the token": 200,
        "the token elsewhere": 401,
        "a key": 200,
        "a key elsewhere": 403,
    } == statuses


def test_a_server_that_ends_by_itself_is_told(place: Path) -> None:
    options = ["--workers", "1", "--port", str(free_port()), "--", "--gunicorn-opts", "-x"]
    code, sentence = run("server", *options)
    assert (3, True) == (code, "the server ended by itself with exit code" in sentence)


def test_keys_are_made_listed_and_revoked(
    place: Path, monkeypatch: pytest.MonkeyPatch, database_uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", database_uri)
    first, second = (keys("create", "app"), keys("create", "other"))
    assert first.startswith("flk_")
    assert first != second
    listed = keys("list")
    assert [] == [secret for secret in (first, second) if secret.rpartition("_")[2] in listed]
    assert ["app", "other"] == [line.split()[0] for line in listed.splitlines()[1:]]
    assert "the key app is revoked" == keys("revoke", "app")
    assert "revoked 20" in keys("list")
    assert keys("create", "app").startswith("flk_")  # its name is free again


def keys(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["keys", *arguments])
    assert 0 == done.exit_code, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["create", "twice"], 2, "a key named twice is in use: revoke it first"),
        (["create", "two words"], 2, "cannot be named 'two words'"),
        (["create", ""], 2, "cannot be named ''"),
        (["revoke", "nobody"], 1, "no key named nobody is in use"),
        (["list", "--backend-store-uri", "sqlite:///no.db"], 1, "there is no database"),
        (["list", "--backend-store-uri", "http://127.0.0.1:1"], 2, "kept in the server's database"),
        (["list", "--backend-store-uri", "postgresql://u:pw@127.0.0.1:9/x"], 3, "does not answer"),
    ],
)
def test_what_keys_cannot_do_is_told_in_one_sentence(
    place: Path,
    sqlite_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", sqlite_uri)
    keys("create", "twice")
    ended, sentence = run("keys", *arguments)
    assert (code, True, False) == (ended, said in sentence, "pw@" in sentence), sentence


def test_nothing_but_click_is_loaded_to_list_the_commands() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from flowledger.cli import main;"
        " CliRunner().invoke(main, ['--help']); print({'sqlalchemy', 'mlflow'} & {*sys.modules})"
    )
    told = subprocess.check_output([sys.executable, "-c", code], text=True, env={**os.environ})
    assert "set()" == told.strip()
