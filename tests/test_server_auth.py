"""`--auth basic`: MLflow's users and permissions stand before ours too; keys let calls in."""

import base64
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import time_ns as now_ns
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
import urllib3
from hypothesis import given
from mlflow import MlflowClient

from flowledger.records import (
    Artifact,
    Call,
    Gap,
    Gone,
    Job,
    Logged,
    Place,
    Producer,
    Span,
    encode,
    new_id,
)
from flowledger.server.batches import experiments_of
from flowledger.store.entries import entry
from flowledger.store.http import CALLS_PATH, HttpSink, is_flowledger
from flowledger.store.keys import open_keys
from tests import calls
from tests.calls import any_call
from tests.conftest import postgres_database
from tests.server_client import Postgres, Server, frames_of, rows
from tests.servers import answers_at, free_port
from tests.test_genai_spans import CURRENT
from tests.test_server_otlp import as_json

ADMIN, PASSWORD = "admin", "correct horse battery"
HEALTH = "/api/flowledger/v1/health"
FOR_USERS = ("/api/docs", "/api/openapi.json")
ANALYTICS = "/api/analytics/mlflow"
READY = "/api/flowledger/v1/ready"


def basic(user: str, password: str = PASSWORD) -> dict[str, str]:
    """The header that logs a user in."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def bearer(token: str) -> dict[str, str]:
    """The header that shows a key."""
    return {"Authorization": f"Bearer {token}"}


METRICS_TOKEN = "of prometheus alone"


def a_call(**fields: Any) -> Call:
    """A call of a process of its own, since a process belongs to who sent its first record."""
    return calls.a_call(**{"producer": new_id(), **fields})


@pytest.fixture(scope="module")
def server(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server where ana is a user beside the admin."""
    folder = tmp_path_factory.mktemp("auth")
    with postgres_database(postgres_server) as uri, server_with_users(uri, folder) as server:
        make_user(server, "ana")
        yield server


@contextmanager
def server_with_users(uri: str, folder: Path) -> Iterator[Server]:
    """`flowledger server --auth basic` with two workers, and its admin."""
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_BACKEND_STORE_URI", uri)
        patch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", PASSWORD)
        patch.setenv("FLOWLEDGER_SERVER_METRICS_TOKEN", METRICS_TOKEN)
        patch.setenv("FLOWLEDGER_SERVER_QUESTION_SECONDS", "60")  # a machine may be slow
        options = ["--port", str(port), "--auth", "basic"]
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "flowledger", "server", *options],
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        try:
            answers_at(f"http://127.0.0.1:{port}/health", process, folder / "server.log")
            yield Server(f"http://127.0.0.1:{port}", uri, folder / "server.log")
        finally:
            process.terminate()
            process.wait(60)


def make_user(server: Server, name: str) -> None:
    made = server.ask(
        "POST",
        "/api/2.0/mlflow/users/create",
        json={"username": name, "password": PASSWORD},
        headers=basic(ADMIN),
    )
    assert 200 == made.status, made.data


@pytest.fixture
def key(server: Server) -> str:
    """The token of a key of this test's own."""
    with open_keys(server.uri, make=True) as keys:
        return keys.create(f"key-{new_id()}")


def test_users_are_in_the_database_that_several_servers_share(server: Server) -> None:
    named = rows(server.uri, "SELECT username FROM users ORDER BY username")
    assert ["admin", "ana"] == [row["username"] for row in named]
    assert ["server.log"] == sorted(path.name for path in server.log.parent.iterdir())


def test_health_is_for_everybody_and_tells_a_shipper_what_it_talks_to(server: Server) -> None:
    assert (200, 200) == (server.get(HEALTH).status, server.get(READY).status)
    assert is_flowledger(server.url)


@pytest.mark.parametrize(
    "path", ["/metrics", "/api/docs", "/api/openapi.json", "/api/flowledger/v1/x"]
)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("ana", "wrong"),
        basic("nobody"),
        {"Authorization": "Basic !"},
        {"Authorization": "Negotiate abc"},
        bearer("somebody-elses"),
    ],
)
def test_all_the_rest_is_for_users(server: Server, path: str, headers: dict[str, str]) -> None:
    response = server.get(path, **headers)
    assert 401 == response.status
    assert 'Basic realm="mlflow"' in response.headers["WWW-Authenticate"]
    assert "log in as one of MLflow's users" in response.json()["detail"]


@pytest.mark.parametrize("path", FOR_USERS)
@pytest.mark.parametrize("user", [ADMIN, "ana"])
def test_a_user_of_mlflows_comes_in(server: Server, path: str, user: str) -> None:
    assert 200 == server.get(path, **basic(user)).status


def test_the_numbers_of_every_experiment_are_for_administrators(server: Server) -> None:
    feature = f"secret {new_id()}"
    assert 200 == server.post_calls([a_call(feature=feature)], **basic(ADMIN)).status
    assert feature in server.get("/metrics", **basic(ADMIN)).data.decode()
    told = server.get("/metrics", **basic("ana"))
    assert (403, True) == (told.status, "as an administrator" in told.json()["detail"])


def test_a_key_lets_calls_in_through_the_shipping_client(server: Server, key: str) -> None:
    call = a_call()
    sink = HttpSink(server.url, key)
    assert [] == sink.write([encode(call)])
    sink.close()
    assert {"llm_calls": 1, "runs": 1, "spans": 1} == server.stored([call])


def test_a_key_opens_nothing_else(server: Server, key: str) -> None:
    told = server.get("/metrics", **bearer(key))
    assert (403, True) == (
        told.status,
        "a key is for sending calls and spans" in told.json()["detail"],
    )
    runs = server.ask("GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers=bearer(key))
    assert 401 == runs.status


def test_the_token_of_prometheus_opens_the_numbers_and_nothing_else(server: Server) -> None:
    assert 200 == server.get("/metrics", **bearer(METRICS_TOKEN)).status
    assert 401 == server.get("/metrics", **bearer(METRICS_TOKEN[:-1])).status
    assert 401 == server.get("/metrics", **bearer("")).status
    assert 401 == server.get("/api/flowledger/v1/usage?by=model", **bearer(METRICS_TOKEN)).status
    assert 401 == server.post_calls([a_call()], **bearer(METRICS_TOKEN)).status


def test_a_key_that_is_revoked_or_wrong_is_refused_by_every_worker_at_once(
    server: Server, key: str
) -> None:
    prefix, key_id, secret = key.split("_", 2)
    [named] = rows(server.uri, f"SELECT name FROM llm_keys WHERE id = '{key_id}'")
    assert 200 == server.post_calls([a_call()], **bearer(key)).status
    with open_keys(server.uri, make=False) as keys:
        keys.revoke(named["name"])
    wrong = [
        key,
        f"{prefix}_{key_id}_{'A' * 43}",
        f"{prefix}_{'0' * 12}_{secret}",
        f"{prefix}_{key_id}_",
        f"{prefix}_' OR 1=1 --",
        "flk_",
    ]
    for token in wrong * 3:
        response = server.post_calls([a_call()], **bearer(token))
        assert (401, True) == (response.status, "was revoked" in response.json()["detail"])


def test_while_the_database_is_away_nobody_hears_that_a_key_is_wrong(
    server: Server, key: str
) -> None:
    [folder] = rows(server.uri, "SHOW data_directory")
    postgres = Postgres(folder["data_directory"])
    postgres.stop()
    try:
        answer = server.post_calls([a_call()], **bearer(key))
        told = server.metrics(**bearer(METRICS_TOKEN))
    finally:
        postgres.start()
    assert 0 == told["flowledger_store_up"]
    assert (503, "1") == (answer.status, answer.headers["Retry-After"])
    assert "the database does not answer now, so nobody can log in" in answer.json()["detail"]
    assert 200 == server.post_calls([a_call()], **bearer(key)).status


def test_what_is_kept_of_a_key_is_not_the_key(server: Server, key: str) -> None:
    [row] = rows(server.uri, f"SELECT * FROM llm_keys WHERE id = '{key.split('_')[1]}'")
    assert key.split("_", 2)[2] not in str(row)
    assert 64 == len(row["secret_hash"])


def test_nobody_without_credentials_sends_calls(server: Server) -> None:
    before = rows(server.uri, "SELECT count(*) AS n FROM llm_calls")
    assert 401 == server.post_calls([a_call()]).status
    assert 401 == server.post_json({"feature": "f"}).status
    assert before == rows(server.uri, "SELECT count(*) AS n FROM llm_calls")


def test_a_user_writes_where_mlflow_lets_that_user_write(server: Server) -> None:
    mine, theirs = f"mine {new_id()}", f"theirs {new_id()}"
    assert 200 == server.post_calls([a_call(experiment=theirs)], **basic(ADMIN)).status
    assert 200 == server.post_calls([a_call(experiment=mine)], **basic("ana")).status
    assert 200 == server.post_calls([a_call(experiment=mine)], **basic("ana")).status  # made by ana
    both = [a_call(experiment=mine), a_call(experiment=theirs)]
    refused = server.post_calls(both, **basic("ana"))
    assert (403, f"user ana may not write to experiment {theirs}") == (
        refused.status,
        refused.json()["detail"].partition(":")[0],
    )
    assert {"llm_calls": 0, "runs": 0, "spans": 0} == server.stored(both)
    allow(server, "ana", theirs)
    assert 200 == server.post_calls(both, **basic("ana")).status


@pytest.mark.parametrize("claims_mine", [False, True], ids=["as it is", "said to be mine"])
def test_a_user_adds_nothing_to_a_run_of_somebody_else(server: Server, claims_mine: bool) -> None:
    mine, theirs = f"mine {new_id()}", f"theirs {new_id()}"
    run = Job(**numbered(1), running=True, name="job", experiment=theirs)
    assert 200 == server.post_calls([run], **basic(ADMIN)).status
    assert 200 == server.post_calls([a_call(experiment=mine)], **basic("ana")).status
    experiment = mine if claims_mine else None
    about = {**numbered(2), "run_id": run.id, "experiment": experiment}
    place = Place(root_id=run.id, parent_id=run.id, experiment=experiment)
    ended = msgspec.structs.replace(run, seq=2, running=False, experiment=mine, tags={"mine": "1"})
    for record in (
        Logged(**about, tags={"mine": "1"}),
        Artifact(**about, path="mine.txt", content=b"mine"),
        Span(**numbered(2), name="mine", place=place),
        ended,
    ):
        assert 403 == server.post_calls([record], **basic("ana")).status
    query = f"SELECT value FROM tags WHERE run_uuid = '{run.id}' AND key = 'mine'"
    assert [] == rows(server.uri, query)
    allow(server, "ana", theirs)
    assert 200 == server.post_calls([Logged(**about, tags={"mine": "1"})], **basic("ana")).status


def numbered(seq: int) -> dict[str, Any]:
    """What every record of a process of its own has."""
    return {"id": new_id(), "producer": new_id(), "seq": seq, "start_ns": now_ns()}


def test_a_user_sees_the_numbers_of_the_experiments_they_may_read(server: Server) -> None:
    mine, theirs = f"mine {new_id()}", f"theirs {new_id()}"
    sent = [a_call(experiment=mine, start_ns=now_ns()), a_call(experiment=theirs)]
    assert 200 == server.post_calls(sent, **basic(ADMIN)).status
    allow(server, "ana", theirs, "DENY")
    for name, runs in ((mine, 1), (theirs, None)):
        path = f"{ANALYTICS}/overview?{urlencode({'experiment': name})}"
        told = server.get(path, **basic("ana"))
        assert (404 if runs is None else 200, runs) == (told.status, told.json().get("total_runs"))
        assert theirs not in told.json().get("detail", "").partition("there are:")[2]
        assert 1 == server.get(path, **basic(ADMIN)).json()["total_runs"]
    assert 404 == server.get(f"/api/flowledger/v1/calls/{sent[1].id}", **basic("ana")).status
    assert 200 == server.get(f"/api/flowledger/v1/calls/{sent[1].id}", **basic(ADMIN)).status
    listed = server.get("/api/v1/mlflow/tracking/experiments/", **basic("ana")).json()
    assert theirs not in {one["name"] for one in listed["experiments"]}
    assert 401 == server.get("/ledger").status
    for path, status in (("/ledger", 200), (f"/ledger/calls/{sent[1].id}", 404)):
        shown = server.get(path, **basic("ana"))
        assert (status, False) == (shown.status, theirs.encode() in shown.data)
    assert 200 == server.get(f"/ledger/calls/{sent[1].id}", **basic(ADMIN)).status
    usage = server.get("/api/flowledger/v1/usage?by=experiment", **basic("ana")).json()["usage"]
    assert theirs not in {part["value"] for part in usage}


def test_a_key_reads_nothing_and_only_an_administrator_makes_experiments(
    server: Server, key: str
) -> None:
    for path in (f"{ANALYTICS}/overview", "/api/flowledger/v1/recent", CALLS_PATH):
        assert 403 == server.get(path, **bearer(key)).status
    recreate = f"{ANALYTICS}/experiments/recreate"
    assert 403 == server.ask("POST", recreate, headers=basic("ana")).status
    assert 200 == server.ask("POST", recreate, headers=basic(ADMIN)).status


def allow(server: Server, user: str, experiment: str, permission: str = "EDIT") -> None:
    client = {"headers": basic(ADMIN)}
    path = "/api/2.0/mlflow/experiments/get-by-name"
    found = server.ask("GET", path, fields={"experiment_name": experiment}, **client)
    grant: dict[str, Any] = {
        "username": user,
        "resource_type": "experiment",
        "resource_id": found.json()["experiment"]["experiment_id"],
        "permission": permission,
    }
    done = server.ask("POST", "/api/3.0/mlflow/users/permissions/grant", json=grant, **client)
    assert 200 == done.status, done.data


READABLE = """
from mlflow.server import auth
from flowledger.server.callers import Caller, MlflowUsers

users = MlflowUsers()
auth.store.init_db("sqlite:///users.db")
ana = auth.store.create_user("ana", "correct horse battery")
auth.store.grant_user_permission("ana", "experiment", "1", "DENY")
auth.store.grant_user_permission("ana", "experiment", "2", "EDIT")
for caller in (Caller("user", "ana"), Caller("user", "root", is_admin=True)):
    print(*sorted(users.readable(caller, ["1", "2", "3"])))
"""


def test_what_a_user_may_read_is_what_mlflow_would_show(tmp_path: Path) -> None:
    command = [sys.executable, "-c", READABLE]
    told = subprocess.check_output(command, cwd=tmp_path, text=True)
    assert ["2 3", "1 2 3"] == told.splitlines()  # 3 has MLflow's default permission, READ


@given(call=any_call())
def test_the_experiment_that_is_asked_about_is_the_one_that_is_written(call: Call) -> None:
    assert {entry(call).experiment} == experiments_of([encode(call)])


def test_mlflow_asks_its_own_users_as_before(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 401 == server.get("/").status
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ana")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert MlflowClient(tracking_uri=server.url).get_experiment("0").name == "Default"


def test_a_page_of_another_origin_is_blocked_before_anybody_is_asked(
    server: Server, key: str
) -> None:
    response = server.post_calls([a_call()], **bearer(key), Origin="https://evil.example")
    assert (403, b"Cross-origin request blocked") == (response.status, response.data)


def test_neither_keys_nor_passwords_reach_the_log(server: Server, key: str) -> None:
    server.post_calls([a_call()], **bearer(key))
    server.get(CALLS_PATH, **bearer(key))
    server.get("/metrics", **basic("ana"))
    log = server.log.read_text()
    secrets = (key, key.split("_", 2)[2], PASSWORD, basic("ana")["Authorization"].split()[1])
    assert [] == [secret for secret in secrets if secret in log]
    assert "Traceback" not in log


def test_the_documentation_says_who_may_come(server: Server) -> None:
    document = server.get("/api/openapi.json", **basic("ana")).json()
    calls = document["paths"][CALLS_PATH]["post"]
    assert [{"user": []}, {"key": []}] == calls["security"]
    assert [{"user": []}] == document["paths"]["/metrics"]["get"]["security"]
    assert "security" not in document["paths"][HEALTH]["get"]
    assert {"user", "key"} == set(document["components"]["securitySchemes"])


def test_spans_reach_the_ledger_only_where_mlflow_lets_their_sender_write(
    server: Server, key: str
) -> None:
    made = server.ask(
        "POST",
        "/api/2.0/mlflow/experiments/create",
        json={"name": "the admin's spans"},
        headers=basic(ADMIN),
    )
    experiment = made.json()["experiment_id"]
    about = {"Content-Type": "application/json", "x-mlflow-experiment-id": experiment}
    query = f"SELECT model_asked FROM llm_calls WHERE experiment_id = {experiment}"
    unknown = bearer(key[:-8] + "00000000")
    for login, status, stored in (
        ({}, 401, 0),
        (unknown, 401, 0),
        (basic("ana"), 403, 0),
        (bearer(key), 200, 1),
        (basic(ADMIN), 200, 1),
    ):
        headers = {**about, **login}
        answer = server.ask("POST", "/v1/traces", body=as_json(CURRENT), headers=headers)
        assert (status, stored) == (answer.status, len(rows(server.uri, query)))


def post_each(server: Server, records: list[bytes], login: dict[str, str]) -> list[int]:
    """The places of the records that are refused."""
    answer = server.post(frames_of(records), **login)
    assert 200 == answer.status, answer.data
    return [refusal["index"] for refusal in answer.json()["refused"]]


def test_another_key_goes_on_with_a_process_and_a_user_does_not(server: Server, key: str) -> None:
    left = [encode(a_call(producer=new_id(), seq=1)) for _ in range(2)]
    assert [] == post_each(server, left[:1], bearer(key))
    with open_keys(server.uri, make=False) as keys:
        rotated = keys.create(f"key-{new_id()}")
    assert [] == post_each(server, left, bearer(rotated))
    assert [0, 1] == post_each(server, left, basic(ADMIN))


def test_nobody_speaks_for_a_process_that_a_user_sent_first(server: Server, key: str) -> None:
    theirs, producer = f"theirs {new_id()}", new_id()

    def record(kind: Any, seq: int, **fields: Any) -> bytes:
        return encode(kind(id=new_id(), producer=producer, seq=seq, start_ns=now_ns(), **fields))

    run = Job(id=new_id(), producer=producer, seq=8, running=True, name="job", experiment=theirs)
    assert [] == post_each(server, [encode(run)], basic(ADMIN))
    mine = record(Job, 1, name="mine", experiment="mine", running=True)
    odd = msgspec.msgpack.encode(
        {"type": "call", "id": new_id(), "producer": producer, "seq": 9, "experiment": 5}
    )
    about_another = Producer(id=producer, producer=new_id(), host="elsewhere")
    forged = [
        encode(Gone(id=producer, producer=producer, start_ns=now_ns())),
        record(Gap, 0, first_seq=1, last_seq=5, count=5),
        mine,
        record(Span, 2, name="mine", experiment="mine"),
        record(Call, 3, experiment="mine"),
        odd,
        encode(about_another),
    ]
    for login in (basic("ana"), bearer(key)):
        own = encode(a_call(experiment="mine"))
        assert [*range(7)] == post_each(server, [*forged, own], login)
        told = server.post(frames_of([mine]), **login).json()["refused"]
        assert [True] == ["another sender" in refusal["reason"] for refusal in told]
        json = {"feature": "mine", "producer": producer, "seq": 4}
        assert 422 == server.post_json(json, **login).status
    [status] = rows(server.uri, f"SELECT status FROM runs WHERE run_uuid = '{run.id}'")
    assert {"status": "RUNNING"} == status
    for table in ("llm_gaps", "llm_calls", "llm_rejected"):
        query = f"SELECT * FROM {table} WHERE producer_id = '{producer}'"
        assert [] == rows(server.uri, query), table
    named = f"SELECT host FROM llm_producers WHERE id = '{producer}'"
    assert [] == rows(server.uri, named)
    genuine = [record(Logged, seq, run_id=run.id, tags={f"n{seq}": "1"}) for seq in range(1, 5)]
    assert [] == post_each(server, genuine, basic(ADMIN))
    query = f"SELECT count(*) AS n FROM tags WHERE run_uuid = '{run.id}' AND key LIKE 'n%%'"
    assert [{"n": 4}] == rows(server.uri, query)
    gone = encode(Gone(id=producer, producer=producer, start_ns=now_ns()))
    assert [] == post_each(server, [gone], basic(ADMIN))
    [status] = rows(server.uri, f"SELECT status FROM runs WHERE run_uuid = '{run.id}'")
    assert {"status": "KILLED"} == status


def from_elsewhere(server: Server, path: str, login: dict[str, str], host: str) -> int:
    """The status of a GET that comes from another address of this machine."""
    with urllib3.PoolManager(source_address=(host, 0), retries=False, timeout=90) as pool:
        return pool.request("GET", server.url + path, headers=login).status


def test_a_flood_of_wrong_passwords_is_slowed_down_and_nobody_else_waits(
    server: Server, key: str
) -> None:
    assert 200 == server.get("/api/docs", **basic("ana")).status
    assert 200 == server.post_calls([a_call()], **bearer(key)).status
    stopped = Event()

    def guess(number: int) -> Counter[int]:
        found = Counter[int]()
        path = ("/api/docs", "/api/2.0/mlflow/experiments/get?experiment_id=0")[number % 2]
        while not stopped.is_set() or not found:
            name = "ana" if number % 3 else f"nobody-{new_id()}"
            found[from_elsewhere(server, path, basic(name, new_id()), "127.0.0.2")] += 1
        return found

    with ThreadPoolExecutor(100) as threads:
        guesses = [threads.submit(guess, number) for number in range(100)]
        seen = [
            status
            for _ in range(10)
            for status in (
                server.get("/api/docs", **basic("ana")).status,
                server.post_calls([a_call()], **bearer(key)).status,
                from_elsewhere(server, "/api/docs", basic(ADMIN), "127.0.0.3"),
            )
        ]
        stopped.set()
        guessed = sum((done.result() for done in guesses), Counter[int]())
    assert [200] * 30 == seen
    assert {401, 429} == set(guessed)
    assert 2 * 110 >= guessed[401]  # of two workers, with what is free and some waited for


def test_a_password_that_is_known_is_never_made_to_wait(server: Server) -> None:
    user = f"eve-{new_id()}"
    make_user(server, user)
    host = "127.0.0.4"
    for _ in range(8):  # until both workers know it
        assert 200 == from_elsewhere(server, "/api/docs", basic(user), host)
    wrong = [from_elsewhere(server, "/api/docs", basic(user, new_id()), host) for _ in range(60)]
    assert 429 == wrong[-1]
    assert 200 == from_elsewhere(server, "/api/docs", basic(user), host)
