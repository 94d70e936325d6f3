"""Ingest over real HTTP: what is stored is committed and stored once, what is not is told why."""

import gzip
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from flowledger.journal.frames import frame
from flowledger.records import Usage, encode, new_id
from flowledger.server.encodings import zstd
from flowledger.store import Refusal
from flowledger.store.http import CALLS_PATH, FRAMES, HttpSink
from tests.calls import a_call
from tests.conftest import postgres_database
from tests.server_client import JSON, PRODUCER, Server, frames_of, rows, running

READY = "/api/flowledger/v1/ready"
MIB = 1 << 20
MAX_BODY = 2 * MIB
MAX_RECORDS = 2_000


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Two workers over each database in turn, with limits that a test can reach."""
    folder = tmp_path_factory.mktemp(request.param)
    limits = {
        "max_body_bytes": MAX_BODY,
        "max_batch_bytes": 8 * MIB,
        "max_records": MAX_RECORDS,
        "body_seconds": 2,
    }
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("empty_sqlite"), folder / "mlflow.db")
        with running(f"sqlite:///{folder / 'mlflow.db'}", folder, **limits) as server:
            assert 200 == server.get(READY).status
            yield server
    else:
        with (
            postgres_database(request.getfixturevalue("postgres_server")) as uri,
            running(uri, folder, **limits) as server,
        ):
            assert 200 == server.get(READY).status
            yield server


def once(count: int) -> dict[str, int]:
    """What tables hold of so many calls that were stored once."""
    return {"llm_calls": count, "runs": count, "spans": count}


def answer(response: Any) -> Any:
    return json.loads(response.data)


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_frames_are_committed_when_the_answer_comes(server: Server, encoding: str) -> None:
    calls = [a_call() for _ in range(5)]
    body = ENCODINGS[encoding](frames_of([PRODUCER, *map(encode, calls)]))
    response = server.post(body, Content_Encoding=encoding)
    assert (200, {"stored": 6, "refused": []}) == (response.status, answer(response))
    assert once(5) == server.stored(calls)


def test_mlflows_own_client_finds_the_run_at_the_same_server(server: Server) -> None:
    call = a_call(experiment="seen by mlflow")
    server.post_calls([call])
    run = MlflowClient(tracking_uri=server.url).get_run(call.id)
    assert ("FINISHED", 120.0) == (run.info.status, run.data.metrics["total_tokens"])


def test_a_batch_sent_again_changes_nothing(server: Server) -> None:
    calls = [a_call() for _ in range(4)]
    server.post_calls(calls[:2])
    response = server.post_calls(calls)
    assert (200, {"stored": 5, "refused": []}) == (response.status, answer(response))
    assert once(4) == server.stored(calls)


def test_a_batch_sent_to_all_workers_at_once_is_stored_once(server: Server) -> None:
    calls = [a_call(experiment=f"at once {new_id()}") for _ in range(60)]

    def until_stored(_: int) -> int:
        while (status := server.post_calls(calls).status) in (429, 503):
            pass  # a shipper sends it again, too
        return status

    with ThreadPoolExecutor(8) as clients:
        assert {200} == set(clients.map(until_stored, range(8)))
    assert once(60) == server.stored(calls)


def test_what_cannot_be_stored_is_refused_by_its_place_and_the_rest_is_stored(
    server: Server,
) -> None:
    good = [a_call(), a_call()]
    too_large_for_any_column = a_call(seq=2**64 - 1)
    payloads = [
        *(PRODUCER, b"junk", encode(good[0]), encode(too_large_for_any_column)),
        *(b"", encode(good[1]), encode(a_call(id="no id"))),
    ]
    response = server.post(frames_of(payloads))
    refused = {item["index"]: item["reason"] for item in answer(response)["refused"]}
    assert (200, 3, [1, 3, 4, 6]) == (response.status, answer(response)["stored"], sorted(refused))
    assert "not a record" in refused[1]
    assert "an id must be 32 characters of lower-case hex" in refused[6]
    assert once(2) == server.stored(good)


WHOLE = frame(encode(a_call()))
DAMAGED = {
    "cut in the last payload": WHOLE + WHOLE[:-1],
    "cut in the last head": WHOLE + WHOLE[:5],
    "a bit of the payload": WHOLE[:50] + bytes([WHOLE[50] ^ 1]) + WHOLE[51:] + WHOLE,
    "no frame": WHOLE + b"this is no frame at all",
    "a length of its own": WHOLE + b"\xf1\x1e\xff\xff\xff\xff\0\0\0\0" + WHOLE,
    "a thousand heads that promise a lot": b"\xf1\x1e\xff\xff\x0f\0\0\0\0\0" * 1000 + WHOLE,
}


@pytest.mark.parametrize("how", DAMAGED)
def test_nothing_is_stored_of_a_batch_that_was_damaged_on_the_way(server: Server, how: str) -> None:
    before = rows(server.uri, "SELECT count(*) AS n FROM llm_calls")
    response = server.post(DAMAGED[how])
    assert 400 == response.status
    assert "send it again" in answer(response)["detail"]
    assert before == rows(server.uri, "SELECT count(*) AS n FROM llm_calls")


PACKED = {name: pack(WHOLE * 3) for name, pack in ENCODINGS.items() if name != "identity"}


@pytest.mark.parametrize("encoding", PACKED)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda body: body[:-5], "cut off"),
        (lambda body: b"plain" + body, "is not"),
        (lambda body: body + b"and more", "is not"),
        (lambda body: body * 17, "more than 16"),
        (lambda body: b"", "cut off"),
    ],
)
def test_a_body_that_does_not_unpack_is_refused(
    server: Server, encoding: str, damage: Any, said: str
) -> None:
    response = server.post(damage(PACKED[encoding]), Content_Encoding=encoding)
    assert 400 == response.status
    assert said in answer(response)["detail"] or b"is not" in response.data


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_several_compressed_pieces_in_one_body_all_count(server: Server, encoding: str) -> None:
    calls = [a_call(), a_call()]
    body = b"".join(ENCODINGS[encoding](frame(encode(call))) for call in calls)
    assert {"stored": 2, "refused": []} == answer(server.post(body, Content_Encoding=encoding))
    assert once(2) == server.stored(calls)


@pytest.mark.parametrize("encoding", ["br", "compress", "gzip, gzip", "x" * 200])
def test_an_encoding_not_known_here_is_refused_naming_those_that_are(
    server: Server, encoding: str
) -> None:
    response = server.post(b"?", Content_Encoding=encoding)
    assert 415 == response.status
    assert "send gzip or deflate or zstd, or none" in answer(response)["detail"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_content_type_not_known_here_is_refused_naming_those_that_are(
    server: Server, kind: str
) -> None:
    response = server.post(b"?", kind)
    assert 415 == response.status
    assert JSON in answer(response)["detail"]
    assert FRAMES in answer(response)["detail"]


@cache
def bomb(encoding: str, size: int) -> bytes:
    """So many zeros, compressed; zstd's in a stream, whose head does not say how many."""
    if encoding != "zstd":
        packed: bytes = ENCODINGS[encoding](bytes(size))
        return packed
    packer = zstd.ZstdCompressor()
    return b"".join([*(packer.compress(bytes(MIB)) for _ in range(size // MIB)), packer.flush()])


def peak_memory(server: Server) -> int:
    """The most memory that the server's processes ever had, in bytes, together."""
    port = server.url.rpartition(":")[2]
    [parent] = [p for p in psutil.process_iter() if {"uvicorn", port} <= set(_command(p))]
    processes = [parent, *parent.children(recursive=True)]
    states = (Path(f"/proc/{process.pid}/status").read_text() for process in processes)
    lines = (line for state in states for line in state.splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("kind", [FRAMES, JSON])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_decompression_bomb_is_refused_without_being_inflated(
    server: Server, encoding: str, kind: str
) -> None:
    body = bomb(encoding, 256 * MIB)
    assert MAX_BODY > len(body)
    before = peak_memory(server)
    responses = [server.post(body, kind, Content_Encoding=encoding) for _ in range(3)]
    assert [413] * 3 == [response.status for response in responses]
    assert "split the batch" in answer(responses[0])["detail"]
    assert 128 * MIB > peak_memory(server) - before


def test_a_body_whose_head_promises_too_much_is_refused(server: Server) -> None:
    response = server.post(zstd.compress(bytes(256 * MIB)), Content_Encoding="zstd")
    assert (413, True) == (response.status, "split the batch" in answer(response)["detail"])


def test_a_hundred_thousand_frames_at_once_are_refused(server: Server) -> None:
    response = server.post(frame(b"") * 100_000)
    expected = f"send at most {MAX_RECORDS} records at once: split the batch"
    assert (413, {"detail": expected}) == (response.status, answer(response))


def test_a_shipper_splits_what_is_too_much_for_the_server(server: Server) -> None:
    calls = [a_call(prompt=None, response=None) for _ in range(MAX_RECORDS + 500)]
    sink = HttpSink(server.url)
    assert [] == sink.write([PRODUCER, *map(encode, calls)])
    sink.close()
    assert once(len(calls)) == server.stored(calls)


@pytest.mark.parametrize("before", [[], [PRODUCER]], ids=["alone", "after its producer"])
def test_a_record_that_is_too_large_for_the_server_is_refused_and_the_rest_is_stored(
    server: Server, before: list[bytes]
) -> None:
    large, small = a_call(response="x" * (9 * MIB)), a_call()
    sink = HttpSink(server.url)
    assert [Refusal(len(before), "too large for the server")] == sink.write(
        [*before, encode(large)]
    )
    assert [Refusal(len(before), "too large for the server")] == sink.write(
        [*before, encode(large), encode(small)]
    )
    sink.close()
    assert once(1) == server.stored([large, small])


def test_a_body_that_is_announced_as_too_large_is_refused_before_it_is_sent(
    server: Server,
) -> None:
    head = f"POST {CALLS_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON}\r\n"
    with server.connect() as client:
        client.sendall(f"{head}Content-Length: {10**12}\r\n\r\n".encode())
        assert b"HTTP/1.1 413 " == client.recv(13)


def test_a_body_that_turns_out_to_be_too_large_is_refused(server: Server) -> None:
    response = server.post(iter([bytes(MIB)] * 3))
    expected = f"send at most {MAX_BODY} bytes at once: split the batch"
    assert (413, {"detail": expected}) == (response.status, answer(response))


def test_a_client_that_hangs_is_told_so_and_holds_nobody_up(server: Server) -> None:
    head = f"POST {CALLS_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FRAMES}\r\n"
    hanging = [server.connect() for _ in range(20)]
    for client in hanging:
        client.sendall(f"{head}Content-Length: 1000\r\n\r\nonly this".encode())
    call = a_call()
    assert 200 == server.post_calls([call]).status  # while they hang
    for client in hanging:
        with client.makefile("rb") as stream:
            said = stream.read()  # until the server closes it
        client.close()
        assert said.startswith(b"HTTP/1.1 408 ")
        assert b"the body did not arrive within 2 seconds" in said


def test_a_client_that_goes_away_is_no_fault_of_the_server(server: Server) -> None:
    head = f"POST {CALLS_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FRAMES}\r\n"
    with server.connect() as client:
        client.sendall(f"{head}Content-Length: 1000\r\n\r\nonly this".encode())
    assert 200 == server.post_calls([a_call()]).status
    assert "Traceback" not in server.log.read_text()


def test_one_call_as_json_gets_an_id_a_start_and_its_features_experiment(server: Server) -> None:
    feature = f"by hand {new_id()}"
    response = server.post_json(
        {"feature": feature, "prompt": "?", "response": "!", "model": "gpt-4o-mini", "team": "b"}
    )
    [made] = answer(response)["ids"]
    assert (200, 1, []) == (
        response.status,
        answer(response)["stored"],
        answer(response)["refused"],
    )
    [row] = rows(server.uri, f"SELECT * FROM llm_calls WHERE id = '{made}'")
    [name] = rows(
        server.uri, f"SELECT name FROM experiments WHERE experiment_id = {row['experiment_id']}"
    )
    assert (feature, feature) == (row["feature"], name["name"])
    assert 0 <= row["received_ms"] - row["start_ms"] < 60_000
    assert {"team": "b"} == json.loads(row["details"])["unknown"]


def test_json_calls_with_an_id_are_stored_once(server: Server) -> None:
    calls = [{"id": new_id(), "feature": "twice"} for _ in range(3)]
    packed = gzip.compress(json.dumps(calls).encode())
    first = answer(server.post(packed, JSON, Content_Encoding="gzip"))
    assert first == answer(server.post_json(calls))
    assert [call["id"] for call in calls] == first["ids"]
    ids = ",".join(f"'{call['id']}'" for call in calls)
    found = rows(server.uri, f"SELECT count(*) AS n FROM llm_calls WHERE id IN ({ids})")
    assert [{"n": 3}] == found


def test_a_json_call_that_cannot_be_stored_is_refused_and_the_rest_is_stored(
    server: Server,
) -> None:
    response = server.post_json(
        [{"feature": "a"}, {"feature": 7}, "no call", {"id": "short"}, {"feature": "b"}]
    )
    told = answer(response)
    assert (200, 2) == (response.status, told["stored"])
    assert [1, 2, 3] == [item["index"] for item in told["refused"]]
    assert "feature must be text or null, not a whole number" == told["refused"][0]["reason"]
    assert [False, True, True, True, False] == [made is None for made in told["ids"]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"usage": {"input_tokens": "many"}}, "usage.input_tokens must be a whole number or null"),
        ({"duration_ns": 1.5}, "duration_ns must be a whole number from 0"),
        ({"duration_ns": -1}, "duration_ns must be a whole number from 0"),
        ({"tags": ["a"]}, "tags must be an object, not a list"),
        ({"outcome": {"success": "yes"}}, "outcome.success must be true or false, not text"),
        ({"tool_calls": [{"id": "x"}]}, "tool_calls[0] Object missing required field `name`"),
        ({"type": "job"}, "type must be call, or left out"),
        ({"id": "no id"}, "an id must be 32 characters of lower-case hex"),
        ([], "the list is empty: send at least one call"),
        ([{"feature": 1}, {"feature": 2}], "none of 2 calls can be stored; call 0: feature must"),
        ("a call", "a call must be a JSON object"),
    ],
)
def test_json_of_the_wrong_kind_is_answered_with_the_field_and_what_to_send(
    server: Server, given: Any, said: str
) -> None:
    response = server.post_json(given)
    assert 422 == response.status
    assert said in answer(response)["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b"{'a': 1}", b'"\\ud800"', b"[" * 100_000])
def test_what_is_no_json_is_refused(server: Server, body: bytes) -> None:
    response = server.post(body, JSON)
    assert 400 == response.status
    assert "JSON" in answer(response)["detail"]


def test_an_unknown_price_stays_unknown(server: Server) -> None:
    call = a_call(model="no-such-model", model_asked="no-such-model", usage=Usage(input_tokens=1))
    server.post_calls([call])
    [row] = rows(server.uri, f"SELECT cost_usd FROM llm_calls WHERE id = '{call.id}'")
    assert row["cost_usd"] is None


def test_neither_prompts_nor_keys_nor_stack_traces_reach_a_log_or_a_client(server: Server) -> None:
    secret, key = f"secret-{new_id()}", f"flk_0123456789ab_{new_id()}"
    poison = a_call(prompt=secret, seq=2**64 - 1)
    responses = [
        server.post_calls([a_call(prompt=secret), poison], Authorization=f"Bearer {key}"),
        server.post_json({"prompt": secret, "feature": 1}, Authorization=f"Bearer {key}"),
        server.post(secret.encode(), JSON),
        server.post(secret.encode()),
        server.get(f"{CALLS_PATH}/{secret[:6]}", Authorization=f"Bearer {key}"),
    ]
    assert [200, 422, 400, 400, 404] == [response.status for response in responses]
    log = server.log.read_text()
    assert [] == [word for word in (secret, key, "Traceback") if word in log]
    assert [] == [r.data for r in responses if b"Traceback" in r.data or b"File" in r.data]
