"""The stack of `deploy/compose`, run without containers: the same files, only addresses differ."""

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.server_client import Postgres, Server
from tests.servers import free_port

__all__ = ["Slack", "Stack", "running_stack"]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ENTRYPOINT = DEPLOY / "image" / "entrypoint"
PATIENCE = 180.0
STARTING = 300.0
# A check must not take as long as a night shift may: everything is asked every second.
HASTE = [
    (r"(scrape|evaluation)_interval: \w+", r"\1_interval: 1s"),
    (r"\bfor: \w+", "for: 2s"),
    (r"group_wait: \w+", "group_wait: 1s"),
    (r"group_interval: \w+", "group_interval: 2s"),
]


class Slack:
    """A stand-in for Slack's incoming webhook that keeps what it is sent."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._messages: list[dict[str, Any]] = []
        slack = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                slack._keep(json.loads(body))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/services/T0/B0/x"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def hears(self, title: str) -> dict[str, Any]:
        """Wait for a message with this title, and return it."""
        with self._news:
            if self._news.wait_for(lambda: self._titled(title), PATIENCE):
                return self._titled(title)[0]
        heard = [message["attachments"][0]["title"] for message in self._messages]
        raise AssertionError(f"Slack never heard {title!r}, but {heard}")

    def titles(self) -> list[str]:
        """Every title so far, in order."""
        with self._news:
            return [message["attachments"][0]["title"] for message in self._messages]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def _titled(self, title: str) -> list[dict[str, Any]]:
        return [m for m in self._messages if m["attachments"][0]["title"] == title]

    def _keep(self, message: dict[str, Any]) -> None:
        with self._news:
            self._messages.append(message)
            self._news.notify_all()


class Stack:
    """The running parts.

    Args:
        folder: for what they write; `small` in it is a disk of its own if one can be mounted.
        postgres: the database server.
    """

    def __init__(self, folder: Path, postgres: Postgres, slack: Slack) -> None:
        self.folder = folder
        self.postgres = postgres
        self.slack = slack
        self.server = Server(f"http://127.0.0.1:{free_port()}", postgres.uri, folder / "server.log")
        self.prometheus = f"http://127.0.0.1:{free_port()}"
        self.alertmanager = f"http://127.0.0.1:{free_port()}"
        self.objects = f"http://127.0.0.1:{free_port()}"
        self.secrets = folder / "secrets"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def key(self) -> dict[str, str]:
        """The header of who sends calls with the key that setup.py made."""
        return {"Authorization": f"Bearer {(self.folder / 'keys' / 'aiflow').read_text()}"}

    def start(self, name: str, *command: str, health: str, **environment: str) -> None:
        """Start a process and wait until it answers."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as file:
            self.processes[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **environment},
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._answers(name, health)

    def _answers(self, name: str, health: str) -> None:
        """Wait until a process answers; a busy machine takes minutes to start a server."""
        deadline = time.monotonic() + STARTING
        while time.monotonic() < deadline and self.processes[name].poll() is None:
            with suppress(OSError), urllib.request.urlopen(health, timeout=5):
                return
            time.sleep(0.2)
        raise AssertionError((self.folder / f"{name}.log").read_text()[-3000:])

    def stop(self, name: str) -> None:
        """Stop a process as its administrator would."""
        process = self.processes.pop(name)
        process.terminate()
        process.wait(60)

    def close(self) -> None:
        """Stop all that still runs."""
        for name in list(self.processes):
            self.stop(name)

    def query(self, expression: str, seconds: int = 0) -> list[dict[str, Any]]:
        """What Prometheus answers: now, or over the last so many seconds."""
        values: dict[str, Any] = {"query": expression}
        if seconds:
            now = time.time()
            values |= {"start": now - seconds, "end": now, "step": 1}
        path = "query_range" if seconds else "query"
        asked = f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(values)}"
        with urllib.request.urlopen(asked, timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def until(self, expression: str, holds: Callable[[list[dict[str, Any]]], bool]) -> None:
        """Wait until Prometheus's answer is as wanted."""
        deadline = time.monotonic() + PATIENCE
        while not holds(told := self.query(expression)):
            assert time.monotonic() < deadline, f"{expression} stays {told}"
            time.sleep(0.5)

    def of_server(self) -> dict[str, str]:
        """The environment that compose.yaml gives the server."""
        secret = {
            "MLFLOW_BACKEND_STORE_URI": "database_uri",
            "MLFLOW_AUTH_ADMIN_PASSWORD": "admin_password",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret_key",
            "FLOWLEDGER_SERVER_METRICS_TOKEN": "metrics_token",
            "AWS_ACCESS_KEY_ID": "s3_access_key",
            "AWS_SECRET_ACCESS_KEY": "s3_secret_key",
        }
        return {
            **{f"{name}_FILE": str(self.secrets / file) for name, file in secret.items()},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "TMPDIR": str(self.folder / "small"),
            "FLOWLEDGER_HOME": str(self.folder / "home"),
            "MLFLOW_S3_ENDPOINT_URL": self.objects,
            "AWS_DEFAULT_REGION": "us-east-1",
            "KEYS": str(self.folder / "keys"),
        }

    def configured(self, name: str) -> str:
        """One of the files of deploy/prometheus with the addresses of this machine."""
        text = (DEPLOY / "prometheus" / name).read_text()
        for address, here in {
            "server:5000": self.server.url,
            "alertmanager:9093": self.alertmanager,
        }.items():
            text = text.replace(address, here.removeprefix("http://"))
        text = text.replace("/run/secrets", str(self.secrets))
        for pattern, quick in HASTE:
            text = re.sub(pattern, quick, text)
        path = self.folder / "prometheus" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Everything of compose.yaml but Grafana and the example, set up and answering."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # PostgreSQL's wheel warns without one
    with ExitStack() as stack:
        # Not in the folder: PostgreSQL has a user of its own, who must reach it.
        postgres = Postgres(stack.enter_context(TemporaryDirectory(prefix="flowledger-pg-")))
        stack.callback(postgres.close)
        slack = Slack()
        stack.callback(slack.close)
        found = Stack(folder, postgres, slack)
        stack.callback(found.close)
        stack.enter_context(small_disk(folder / "small"))
        (folder / "keys").mkdir()
        _make_secrets(found)
        found.start(
            "objects",
            str(Path(sys.executable).with_name("moto_server")),
            *("-p", found.objects.rpartition(":")[2]),
            health=f"{found.objects}/moto-api/",
        )
        start_server(found)
        command = [str(ENTRYPOINT), sys.executable, str(DEPLOY / "compose" / "setup.py")]
        for _ in range(2):  # the second time it changes nothing
            subprocess.run(command, check=True, env={**os.environ, **found.of_server()})
        _start_monitoring(found)
        yield found


def start_server(stack: Stack) -> None:
    """The command of the compose file's server, through the image's entrypoint."""
    stack.start(
        "server",
        *(str(ENTRYPOINT), "flowledger", "server", "--auth", "basic"),
        *("--artifacts-destination", "s3://flowledger"),
        *("--port", stack.server.url.rpartition(":")[2]),
        health=f"{stack.server.url}/health",
        **stack.of_server(),
    )


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of 64 MB, where this user may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _make_secrets(stack: Stack) -> None:
    """Those of secrets.sh, with the addresses of this machine."""
    copy = stack.folder / "secrets.sh"
    copy.write_text((DEPLOY / "compose" / "secrets.sh").read_text())
    subprocess.run(["sh", str(copy)], check=True, stdout=subprocess.DEVNULL)
    for name, text in {
        "database_uri": stack.postgres.uri,
        "slack_webhook_url": stack.slack.url,
    }.items():
        path = stack.secrets / name
        path.chmod(0o600)
        path.write_text(text)


def _start_monitoring(stack: Stack) -> None:
    configured: Mapping[str, str] = {
        name: stack.configured(name)
        for name in ("limits.yml", "rules.yml", "prometheus.yml", "alertmanager.yml")
    }
    stack.start(
        "alertmanager",
        "prometheus-alertmanager",
        f"--config.file={configured['alertmanager.yml']}",
        f"--storage.path={stack.folder / 'alertmanager'}",
        f"--web.listen-address={stack.alertmanager.removeprefix('http://')}",
        "--cluster.listen-address=",
        health=f"{stack.alertmanager}/-/ready",
    )
    stack.start(
        "prometheus",
        "prometheus",
        f"--config.file={configured['prometheus.yml']}",
        f"--storage.tsdb.path={stack.folder / 'tsdb'}",
        f"--web.listen-address={stack.prometheus.removeprefix('http://')}",
        health=f"{stack.prometheus}/-/ready",
    )
