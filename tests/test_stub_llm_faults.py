"""The stub LLM server fails the way its caller asks, and refuses what OpenAI would refuse."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import urllib3
from openai import AsyncOpenAI, OpenAI

from flowledger.errors import FlowledgerError
from flowledger.testing.llm import StubLLM
from tests.openai_clients import http

MODEL = "gpt-4o-mini"
ASK: list[Any] = [{"role": "user", "content": "Hello"}]
# openai 2 lets the error of its HTTP library through in the middle of a stream.
BROKEN = (openai.APIConnectionError, http.RemoteProtocolError)


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server


@pytest.fixture(scope="module")
def client(stub: StubLLM) -> Iterator[OpenAI]:
    with OpenAI(base_url=stub.url, api_key="stub", max_retries=0, timeout=20) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_in_the_server(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def ask(client: OpenAI | AsyncOpenAI, *, streamed: bool = False, **headers: str) -> Any:
    named = {f"x-stub-{name.replace('_', '-')}": value for name, value in headers.items()}
    return client.chat.completions.create(
        model=MODEL, messages=ASK, extra_headers=named, stream=streamed
    )


def stream(client: OpenAI | AsyncOpenAI, **headers: str) -> Any:
    return ask(client, streamed=True, **headers)


@pytest.mark.parametrize(
    ("status", "raised", "code"),
    [
        (400, openai.BadRequestError, None),
        (401, openai.AuthenticationError, "invalid_api_key"),
        (403, openai.PermissionDeniedError, "unsupported_country_region_territory"),
        (404, openai.NotFoundError, "model_not_found"),
        (429, openai.RateLimitError, "rate_limit_exceeded"),
        (500, openai.InternalServerError, None),
        (503, openai.InternalServerError, None),
    ],
)
def test_a_status_is_the_clients_own_error(
    client: OpenAI, status: int, raised: type[openai.APIStatusError], code: str | None
) -> None:
    with pytest.raises(raised) as caught:
        ask(client, status=str(status))
    assert (status, code) == (caught.value.status_code, caught.value.code)
    assert caught.value.request_id


def test_a_rate_limit_says_when_to_come_back(client: OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client, status="429", retry_after="2")
    headers = caught.value.response.headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "2000")


def test_the_clients_own_retries_get_through(stub: StubLLM, client: OpenAI) -> None:
    before = len(stub.requests)
    patient = client.with_options(max_retries=3)
    answer = ask(patient, status="429", fail_times="2", key="retry", retry_after="0.001")
    assert answer.choices[0].message.content
    assert len(stub.requests) - before == 3


def test_a_marker_in_the_models_name_fails_too(client: OpenAI) -> None:
    model = f"{MODEL}?fail-times=1&key=marker"
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=model, messages=ASK)
    assert client.chat.completions.create(model=model, messages=ASK).model == MODEL


def test_without_a_key_the_request_itself_is_counted(client: OpenAI) -> None:
    for text in ("a", "b"):
        model = f"{MODEL}?fail-times=1"
        with pytest.raises(openai.InternalServerError):
            client.responses.create(model=model, input=text)
    assert client.responses.create(model=model, input="a").output_text


@pytest.mark.parametrize("call", [ask, stream])
def test_a_hung_answer_never_comes(client: OpenAI, call: Any) -> None:
    with pytest.raises(openai.APITimeoutError):
        call(client.with_options(timeout=0.2), mode="hang")


def test_a_cut_answer_breaks_off(client: OpenAI) -> None:
    with pytest.raises(BROKEN):
        ask(client, mode="cut")


def test_a_cut_stream_breaks_off_after_its_first_half(client: OpenAI) -> None:
    got: list[Any] = []
    with pytest.raises(BROKEN):
        got.extend(stream(client, mode="cut", tokens="40"))
    assert 0 < len(got) < 40


@pytest.mark.parametrize("call", [ask, stream])
def test_a_malformed_answer_is_no_json(client: OpenAI, call: Any) -> None:
    with pytest.raises(json.JSONDecodeError):
        list(call(client, mode="malformed"))


def test_a_delayed_answer_is_late(client: OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=0.2), delay="60")
    assert ask(client, delay="0.01").choices


def test_a_slow_stream_begins_at_once_and_then_waits(stub: StubLLM) -> None:
    async def read() -> Any:
        async with AsyncOpenAI(base_url=stub.url, api_key="stub", max_retries=0) as client:
            chunks = aiter(await stream(client, chunk_delay="3600"))
            first = await anext(chunks)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(chunks), 0.2)
            return first

    assert asyncio.run(read()).choices


def test_a_client_may_leave_in_the_middle_of_a_stream(client: OpenAI) -> None:
    slow = stream(client, chunk_delay="3600")
    next(slow)
    slow.close()
    assert ask(client).choices


def test_latency_holds_for_every_request() -> None:
    with (
        StubLLM(latency_ms=60_000) as stub,
        OpenAI(base_url=stub.url, api_key="stub", max_retries=0, timeout=0.2) as client,
    ):
        with pytest.raises(openai.APITimeoutError):
            ask(client)
        assert ask(client.with_options(timeout=20), delay="0").choices


def test_the_same_requests_fail_at_every_server() -> None:
    def failed() -> list[int]:
        with (
            StubLLM(error_rate=0.3) as stub,
            OpenAI(base_url=stub.url, api_key="stub", max_retries=0) as client,
        ):
            return [number for number in range(40) if not works(client, str(number))]

    first = failed()
    assert first == failed()
    assert 0 < len(first) < 40


def works(client: OpenAI, text: str) -> bool:
    try:
        client.responses.create(model=MODEL, input=text)
    except openai.APIStatusError:
        return False
    return True


def test_a_wish_the_stub_does_not_know_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="unknown field `tokenz`"):
        ask(client, tokenz="3")
    with pytest.raises(openai.BadRequestError, match="tokens"):
        ask(client, tokens="many")


CHAT = "/chat/completions"
GOOD = {"model": MODEL, "messages": ASK}
BAD_SCHEMA = {"type": "json_schema", "json_schema": {"schema": {"properties": 4}}}
MISSING = "missing_required_parameter"


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        (CHAT, {"messages": ASK}, None, None),
        (CHAT, {"model": MODEL}, "messages", MISSING),
        (CHAT, GOOD | {"messages": "hi"}, "messages", "invalid_type"),
        (CHAT, GOOD | {"messages": []}, "messages", "empty_array"),
        (CHAT, GOOD | {"messages": [{}]}, "messages[0].role", MISSING),
        (CHAT, GOOD | {"messages": [{"role": "cat"}]}, "messages[0].role", "invalid_value"),
        (CHAT, GOOD | {"temperature": "hot"}, "temperature", "invalid_type"),
        (CHAT, GOOD | {"temperature": 2.5}, "temperature", "decimal_above_max_value"),
        (CHAT, GOOD | {"n": 0}, "n", "integer_below_min_value"),
        (CHAT, GOOD | {"max_tokens": True}, "max_tokens", "invalid_type"),
        (CHAT, GOOD | {"stream": "yes"}, "stream", "invalid_type"),
        (CHAT, GOOD | {"tools": [{"type": "function"}]}, "tools[0].function", MISSING),
        (CHAT, GOOD | {"model": 4}, "model", "invalid_type"),
        (CHAT, GOOD | {"tools": [{}]}, "tools[0].type", MISSING),
        (CHAT, GOOD | {"response_format": BAD_SCHEMA}, None, "invalid_schema"),
        ("/completions", {"model": MODEL}, "prompt", MISSING),
        ("/embeddings", {"model": MODEL, "input": {"a": 1}}, "input", "invalid_type"),
        ("/embeddings", {"model": MODEL, "input": ["a", 1]}, "input", "invalid_type"),
        ("/images/generations", {"model": MODEL}, "prompt", MISSING),
        ("/responses", {"model": MODEL}, "input", MISSING),
        ("/responses", {"model": MODEL, "input": 4}, "input", "invalid_type"),
        ("/audio/transcriptions", {"model": MODEL}, "file", MISSING),
    ],
)
def test_a_bad_request_is_refused_in_openais_words(
    stub: StubLLM, path: str, body: dict[str, Any], param: str | None, code: str | None
) -> None:
    answer = urllib3.request("POST", stub.url + path, json=body)
    error = answer.json()["error"]
    assert answer.status == 400
    assert ("invalid_request_error", param, code) == (error["type"], error["param"], error["code"])
    assert error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"\xff"', b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(stub: StubLLM, body: bytes) -> None:
    answer = urllib3.request("POST", stub.url + CHAT, body=body)
    assert answer.status == 400
    assert answer.json()["error"]["message"].startswith("We could not parse the JSON body")


def test_an_unknown_path_or_method_is_refused(stub: StubLLM) -> None:
    path = urllib3.request("POST", stub.url + "/nothing", json={})
    method = urllib3.request("GET", stub.url + CHAT)
    assert (path.status, method.status) == (404, 405)
    assert path.json()["error"]["message"] == "Invalid URL (POST /v1/nothing)"
    assert method.json()["error"]["code"] == "method_not_supported"


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_over_20_mb_is_refused(stub: StubLLM, announced: bool) -> None:
    body = b" " * (20 * 1024 * 1024 + 1)
    answer = urllib3.request(
        "POST", stub.url + CHAT, body=body if announced else iter([body]), retries=False
    )
    assert answer.status == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_closing_ends_hung_answers_and_leaves_no_thread() -> None:
    before = threading.active_count()
    raised: list[BaseException] = []

    def wait(url: str) -> None:
        with OpenAI(base_url=url, api_key="stub", max_retries=0, timeout=60) as client:
            try:
                ask(client, mode="hang")
            except openai.APIConnectionError as exc:
                raised.append(exc)

    with StubLLM() as stub:
        caller = threading.Thread(target=wait, args=(stub.url,))
        caller.start()
        while not stub.requests:
            time.sleep(0.001)
    caller.join()
    assert [openai.APIConnectionError] == [type(exc) for exc in raised]
    assert before == threading.active_count()
    assert not listens(stub.url)


def test_it_has_no_address_before_it_starts() -> None:
    with pytest.raises(FlowledgerError, match="before `with` or start"):
        _ = StubLLM().url


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(FlowledgerError, match=f"port {port} is not free"):
            StubLLM(port=port).start()


def listens(url: str) -> bool:
    host, _, port = url.removeprefix("http://").removesuffix("/v1").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_it_runs_in_a_process_of_its_own() -> None:
    with (
        StubLLM.process(latency_ms=1) as stub,
        OpenAI(base_url=stub.url, api_key="stub") as client,
    ):
        assert ask(client).choices[0].message.content
    assert not listens(stub.url)


def test_its_process_leaves_when_the_parent_dies() -> None:
    code = (
        "import os; from flowledger.testing.llm import StubLLM\n"
        "print(StubLLM.process().url, flush=True); os._exit(1)"
    )
    # The stub inherits its parent's error output: this returns when both are gone.
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert not listens(done.stdout.strip())
    assert done.stderr == ""


def test_the_command_says_what_is_wrong() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = [sys.executable, "-m", "flowledger.testing.llm", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"port {port} is not free" in done.stderr


def test_a_command_finds_the_stub_where_it_looks_for_openai_and_anthropic() -> None:
    code = (
        "import anthropic, openai, sys\n"
        "asked = [{'role': 'user', 'content': 'hi'}]\n"
        "chat = openai.OpenAI().chat.completions.create(model='gpt-4o', messages=asked)\n"
        "message = anthropic.Anthropic().messages.create(\n"
        "    model='claude-sonnet-4-5', max_tokens=9, messages=asked)\n"
        "print(chat.model, message.model)\n"
        "sys.exit(7)"
    )
    done = subprocess.run(
        [sys.executable, "-m", "flowledger.testing.llm", "--", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (7, "gpt-4o claude-sonnet-4-5\n", "") == (done.returncode, done.stdout, done.stderr)


def test_a_command_that_is_not_there_is_named() -> None:
    command = [sys.executable, "-m", "flowledger.testing.llm", "--", "no-such-command"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (1, "Error: no-such-command cannot be run: No such file or directory\n") == (
        done.returncode,
        done.stderr,
    )
