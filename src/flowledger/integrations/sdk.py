"""Recording every call of a client that was generated from an API's description by Stainless.

`openai` and `anthropic` are. All resources of such a client end in its `request`: `create`,
`parse`, the `stream` helpers, raw responses and structured output, with the client's own retries
inside. So `request` is replaced, on this client alone, and `copy` and `with_options`, whose clients
are recorded too.
"""

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

from flowledger.capture import recorder
from flowledger.integrations import nesting
from flowledger.integrations.sdk_call import Recording, never_raises
from flowledger.integrations.sdk_endpoints import Endpoint
from flowledger.integrations.sdk_stream import follow_stream, follow_unread, is_stream

__all__ = ["Sdk", "caller", "install", "is_local"]

RAW_RESPONSE = "X-Stainless-Raw-Response"
NOT_SENT = ("Omit", "NotGiven")
REFUSED = (400, 422)
USAGE_WORDS = ("stream_options", "include_usage")
OURS = "flowledger."
NO_CALLER = ("asyncio", "concurrent", "threading")


class Sdk(NamedTuple):
    """What is a package's own.

    `endpoints` are known by the path of their POST. `provider` says who answers a client. `saw`
    gets the client, the options and the answer of every other request, and may raise. `secrets`
    names the client's attributes that no record may hold.
    """

    package: str
    endpoints: Mapping[str, Endpoint]
    provider: Callable[[Any], str]
    saw: Callable[[Any, Any, Any], None]
    secrets: tuple[str, ...]


def install(client: Any, sdk: Sdk) -> None:
    """Record every call of this client from now on, once however often this is done.

    A `copy.copy` of the client is not recorded until it is wrapped.
    """
    if getattr(client.request, "records_calls", False):
        return
    seam = _Seam(client, sdk)
    asynchronous = inspect.iscoroutinefunction(client.request)
    request = seam.asynchronous() if asynchronous else seam.synchronous()
    replaced = {
        "request": functools.wraps(client.request)(request),
        "copy": _recorded_too(client.copy, sdk),
        "with_options": _recorded_too(client.with_options, sdk),
    }
    vars(replaced["request"])["records_calls"] = True

    def state() -> dict[str, Any]:
        """For `copy.copy`, whose client must not send its requests through this one."""
        return {k: v for k, v in vars(client).items() if k not in (*replaced, "__getstate__")}

    vars(client).update(replaced, __getstate__=state)


def _recorded_too(make: Callable[..., Any], sdk: Sdk) -> Callable[..., Any]:
    @functools.wraps(make)
    def made(*args: Any, **kwargs: Any) -> Any:
        client = make(*args, **kwargs)
        install(client, sdk)
        return client

    return made


def is_local(host: str) -> bool:
    """Whether it is this host: stubs, proxies and gateways here answer in the provider's place."""
    return host in ("localhost", "::1") or host.startswith("127.")


@dataclass(slots=True)
class _Attempt:
    """A request to record: `sent` asks for the usage where `options`, the caller's own, do not."""

    call: Recording
    model: str
    options: Any
    sent: Any
    raw: str | None
    streamed: bool


class _Seam:
    """What stands between one client's resources and its `request`."""

    def __init__(self, client: Any, sdk: Sdk) -> None:
        self._client = client
        self._sdk = sdk
        self._send = client.request
        self._without_usage: set[str] = set()

    def synchronous(self) -> Callable[..., Any]:
        """The `request` of a synchronous client."""
        send = self._send

        def request(cast_to: Any, options: Any, **how: Any) -> Any:
            attempt = self._begin(options, how)
            if attempt is None:
                answer = send(cast_to, options, **how)
                self._saw(options, answer)
                return answer
            while True:
                try:
                    answer = send(cast_to, attempt.sent, **how)
                except BaseException as exc:
                    if self._goes_without_usage(attempt, exc):
                        continue
                    attempt.call.failed(exc)
                    raise
                _follow(answer, attempt)
                return answer

        return request

    def asynchronous(self) -> Callable[..., Any]:
        """The `request` of an asynchronous client."""
        send = self._send

        async def request(cast_to: Any, options: Any, **how: Any) -> Any:
            attempt = self._begin(options, how)
            if attempt is None:
                answer = await send(cast_to, options, **how)
                self._saw(options, answer)
                return answer
            while True:
                try:
                    answer = await send(cast_to, attempt.sent, **how)
                except BaseException as exc:
                    if self._goes_without_usage(attempt, exc):
                        continue
                    attempt.call.failed(exc)
                    raise
                _follow(answer, attempt)
                return answer

        return request

    @never_raises
    def _saw(self, options: Any, answer: Any) -> None:
        if _raw(options) is None and recorder.active() is not None:
            self._sdk.saw(self._client, options, answer)

    @never_raises
    def _begin(self, options: Any, how: Mapping[str, Any]) -> _Attempt | None:
        endpoint = self._sdk.endpoints.get(options.url.partition("?")[0].strip("/"))
        if endpoint is None or options.method.lower() != "post":
            return None
        if recorder.active() is None or nesting.covered():
            return None
        body = _body(options)
        raw, streamed = _raw(options), bool(how.get("stream"))
        asks = endpoint.asks_usage and streamed and not raw
        about = {
            "provider": self._sdk.provider(self._client),
            "function": caller(self._sdk.package),
        }
        return _Attempt(
            call=Recording(endpoint, body, about, self._secrets),
            model=str(body.get("model")),
            options=options,
            sent=self._asking_usage(options, body) if asks else options,
            raw=raw,
            streamed=streamed,
        )

    def _asking_usage(self, options: Any, body: Mapping[str, Any]) -> Any:
        """The options, with the usage asked for where the caller does not and the server can."""
        wanted = body.get("stream_options") or {}
        if wanted.get("include_usage") or str(body.get("model")) in self._without_usage:
            return options
        sent = copy.copy(options)
        # `extra_json` wins over the body, wherever the caller's own wishes stand.
        wanted = {"stream_options": {**wanted, "include_usage": True}}
        sent.extra_json = {**(options.extra_json or {}), **wanted}
        return sent

    @never_raises
    def _goes_without_usage(self, attempt: _Attempt, error: BaseException) -> bool:
        """Whether the server refused what only we asked for: nothing ran, so send it without."""
        if attempt.sent is attempt.options or not _refuses_usage(error):
            return False
        self._without_usage.add(attempt.model)
        attempt.sent = attempt.options
        return True

    def _secrets(self) -> list[str]:
        """What must not be in a record, though an error may quote it."""
        values = (getattr(self._client, name, None) for name in self._sdk.secrets)
        return [value.strip() for value in values if isinstance(value, str)]


@never_raises
def _follow(answer: Any, attempt: _Attempt) -> None:
    """Record what came, now or when the caller has read it."""
    call = attempt.call
    if is_stream(answer):
        follow_stream(answer, call, hides_usage=attempt.sent is not attempt.options)
    elif not attempt.raw:
        call.answered(answer)
    elif attempt.raw != "stream" and not attempt.streamed:
        call.taken_raw(answer.http_response)
    else:
        follow_unread(answer, call)


def _body(options: Any) -> dict[str, Any]:
    """The fields that are sent, uploaded files by their names; none where bytes are sent.

    anthropic 2.x leaves out what was not given only when it writes the JSON.
    """
    files = {"files": _file_names(options.files)} if options.files else None
    parts = (files, options.json_data, options.extra_json)
    maps = (part for part in parts if isinstance(part, Mapping))
    fields = {name: value for part in maps for name, value in part.items()}
    return {n: value for n, value in fields.items() if type(value).__name__ not in NOT_SENT}


def _file_names(files: Any) -> list[str | None]:
    """Names of uploads, which are content, a file, or a tuple that begins with a name."""
    uploads = files.values() if isinstance(files, Mapping) else (upload for _, upload in files)
    names = (u[0] if isinstance(u, tuple) else getattr(u, "name", None) for u in uploads)
    return [name if isinstance(name, str) else None for name in names]


def _raw(options: Any) -> str | None:
    """`true`, in newer packages `raw`, or `stream` when the caller asked for the raw response."""
    headers = options.headers
    return headers.get(RAW_RESPONSE) if isinstance(headers, Mapping) else None


def _refuses_usage(error: BaseException) -> bool:
    if getattr(error, "status_code", None) not in REFUSED:
        return False
    told = f"{error} {getattr(error, 'body', '')}"
    return any(word in told for word in USAGE_WORDS)


def caller(sdk: str) -> str | None:
    """The function outside a client's package that made this call; None for a task of its own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        package = module.partition(".")[0]
        if package in NO_CALLER:
            return None
        if package != sdk and not module.startswith(OURS):
            return f"{module}.{frame.f_code.co_qualname}"
        frame = frame.f_back
    return None
