"""FastAPI and Starlette applications: every call knows the request it was made for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.websockets import WebSocket

import flowledger
from flowledger.integrations.asgi import HEADERS, FlowledgerMiddleware, outgoing
from flowledger.records import Call
from flowledger.testing import capture_calls

SENT = {
    "X-Session-ID": "s-1",
    "X-Request-ID": "r-1",
    "X-Audit-Reason": "refund",
    "X-User-ID": "eve",
}


def application(**options: Any) -> FastAPI:
    app = FastAPI()

    @app.get("/async")
    async def answer() -> None:
        flowledger.record(model="gpt-4o", operation="async")

    @app.get("/sync")
    def answer_in_a_thread() -> None:
        flowledger.record(model="gpt-4o", operation="sync")

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(_pieces())

    @app.get("/sync-stream")
    def stream_from_a_thread() -> StreamingResponse:
        return StreamingResponse(_pieces_of_a_thread())

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> None:
        tasks.add_task(flowledger.record, model="gpt-4o")

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        flowledger.record(model="gpt-4o")
        await websocket.close()

    app.add_middleware(FlowledgerMiddleware, **options)
    return app


async def _pieces() -> AsyncIterator[str]:
    yield "a"
    await asyncio.sleep(0)
    flowledger.record(model="gpt-4o")
    yield "b"


def _pieces_of_a_thread() -> Iterator[str]:
    yield "a"
    flowledger.record(model="gpt-4o")
    yield "b"


def asked(app: Any, path: str, **headers: str) -> Call:
    with capture_calls() as calls, TestClient(app) as client:
        assert 200 == client.get(path, headers=headers).status_code
    [call] = calls
    return call


@pytest.mark.parametrize("path", ["/async", "/sync", "/stream", "/sync-stream", "/later"])
def test_a_call_has_the_session_the_reason_and_the_id_of_its_request(path: str) -> None:
    call = asked(application(), path, **SENT)
    assert ("s-1", "refund") == (call.actor.session_id, call.actor.audit_reason)
    assert ({"request_id": "r-1"}, None) == (call.tags, call.actor.user_id)


def test_a_websocket_has_its_context_too() -> None:
    with (
        capture_calls() as calls,
        TestClient(application()) as client,
        client.websocket_connect("/socket", headers=SENT),
    ):
        pass
    assert ["s-1"] == [call.actor.session_id for call in calls]


def test_a_request_without_an_id_gets_one() -> None:
    app = application()
    first, second = (asked(app, "/async").tags["request_id"] for _ in range(2))
    assert (32, True) == (len(first), first != second)


def test_a_user_in_a_header_is_believed_only_when_told_so() -> None:
    believing = application(headers={**HEADERS, "user_id": "X-User-ID", "tenant": "X-Tenant"})
    call = asked(believing, "/async", **SENT, **{"X-Tenant": "acme"})
    assert ("eve", "acme") == (call.actor.user_id, call.tags["tenant"])


@pytest.mark.parametrize("odd", ["x" * 257, "a\x01b", "   "], ids=["long", "control", "empty"])
def test_odd_values_of_headers_are_left_out(odd: str) -> None:
    assert None is asked(application(), "/async", **{"X-Session-ID": odd}).actor.session_id


def test_the_user_that_starlette_found_is_the_callers() -> None:
    class Known(AuthenticationBackend):
        async def authenticate(self, conn: Any) -> Any:
            return AuthCredentials(["authenticated"]), SimpleUser("ana")

    app = application()
    app.add_middleware(AuthenticationMiddleware, backend=Known())
    assert "ana" == asked(app, "/async", **SENT).actor.user_id


def _raises(scope: Any) -> dict[str, str]:
    raise KeyError("no user")


def _of_the_path(scope: Any) -> dict[str, str]:
    return {"feature": scope["path"].strip("/"), "session_id": "own"}


@pytest.mark.parametrize(
    ("extractors", "expected"),
    [
        ([_of_the_path], ("async", "own")),
        ([_raises], (None, "s-1")),
        ([_raises, _of_the_path], ("async", "own")),
    ],
)
def test_extractors_of_ones_own_win_and_may_fail(
    extractors: list[Callable[[Any], Any]], expected: tuple[str, str]
) -> None:
    call = asked(application(extractors=extractors), "/async", **SENT)
    assert expected == (call.feature, call.actor.session_id)


def test_nothing_is_left_of_one_request_in_the_next() -> None:
    app = application()
    asked(app, "/async", **SENT)
    assert None is asked(app, "/async").actor.session_id


def test_a_context_goes_on_to_another_service_as_headers() -> None:
    tags = {"request_id": "r-1", "team": "red"}
    with flowledger.context(user_id="ana", session_id="s-1", audit_reason="café", tags=tags):
        found = outgoing({**HEADERS, "user_id": "x-user-id", "team": "x-team", "no": "x-no"})
    assert {
        "x-session-id": "s-1",
        "x-request-id": "r-1",
        "x-user-id": "ana",
        "x-team": "red",
    } == found
    assert {} == outgoing()
