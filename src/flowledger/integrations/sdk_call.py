"""One call of a provider's API under way: begun, then ended exactly once, in whichever way."""

import functools
import os
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import msgspec

from flowledger import logs
from flowledger.asynchronous import reraise_asynchronous
from flowledger.capture import recorder
from flowledger.capture.context import carried
from flowledger.capture.freezing import freeze_fields
from flowledger.capture.reading import field
from flowledger.integrations import nesting
from flowledger.integrations.sdk_endpoints import Endpoint, Fields, asked, whole_body
from flowledger.integrations.sdk_parts import Parts
from flowledger.records import Outcome

__all__ = ["Recording", "never_raises"]

P = ParamSpec("P")
R = TypeVar("R")

LEFT = "closed by the caller before its end"
CUT = "the end of the streamed answer was not kept: it is too long"
NOT_READ = "the answer was taken as raw bytes: its content is not recorded"
UNREAD = "the answer could not be read"
NOT_UNDERSTOOD = "the request could not be read"
SHORTEST_SECRET = 8

_illegal_header = re.compile(r"(Illegal header (?:name|value) )b?(['\"]).*?\2")


def never_raises(function: Callable[P, R]) -> Callable[P, R | None]:
    """The function; what it raises is logged, and None comes back."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as exc:  # noqa: BLE001 - no fault of ours may reach the application
            reraise_asynchronous(exc)
            name = function.__qualname__
            logs.warn("client", "a call is not recorded: %s in %s", type(exc).__name__, name)
            return None

    return guarded


class Recording:
    """A call that began, as it will be recorded.

    The context in force now is the one recorded, wherever and whenever the call ends.

    Args:
        endpoint: how to read what is asked and answered.
        body: the request's fields.
        about: fields of `Call` that the client tells, such as `provider`.
        secrets: gives the API keys, which no record may hold.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        body: Mapping[str, Any],
        about: Fields,
        secrets: Callable[[], list[str]],
    ) -> None:
        self.endpoint = endpoint
        # The caller may go on with its own lists while the answer is on its way.
        self._asked = _safely(lambda: _read_request(endpoint, body), NOT_UNDERSTOOD)
        self._about = about
        self._secrets = secrets
        self._context = carried.get()
        self._once = threading.Lock()
        self._pid = os.getpid()
        self.pending = recorder.begin()

    def answered(self, answer: Any) -> None:
        """It worked."""
        self._end(lambda: self._read(answer))

    def taken_raw(self, response: Any) -> None:
        """It worked, and the caller takes the HTTP response, which may never have been read."""
        self._end(lambda: self._read_raw(response))

    def streamed(self, parts: Parts) -> None:
        """It worked, and its stream ended."""
        self._end(lambda: self._read_parts(parts))

    def left(self, parts: Parts, last_ns: int) -> None:
        """The caller wants no more of the stream, as of the last chunk it took."""
        notes = [] if parts.complete else [LEFT]
        also = {"notes": notes, "duration_ns": last_ns - self.pending.started}
        # A forked child has the streams of its parent, and they are not its own to end.
        if self._pid == os.getpid():
            self._end(lambda: self._read_parts(parts), lambda: also)

    def failed(self, error: BaseException, parts: Parts | None = None) -> None:
        """It raised; parts of a stream that came before are kept, and so is a rejected answer."""
        answer = getattr(error, "completion", None)

        def read() -> Fields:
            if parts is not None:
                return self._read_parts(parts)
            return {} if answer is None else self._read(answer)

        nesting.note_error(error)
        self._end(read, lambda: self._failure(error))

    def _end(self, read: Callable[[], Fields], also: Callable[[], Fields] = dict) -> None:
        if self._once.acquire(blocking=False):
            self._record(read, also)

    @never_raises
    def _record(self, read: Callable[[], Fields], also: Callable[[], Fields]) -> None:
        token = carried.set(self._context)
        try:
            recorder.finish(self.pending, lambda: self._fields(_safely(read, UNREAD), also()))
        finally:
            carried.reset(token)

    def _fields(self, told: Fields, also: Fields) -> Fields:
        given = self._asked
        settings = told.get("settings", {})
        for name, value in given.get("settings", {}).items():
            if name not in settings or value not in (None, "auto"):
                settings[name] = value
        together = {
            "settings": settings,
            "params": {**told.get("params", {}), **also.get("params", {})},
            "notes": [*given["notes"], *told.get("notes", []), *also.get("notes", [])],
            "tool_calls": [*given.get("tool_calls", []), *told.get("tool_calls", [])],
        }
        return {**self._about, **given, **told, **also, **together}

    def _read(self, answer: Any) -> Fields:
        nesting.note(field(answer, "id"))
        return self.endpoint.read(answer)

    def _read_raw(self, response: Any) -> Fields:
        try:
            return self._read(whole_body(response))
        except RuntimeError:  # httpx and httpx2: its body was not read, or read bit by bit
            return {"notes": [NOT_READ]}

    def _read_parts(self, parts: Parts) -> Fields:
        return {**self._read(parts.answer()), "notes": [CUT] if parts.cut else []}

    def _failure(self, error: BaseException) -> Fields:
        status = getattr(error, "status_code", None)
        outcome = _without(self._secrets(), recorder.failure(error))
        return {"outcome": outcome, "params": {"error_status": status} if status else {}}


def _read_request(endpoint: Endpoint, body: Mapping[str, Any]) -> Fields:
    """Return the fields of a `Call` that the request tells, as it is now."""
    fields = asked(endpoint, body)
    notes: list[str] = []
    settings = freeze_fields(fields["settings"], notes)
    prompt = freeze_fields({"prompt": fields["prompt"]}, notes)
    results = _safely(lambda: {"tool_calls": endpoint.results(body)}, UNREAD)
    return {**fields, **prompt, "settings": settings, **results, "notes": notes}


def _safely(read: Callable[[], Fields], note: str) -> Fields:
    """Return what is read; a call whose request or answer cannot be read is recorded without it."""
    try:
        return read()
    except Exception as exc:  # noqa: BLE001 - what an unknown server takes and sends may be anything
        reraise_asynchronous(exc)
        logs.warn("client", "%s: %s", note, type(exc).__name__)
        return {"notes": [note]}


def _without(secrets: list[str], outcome: Outcome) -> Outcome:
    """The outcome without API keys and headers, which some errors quote."""
    texts = [_illegal_header.sub(r"\1***", text or "") for text in (outcome.message, outcome.stack)]
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            texts = [text.replace(secret, "***") for text in texts]
    return msgspec.structs.replace(outcome, message=texts[0], stack=texts[1])
