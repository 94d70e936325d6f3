"""What a page says when it cannot answer: in the dashboard's look, and nothing of the inside."""

import logging
import re
from collections.abc import Iterator

import pytest
import urllib3

from flowledger.dashboard.pages import audit as audit_page
from flowledger.records import encode
from tests.calls import a_call
from tests.dashboard.conftest import served
from tests.test_evidence_proof import execute, sink_of

CALLS = [a_call() for _ in range(3)]


@pytest.fixture
def url(database_uri: str) -> Iterator[str]:
    with sink_of(database_uri) as sink:
        assert [] == sink.write([encode(call) for call in CALLS])
    with served(database_uri) as url:
        yield url


def get(url: str) -> tuple[int, str, dict[str, str]]:
    answer = urllib3.request("GET", url, retries=False, timeout=60)
    return answer.status, answer.data.decode(), dict(answer.headers)


def test_an_audit_of_more_calls_than_a_page_reads_says_what_to_do(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, whole, _ = get(f"{url}/audit?window=30d")
    assert (200, True) == (status, "Calls looked at" in whole)
    monkeypatch.setattr(audit_page, "MOST_CHECKED", 2)

    status, page, _ = get(f"{url}/audit?window=30d")

    assert 200 == status
    assert re.search(r"flowledger evidence check --from \d{4}-\d\d-\d\d</code>", page)
    assert 'href="/ledger/audit?window=24h"' in page
    assert "The chain" in page


def test_a_fault_is_a_page_with_an_id_that_the_log_has_and_nothing_else(
    url: str, database_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    execute(database_uri, "UPDATE llm_calls SET details = 'zebra' WHERE id = :id", id=CALLS[0].id)

    with caplog.at_level(logging.ERROR, "flowledger.dashboard"):
        status, page, headers = get(f"{url}/calls/{CALLS[0].id}")

    assert (500, "text/html; charset=utf-8") == (status, headers["content-type"])
    request_id = headers["x-request-id"]
    assert f"under request {request_id}." in page
    assert [request_id] == re.findall(r"request (\w+) of", caplog.text)
    assert [] == re.findall(r"Traceback|DecodeError|msgspec|sqlalchemy|zebra|\.py", page)
    assert "<nav" in page
    assert "default-src 'none'" in headers["content-security-policy"]
