"""`flowledger report`: what the API answers, as documents that need nothing else."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pypdf
import pytest
from click.testing import CliRunner, Result
from fastapi import FastAPI
from fastapi.testclient import TestClient

from flowledger.cli import main
from flowledger.config import Destination
from flowledger.records import Actor, Call, Outcome, encode
from flowledger.server.analytics import analytics_router
from flowledger.store import open_sink
from tests.calls import NOW_NS, a_call

DAY_NS = 86_400 * 10**9
ODD = "<script>alert(1)</script> | `x` \u0416\u4e16\u202e"


@pytest.fixture
def uri(sqlite_uri: str, home: Path) -> str:
    """A ledger of some days, with failures, an unknown price and names of all kinds."""
    failed = Outcome(success=False, error_type="RateLimitError")
    calls = [
        a_call(
            start_ns=NOW_NS - place * DAY_NS // 4,
            model=["gpt-4o", "gpt-4o-mini", "house-7b"][place % 3],
            model_asked=None,
            feature=["support", ODD][place % 2],
            actor=Actor(user_id=ODD if place % 2 else "ana"),
            outcome=failed if place % 5 == 0 else Outcome(),
            cost_usd=None if place % 3 == 2 else 12.5,
        )
        for place in range(40)
    ]
    store(sqlite_uri, *calls)
    return sqlite_uri


def store(uri: str, *calls: Call) -> None:
    sink = open_sink(Destination(tracking_uri=uri, artifact_root="/nonexistent", store_as="ledger"))
    assert [] == sink.write(list(map(encode, calls)))
    sink.close()


def report(uri: str, *words: str) -> Result:
    told = CliRunner().invoke(main, ["report", *words], env={"FLOWLEDGER_TRACKING_URI": uri})
    assert 0 == told.exit_code, told.output
    return told


def from_api(uri: str, days: int) -> Any:
    app = FastAPI()
    app.include_router(analytics_router(uri))
    return TestClient(app).get("/api/analytics/mlflow/report", params={"days": days}).json()


def test_the_numbers_are_those_of_the_api(uri: str) -> None:
    told = json.loads(report(uri, "--days", "30", "--format", "json").stdout)
    answered = from_api(uri, 30)
    assert ({"from", "to", "filters"}, {}) == (told.keys() - answered.keys(), told["filters"])
    for generated in (told, told["overview"], answered, answered["overview"]):
        del generated["generated_at"]
    assert answered == {name: told[name] for name in answered}


def test_the_page_holds_its_charts_and_needs_nothing_else(uri: str) -> None:
    page = report(uri, "--format", "html").stdout_bytes.decode()
    pictures = re.findall(r'(?:src|srcset)="data:image/svg\+xml;base64,([^"]+)"', page)
    assert 10 == len(pictures)  # five charts, light and dark
    for picture in pictures:
        assert ElementTree.fromstring(base64.b64decode(picture)).tag.endswith("svg")
    assert [] == re.findall(r'(?:src|href|srcset)="(?!data:)', page)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<strong>40</strong>" in page
    assert "13 calls of unknown price" in page


def test_markdown_has_its_tables_and_its_charts_beside_it(uri: str, tmp_path: Path) -> None:
    path = tmp_path / "month.md"
    told = report(uri, "-o", str(path))
    text = path.read_text()
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert ("", 5) == (told.stdout, len(linked))
    for name in linked:
        assert ElementTree.parse(tmp_path / name).getroot().tag.endswith("svg")
    rows = [line for line in text.splitlines() if line.startswith("| gpt-4o |")]
    assert ["14", "78.57%"] == [cell.strip() for cell in rows[0].split("|")[2:4]]
    assert r"\<script\>alert(1)\</script\> \| \`x\`" in text


def test_markdown_on_standard_output_is_tables_alone(uri: str) -> None:
    text = report(uri).stdout
    assert ("# LLM calls", False) == (text.splitlines()[0], "![" in text)


def test_the_pdf_can_be_read_and_says_what_it_is_about(uri: str, tmp_path: Path) -> None:
    path = tmp_path / "month.pdf"
    report(uri, "--days", "30", "-o", str(path))
    read = pypdf.PdfReader(io.BytesIO(path.read_bytes()))
    text = "\n".join(page.extract_text() for page in read.pages)
    for part in ("LLM calls", " UTC", "by flowledger", "gpt-4o-mini", "RateLimitError", "40"):
        assert part in text
    assert "<script>alert(1)</script>|`x`\u0416?" in "".join(text.split())
    assert 5 == sum(len(page.images) for page in read.pages)
    assert f"1 of {len(read.pages)}" in text


@pytest.mark.parametrize("form", ["html", "md", "pdf", "json"])
def test_a_window_without_calls_is_a_report_that_says_so(uri: str, form: str) -> None:
    told = report(uri, "--format", form, "--to", "2020-01-01").stdout_bytes
    if form == "pdf":
        told = pypdf.PdfReader(io.BytesIO(told)).pages[0].extract_text().encode()
    said = b'"total_runs": 0' if form == "json" else b"There are no calls in this window"
    assert said in told


def test_filters_and_the_window_are_said(uri: str) -> None:
    text = report(uri, "--from", "2026-01-01", "--to", "2026-01-31", "--user", "ana").stdout
    assert "2026-01-01 00:00 to 2026-02-01 00:00 UTC, user ana" in text
