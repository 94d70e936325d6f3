"""gunicorn and Celery with the settings that docs/operating.md prints lose no call."""

import os
import re
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.faults.processes import Host, Ledger, eventually, slow, until
from tests.faults.test_forks import connects, get
from tests.servers import free_port

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"

TASKS = '''
import os, signal, time
from pathlib import Path

import flowledger

folder = Path(__file__).parent
for name in ("queue", "control"):
    (folder / name).mkdir(exist_ok=True)
app.conf.update(  # another broker, and nothing else
    broker_url="filesystem://",
    broker_transport_options={
        "data_folder_in": str(folder / "queue"),
        "data_folder_out": str(folder / "queue"),
        "control_folder": str(folder / "control"),
    },
)


@app.task
def ask(number):
    """A call, a time in which anything may happen, and another call."""
    flowledger.record(feature="shop", operation=f"begun {number}")
    (folder / f"begun-{number}").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)
    flowledger.record(feature="shop", operation=f"ended {number}")
'''
SEND = "import shop\nfor number in range({count}):\n    shop.ask.delay(number)\n"
WORKER = ("-m", "celery", "--app", "shop", "worker", "--concurrency", "2", "--loglevel", "WARNING")


def printed(language: str, begins: str) -> str:
    """The one block of the page that begins like that."""
    [block] = re.findall(rf"```{language}\n({begins}.*?)```", PAGE.read_text(), re.DOTALL)
    return str(block)


def test_gunicorn_with_the_printed_settings_records_every_request(
    host: Host, sqlite_uri: str, tmp_path: Path
) -> None:
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(printed("python", "# gunicorn.conf.py\n"))
    port = free_port()
    options = ("--config", str(config), "--bind", f"127.0.0.1:{port}")
    with host.running("-m", "gunicorn", "web:application", *options, uri=sqlite_uri):
        until(lambda: connects(port), "gunicorn listens")
        answers = [get(port, number) for number in range(20)]
        [killed, *_] = children(host, "gunicorn")
        killed.kill()
        until(lambda: not killed.is_running(), "the worker is gone")
        answers += [get(port, number) for number in range(20, 40)]
    assert [f"You asked for /{number}\n" for number in range(40)] == answers
    Ledger(sqlite_uri).wait_for_once(41, host)


def children(host: Host, word: str) -> list[psutil.Process]:
    """The processes that a server of this host forked."""
    found = [p for p in host.processes() if word in " ".join(p.cmdline())]
    parents = {process.ppid() for process in found}
    return [p for p in found if p.pid not in parents and p.ppid() in {one.pid for one in found}]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a Celery application of the printed settings."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.py").write_text(printed("python", "from celery import Celery") + TASKS)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def operations(ledger: Ledger) -> Counter[str]:
    return Counter(row[0] for row in ledger.rows("SELECT operation FROM llm_calls"))


def test_a_warm_shutdown_of_celery_ends_what_was_begun_and_loses_no_call(
    host: Host, sqlite_uri: str, shop: Path
) -> None:
    count = 6
    host.run("-c", SEND.format(count=count), uri=sqlite_uri)
    with host.running(*WORKER, uri=sqlite_uri):
        until(lambda: len(list(shop.glob("begun-*"))) == 2, "two tasks run")
        main = children(host, "celery")[0].parent()
        assert main is not None
        main.terminate()
        (shop / "go").touch()
        main.wait(60)
    with host.running(*WORKER, uri=sqlite_uri):
        ledger = Ledger(sqlite_uri)
        wanted = Counter(f"{what} {n}" for what in ("begun", "ended") for n in range(count))
        eventually(wanted, lambda: operations(ledger))
    ledger.wait_for_once(2 * count, host)


@slow
def test_a_killed_child_of_celery_loses_no_call_and_its_task_runs_again(
    host: Host, sqlite_uri: str, shop: Path
) -> None:
    host.run("-c", SEND.format(count=2), uri=sqlite_uri)
    with host.running(*WORKER, uri=sqlite_uri):
        until(lambda: len(list(shop.glob("begun-*"))) == 2, "both tasks run")
        (shop / "begun-0").unlink()
        (shop / "begun-1").unlink()
        os.kill(children(host, "celery")[0].pid, signal.SIGKILL)
        until(lambda: list(shop.glob("begun-*")), "the task runs again")
        (shop / "go").touch()
        ledger = Ledger(sqlite_uri)
        eventually(2, lambda: sum(n for what, n in operations(ledger).items() if "ended" in what))
    ledger.wait_for_once(5, host)
    counts = sorted(operations(ledger).items())
    assert [1, 2] == sorted(count for what, count in counts if what.startswith("begun"))
    assert [1, 1] == [count for what, count in counts if what.startswith("ended")]
    tags = "SELECT count(DISTINCT value) FROM llm_tags WHERE key = 'celery_task_id'"
    assert [(2,)] == ledger.rows(tags)
