"""Values nobody should send are stored cleaned with a note, or rejected with a reason."""

import base64
import json
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.faults.odd_values import CASES
from tests.faults.processes import FOLDER, Host, Ledger, eventually

# What a note says about a case whose values are changed; the others are stored as they are.
NOTES = {
    "50 MB prompt": "prompt is cut",
    "50 MB of messages": "prompt is cut",
    "NUL bytes": "NUL",
    "lone surrogates": "surrogate",
    "long text": "cut",
    "metrics that are no numbers": "metrics that are no numbers were left out",
    "latency that is not finite": "could not be read",
    "latency that is negative": "could not be read",
    "latency that is no number": "could not be read",
    "long keys": "was changed to",
    "odd keys": "was changed to",
    "10,000 tags": "over the 100 MLflow takes",
    "10,000 params": "over the 100 MLflow takes",
    "10,000 metrics": "over the 100 MLflow takes",
    "naive start": "read as UTC",
    "future start": "not believable",
    "last start": "not believable",
    "first start": "not believable",
    "start that is huge": "",
    "start that is negative": "not believable",
    "start that is not finite": "start time could not be read",
    "start that is no time": "start time could not be read",
    "tokens that are no number": "usage could not be read",
    "usage that is none": "usage could not be read",
    "nested beyond measure": "is cut",
    "a list in itself": "is cut",
    "arguments that are unknown": "unknown argument",
}


class Outcome:
    """What became of one call: `stored` with notes, `rejected` with reasons, or worse."""

    def __init__(self, ledger: Ledger, host: Host, call_id: str, raised: str | None) -> None:
        details = ledger.rows(f"SELECT details FROM llm_calls WHERE id = '{call_id}'")
        self.id = call_id
        self.notes: list[str] = json.loads(details[0][0]).get("notes", []) if details else []
        self.reasons = [line["reason"] for line in host.rejected() if _holds(line, call_id)]
        ways = {"raised": raised, "stored": details, "rejected": self.reasons, "missing": True}
        self.way = next(way for way, holds in ways.items() if holds)


def _holds(rejected: dict[str, Any], call_id: str | None) -> bool:
    return (call_id or "").encode() in base64.b64decode(rejected["record"])


@pytest.fixture
def outcomes(host: Host, database_uri: str, ledger: Ledger) -> dict[str, Outcome]:
    """Every odd call was made, and nothing of it is under way any more."""
    printed = host.run(str(FOLDER / "odd_values.py"), uri=database_uri).splitlines()[-1]
    eventually(
        len(CASES), lambda: ledger.count("llm_calls WHERE operation LIKE 'next to %%'"), seconds=30
    )
    eventually(0, host.waiting)
    made = json.loads(printed).items()
    return {name: Outcome(ledger, host, *said) for name, said in made}


@pytest.fixture
def ledger(database_uri: str) -> Ledger:
    return Ledger(database_uri)


def test_odd_values_are_cleaned_with_a_note_or_rejected_with_a_reason(
    host: Host, database_uri: str, ledger: Ledger, outcomes: dict[str, Outcome]
) -> None:
    lost = {name: o.way for name, o in outcomes.items() if o.way not in ("stored", "rejected")}
    assert {} == lost
    stored = {name: o for name, o in outcomes.items() if o.way == "stored"}
    silent = {n: o.notes for n, o in stored.items() if NOTES.get(n, "") not in " ".join(o.notes)}
    assert {} == silent
    read_back = MlflowClient(tracking_uri=database_uri)
    for outcome in stored.values():
        run, trace = read_back.get_run(outcome.id), read_back.get_trace(f"tr-{outcome.id}")
        assert outcome.id == run.data.tags["flowledger.id"]
        assert run.info.run_id == trace.info.trace_metadata["mlflow.sourceRun"]
        assert 1 == len(trace.data.spans)
    assert len(stored) + len(CASES) == ledger.count()
