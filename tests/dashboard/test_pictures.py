"""`make screenshots`: the pictures of README and docs, of what `flowledger demo` shows."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.dashboard.conftest import DRAWN_MS, NOT_DRAWN
from tests.servers import answers_at, free_port

pytestmark = pytest.mark.skipif(
    not os.environ.get("DASHBOARD_PICTURES"), reason="`make screenshots`"
)
LARGEST_PICTURE = 200_000
PHONE = 375
CALL = "/calls?model=gpt-4o-mini&status=success"
PICTURES = {
    "overview": ("", False, 1360, 1000),
    "overview-dark": ("", True, 1360, 1000),
    "overview-phone": ("", False, PHONE, 740),
    "calls": ("/calls", False, 1360, 900),
    "call": (CALL, False, 1360, 900),
    "models": ("/models", False, 1360, 1000),
    "models-dark": ("/models", True, 1360, 1000),
    "costs": ("/costs", False, 1360, 1000),
    "errors": ("/errors", False, 1360, 900),
    "health": ("/health", False, 1360, 520),
    "prompts": ("/prompts", False, 1360, 1000),
    "sessions": ("/sessions", False, 1360, 900),
    "users": ("/users", False, 1360, 1000),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard of a new demo with its history; yields its address."""
    place, port = tmp_path_factory.mktemp("demo"), free_port()
    environ = {"PATH": os.environ["PATH"], "HOME": str(place), "FLOWLEDGER_HOME": str(place)}
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flowledger", "demo", "--stub", "--port", str(port)],
            cwd=place,
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        answers_at(f"http://127.0.0.1:{port}/health", process, place / "log")
        yield f"http://127.0.0.1:{port}/ledger"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_small_and_show_no_path_of_this_machine(
    demo: str, chromium: Browser, name: str
) -> None:
    path, dark, width, height = PICTURES[name]
    context = chromium.new_context(
        color_scheme="dark" if dark else "light", viewport={"width": width, "height": height}
    )
    page = context.new_page()
    page.goto(f"{demo}{path}")
    if path == CALL:
        page.locator("tbody[data-rows] th a").first.click()
    expect(page.locator(NOT_DRAWN)).to_have_count(0, timeout=DRAWN_MS)
    page.evaluate(HIDE_PATHS)
    assert [] == re.findall(
        r"(?<![\w.:/])/(?:tmp|home|root|work)/\S*", page.locator("main").inner_text()
    )
    folder = Path(os.environ["DASHBOARD_PICTURES"])
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")
    context.close()
    assert LARGEST_PICTURE > (folder / f"{name}.png").stat().st_size


# Where the demo ran is not what a picture is to tell.
HIDE_PATHS = """() => {
  const texts = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    texts.currentNode.data = texts.currentNode.data
      .replace(/sqlite:\\/\\/\\S*\\/mlflow\\.db/, "sqlite:///mlflow.db")
      .replace(/\\S*\\/flowledger on \\S+,/, "flowledger on web-1,")
      .replace(/\\S+ on \\S+, pid/, "flowledger on web-1, pid");
  }
}"""
