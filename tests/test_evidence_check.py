"""Is the evidence complete? Everything that lacks is counted, by user, feature and day."""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from fastapi import FastAPI
from fastapi.testclient import TestClient

from flowledger.audit.evidence import Evidence, check
from flowledger.audit.policy import Policy, policy_of
from flowledger.audit.shortfalls import Shortfall
from flowledger.cli import main
from flowledger.config import Settings, load
from flowledger.errors import ConfigError
from flowledger.records import Actor, Call, Gap, Job, Producer, Usage, encode, new_id
from flowledger.server.analytics import analytics_router
from tests.calls import NOW_NS, a_call
from tests.test_evidence_proof import execute, store

DAY_NS = 86_400 * 10**9
STRICT = Policy(grace="0s", allow=[])


def settings_of(uri: str, tmp_path: Path, **given: Any) -> Settings:
    return load({}, tracking_uri=uri, home=str(tmp_path / "home"), **given)


def found_in(uri: str, tmp_path: Path, policy: Policy = STRICT, **window: int) -> Evidence:
    return check(settings_of(uri, tmp_path), policy, first_ms=window.get("first_ms", 0))


def short(evidence: Evidence, kind: str) -> dict[str, Shortfall]:
    return {one.what: one for one in evidence.shortfalls if one.kind == kind}


def numbered(*seqs: int, producer: str = "a" * 32, **fields: Any) -> list[Call]:
    return [a_call(producer=producer, seq=seq, **fields) for seq in seqs]


def test_calls_that_lack_a_field_are_counted_by_user_feature_and_day(
    database_uri: str, tmp_path: Path
) -> None:
    whole = numbered(1)
    nobody = numbered(2, 3, actor=Actor(audit_reason="r"), feature="search")
    no_reason = numbered(4, actor=Actor(user_id="bob"), start_ns=NOW_NS - 3 * DAY_NS)
    store(database_uri, [*whole, *nobody, *no_reason])

    found = found_in(database_uri, tmp_path)

    lacks = short(found, "missing_fields")
    assert {"user_id is missing", "audit_reason is missing"} == set(lacks)
    users, reasons = lacks["user_id is missing"], lacks["audit_reason is missing"]
    assert (2, {"search": 2}, {"": 2}) == (users.count, users.by_feature, users.by_user)
    assert sorted(call.id for call in nobody) == users.examples
    assert (1, {"bob": 1}, [no_reason[0].id]) == (reasons.count, reasons.by_user, reasons.examples)
    assert 1 == len(reasons.by_day)
    assert users.by_day.keys().isdisjoint(reasons.by_day)
    assert (4, False) == (found.calls, found.holds)


def test_a_call_that_only_groups_others_is_not_counted_beside_them(
    sqlite_uri: str, tmp_path: Path
) -> None:
    [group] = numbered(1, actor=Actor(), inner_calls=1)
    [inner] = numbered(2, actor=Actor(), parent_id=group.id)
    store(sqlite_uri, [group, inner])
    found = found_in(sqlite_uri, tmp_path, Policy(require=["user_id"], grace="0s"))
    users = short(found, "missing_fields")["user_id is missing"]
    assert (1, 1, [inner.id]) == (found.calls, users.count, users.examples)


def test_an_environment_asks_for_its_own_fields_before_a_feature_does(
    database_uri: str, tmp_path: Path
) -> None:
    bare = Actor()
    store(
        database_uri,
        [
            *numbered(1, actor=bare, feature="search"),
            *numbered(2, actor=bare, feature="chat"),
            *numbered(3, actor=Actor(environment="test"), feature="search"),
        ],
    )
    policy = Policy(
        require=[], by_feature={"search": ["user_id"]}, by_environment={"test": ["session_id"]}
    )
    counts = {
        one.what: one.count
        for one in found_in(database_uri, tmp_path, policy).shortfalls
        if one.kind == "missing_fields"
    }
    assert {"user_id is missing": 1, "session_id is missing": 1} == counts


def test_unknown_prices_and_estimated_tokens_are_listed(database_uri: str, tmp_path: Path) -> None:
    unpriced = numbered(1, model="nobody-knows-it", model_asked=None)
    estimated = numbered(2, usage=Usage(input_tokens=5, output_tokens=5, source="estimated"))
    store(database_uri, [*unpriced, *estimated, *numbered(3)])

    allowed = found_in(database_uri, tmp_path, Policy(grace="0s"))

    listed = {one.kind: (one.count, one.examples, one.allowed) for one in allowed.shortfalls}
    assert {
        "unknown_prices": (1, [unpriced[0].id], True),
        "estimated_tokens": (1, [estimated[0].id], True),
    } == listed
    assert (True, False) == (allowed.holds, found_in(database_uri, tmp_path).holds)


def test_numbers_that_never_came_are_found_and_named(database_uri: str, tmp_path: Path) -> None:
    producer = "b" * 32
    told = Producer(id=producer, producer=producer, host="web-1", source="app.py")
    job = Job(id=new_id(), producer=producer, seq=3, start_ns=NOW_NS)
    gap = Gap(id=new_id(), producer=producer, first_seq=7, last_seq=7, count=1, reason="full")
    calls = numbered(1, 2, 6, 8, producer=producer)
    store(database_uri, [told, *calls, job, gap])

    found = found_in(database_uri, tmp_path)

    [holes] = short(found, "missing_records").values()
    assert (2, [f"producer {producer}, numbers 4-5"]) == (holes.count, holes.examples)
    assert {"app.py on web-1": 2} == holes.by_source
    [dropped] = short(found, "dropped_records").values()
    assert (1, {"app.py on web-1": 1}) == (dropped.count, dropped.by_source)


def test_a_batch_that_was_dropped_is_found(database_uri: str, tmp_path: Path) -> None:
    calls = numbered(*range(1, 31))
    for start in (0, 20):  # the one in the middle is lost
        store(database_uri, calls[start : start + 10])
    [holes] = short(found_in(database_uri, tmp_path), "missing_records").values()
    assert (10, [f"producer {'a' * 32}, numbers 11-20"]) == (holes.count, holes.examples)


def test_records_that_may_be_on_their_way_are_not_missed_yet(
    database_uri: str, tmp_path: Path
) -> None:
    store(database_uri, numbered(1, 5))
    patient = Policy(grace="1h")
    assert {} == short(found_in(database_uri, tmp_path, patient), "missing_records")


def test_rejected_records_are_told_apart_from_lost_ones(database_uri: str, tmp_path: Path) -> None:
    [odd] = numbered(2)
    payload = encode(msgspec.structs.replace(odd, id="no id"))
    from tests.test_evidence_proof import sink_of

    with sink_of(database_uri) as sink:
        refused = sink.write([*map(encode, numbered(1, 3)), payload])
    assert 1 == len(refused)
    folder = settings_of(database_uri, tmp_path).journal_folder / "rejected"
    folder.mkdir(parents=True)
    kept = [encode(one) for one in numbered(9, producer="c" * 32)] + [payload]
    (folder / "2026-01-02.jsonl").write_text(
        "".join(
            json.dumps({"reason": "why", "record": base64.b64encode(one).decode()}) + "\n"
            for one in kept
        )
    )

    found = found_in(database_uri, tmp_path)

    [rejected] = short(found, "rejected_records").values()
    assert 2 == rejected.count
    assert {} == short(found, "missing_records")


def test_a_program_that_fell_silent_is_named(database_uri: str, tmp_path: Path) -> None:
    quiet = Producer(id="d" * 32, producer="d" * 32, host="old", source="cron.py", start_ns=DAY_NS)
    loud = Producer(id="a" * 32, producer="a" * 32, host="new", source="app.py", start_ns=DAY_NS)
    store(database_uri, [quiet, loud, *numbered(1)])
    [silent] = short(found_in(database_uri, tmp_path), "silent_sources").values()
    assert {"cron.py on old": 1} == silent.by_source


def test_runs_and_calls_that_do_not_know_each_other_are_found(
    database_uri: str, tmp_path: Path
) -> None:
    calls = numbered(1, 2)
    job = Job(id=new_id(), producer="a" * 32, seq=3, start_ns=NOW_NS, experiment="support")
    store(database_uri, [*calls, job])
    execute(database_uri, "DELETE FROM llm_calls WHERE id = :id", id=calls[0].id)
    for table in ("params", "metrics", "latest_metrics", "tags", "runs"):
        execute(database_uri, f"DELETE FROM {table} WHERE run_uuid = :id", id=calls[1].id)
    execute(
        database_uri,
        "DELETE FROM tags WHERE key = 'flowledger.id' AND run_uuid = :i",
        i=calls[0].id,
    )

    found = found_in(database_uri, tmp_path)

    [without] = short(found, "calls_without_run").values()
    [apart] = short(found, "runs_without_call").values()
    assert ([calls[1].id], [calls[0].id]) == (without.examples, apart.examples)


def test_evidence_that_is_not_fresh_fails(database_uri: str, tmp_path: Path) -> None:
    store(database_uri, numbered(1, start_ns=NOW_NS - 3 * DAY_NS))
    asked = [found_in(database_uri, tmp_path, Policy(fresh_within=age)) for age in ("2d", "4d")]
    assert [False, True] == [one.holds for one in asked]


def test_a_window_leaves_out_what_began_outside(database_uri: str, tmp_path: Path) -> None:
    store(database_uri, numbered(1, actor=Actor(), start_ns=NOW_NS - 3 * DAY_NS))
    now_ms = NOW_NS // 10**6
    assert 0 == found_in(database_uri, tmp_path, first_ms=now_ms - 86_400_000).calls


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        ({"requires": []}, "unknown field `requires`"),
        ({"require": ["user"]}, "'user'; use one of user_id"),
        ({"allow": ["all"]}, "'all'; use one of missing_fields"),
        ({"grace": "soon"}, "evidence.grace='soon': use a number with s, m, h or d"),
    ],
)
def test_a_wrong_policy_is_told_with_what_there_is(evidence: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as told:
        policy_of(load({}, evidence=evidence))
    assert message in str(told.value)


@pytest.fixture
def cli(database_uri: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("FLOWLEDGER_TRACKING_URI", database_uri)
    store(database_uri, numbered(1, 2))
    return CliRunner()


def test_the_command_says_by_its_exit_code_whether_the_policy_holds(
    cli: CliRunner, database_uri: str, home: Path
) -> None:
    fine = cli.invoke(main, ["evidence", "check"])
    assert (0, True) == (fine.exit_code, "2 calls: the policy holds" in fine.output)
    store(database_uri, numbered(3, actor=Actor()))
    failed = cli.invoke(main, ["evidence", "check"])
    assert (1, True) == (failed.exit_code, "1  user_id is missing" in failed.output)
    told = json.loads(cli.invoke(main, ["evidence", "check", "--json"]).output)
    assert (False, 3) == (told["holds"], told["calls"])
    Path("flowledger.yaml").write_text("evidence: {requre: []}")
    assert 2 == cli.invoke(main, ["evidence", "check"]).exit_code


def test_the_commands_of_proof_tell_a_head_and_what_was_changed(
    cli: CliRunner, database_uri: str, home: Path
) -> None:
    fine = cli.invoke(main, ["evidence", "verify"])
    head = fine.output.split()[-1]
    assert (0, 64) == (fine.exit_code, len(head))
    assert 0 == cli.invoke(main, ["evidence", "verify", "--head", head]).exit_code
    assert 1 == cli.invoke(main, ["evidence", "verify", "--head", "0" * 64]).exit_code
    public = cli.invoke(main, ["keys", "signing"]).output.split()[0]
    wanted = ["--from", "2020-01-01", "--to", "2099-01-01", "--file", "b.jsonl"]
    assert 0 == cli.invoke(main, ["evidence", "export", *wanted]).exit_code
    assert 0 == cli.invoke(main, ["evidence", "verify", "b.jsonl", "--key", public]).exit_code
    assert 1 == cli.invoke(main, ["evidence", "verify", "b.jsonl", "--key", "00"]).exit_code
    execute(database_uri, "UPDATE tags SET value = 'eve' WHERE key = 'user_id'")
    failed = cli.invoke(main, ["evidence", "verify"])
    assert (1, True) == (failed.exit_code, "2 differences" in failed.output)


def test_erasing_and_purging_ask_before_and_tell_after(cli: CliRunner, database_uri: str) -> None:
    dry = cli.invoke(main, ["erase", "--user", "ana", "--dry-run"])
    assert (0, True) == (dry.exit_code, "would erase 2 calls" in dry.output)
    assert 2 == cli.invoke(main, ["erase", "--user", "ana"]).exit_code
    done = cli.invoke(main, ["erase", "--user", "ana", "--yes", "--by", "dpo"])
    assert (0, True) == (done.exit_code, "taken out of 2 calls" in done.output)
    assert 2 == cli.invoke(main, ["purge", "--older-than", "soon", "--yes"]).exit_code
    old = cli.invoke(main, ["purge", "--older-than", "180d", "--dry-run", "--json"])
    assert (0, 0) == (old.exit_code, json.loads(old.output)["calls"])
    assert 0 == cli.invoke(main, ["evidence", "verify"]).exit_code


def test_the_route_answers_as_the_command_does(
    database_uri: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWLEDGER_TRACKING_URI", database_uri)
    store(database_uri, numbered(1, actor=Actor()))
    app = FastAPI()
    app.include_router(analytics_router(database_uri))
    with TestClient(app) as client:
        answer = client.get("/api/flowledger/v1/evidence").json()
        assert 422 == client.get("/api/flowledger/v1/evidence?days=0").status_code
    kinds = {one["kind"] for one in answer["shortfalls"] if not one["allowed"]}
    assert (False, 1, {"missing_fields"}) == (answer["holds"], answer["calls"], kinds)
