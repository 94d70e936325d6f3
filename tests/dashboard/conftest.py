"""Real servers over filled ledgers, and a real Chromium in front of one."""

import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import urllib3
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, Error, Page, Playwright, expect, sync_playwright

from flowledger import config, dashboard
from flowledger.questions import Ledger
from flowledger.records import Call
from flowledger.server.analytics.asking import LocalAsker
from tests.conftest import postgres_database
from tests.dashboard.filled import fill
from tests.needs import cannot_run
from tests.server_client import Server, running

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    " --disable-background-networking --disable-component-update"
)
MISSING = "no Chromium is here: run `make browser`"
NOT_DRAWN = "[data-chart]:not([data-theme])"

DRAWN_MS = 20_000

Open = Callable[..., Page]


class Filled:
    """A server over calls that are known.

    Args:
        server: it.
        calls: what is stored, odd ones included.
    """

    def __init__(self, server: Server, calls: list[Call]) -> None:
        self.server = server
        self.calls = calls
        self.url = f"{server.url}/ledger"

    def ledger(self) -> Ledger:
        """The questions, asked beside the pages."""
        return Ledger(self.server.uri)


@pytest.fixture(scope="session")
def filled(empty_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """A flowledger server with one worker, as `flowledger server` starts it."""
    folder = tmp_path_factory.mktemp("dashboard")
    path = folder / "mlflow.db"
    shutil.copy(empty_sqlite, path)
    calls = fill(f"sqlite:///{path}")
    with running(f"sqlite:///{path}", folder, workers=1) as server:
        yield Filled(server, calls)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The Chromium that is installed, else Playwright's own."""
    with sync_playwright() as playwright:
        browser = _launched(playwright)
        yield browser
        browser.close()


def _launched(playwright: Playwright) -> Browser:
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    try:
        return playwright.chromium.launch(executable_path=found, args=FLAGS.split())
    except Error as exc:
        cannot_run(f"{MISSING}: {exc}")


@pytest.fixture
def look(filled: Filled, chromium: Browser) -> Iterator[Open]:
    """Opens pages; whatever a browser complains of makes the test fail."""
    complaints: list[str] = []
    contexts = []

    def opened(path: str = "", dark: bool = False, width: int = 1360, height: int = 900) -> Page:
        context = chromium.new_context(
            color_scheme="dark" if dark else "light", viewport={"width": width, "height": height}
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: _note(complaints, said.type, said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: _failed(complaints, request.url, request.failure))
        page.on(
            "response",
            lambda got: complaints.append(f"{got.status} {got.url}") if got.status >= 400 else None,
        )
        page.goto(f"{filled.url}{path}")
        expect(page.locator(NOT_DRAWN)).to_have_count(0, timeout=DRAWN_MS)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert [] == complaints


def _note(complaints: list[str], kind: str, text: str) -> None:
    if kind in ("error", "warning"):
        complaints.append(text)


def _failed(complaints: list[str], url: str, why: str | None) -> None:
    if why != "net::ERR_ABORTED":  # the page was left, or a download began
        complaints.append(f"{url}: {why}")


@contextmanager
def served(uri: str, asker: object | None = None) -> Iterator[str]:
    """The dashboard alone, in an app of one's own, over a database; yields its address."""
    app = FastAPI()
    app.include_router(dashboard.router(asker or LocalAsker(config.load(tracking_uri=uri))))  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.01)
    assert server.started, sys.exc_info()
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/ledger"
    server.should_exit = True
    thread.join(10)


class Site:
    """A dashboard over calls that are known, asked over HTTP."""

    def __init__(self, url: str, uri: str, calls: list[Call]) -> None:
        self.url = url
        self.uri = uri
        self.calls = calls
        self._pool = urllib3.PoolManager(retries=False, timeout=60)

    def get(self, path: str = "", **headers: str) -> urllib3.BaseHTTPResponse:
        return self._pool.request("GET", self.url + path, headers=headers, redirect=False)

    def text(self, path: str = "", status: int = 200) -> str:
        answer = self.get(path)
        assert status == answer.status, answer.data
        return answer.data.decode()

    def ids(self, path: str) -> list[str]:
        """The calls of a list, page after page."""
        found: list[str] = []
        while path:
            text = self.text(path)
            found += re.findall(r'data-id="(\w+)"', text)
            following = re.search(r'href="/ledger(/calls\?[^"]*page=[^"]*)">(?:Next|Search)', text)
            path = following[1].replace("&amp;", "&") if following else ""
        return found


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A site over each database in turn."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("site") / "mlflow.db"
        path.write_bytes(request.getfixturevalue("empty_sqlite").read_bytes())
        yield from _opened(f"sqlite:///{path}")
    else:
        with postgres_database(request.getfixturevalue("postgres_server")) as uri:
            yield from _opened(uri)


def _opened(uri: str) -> Iterator[Site]:
    calls = fill(uri, rounds=1)
    with served(uri) as url:
        yield Site(url, uri, calls)
