"""How a caller steers one answer, and the errors OpenAI would answer with."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

HEADER = "x-stub-"
_Tokens = Annotated[int, Meta(ge=0, le=200_000)]
_Seconds = Annotated[float, Meta(ge=0, le=3600)]


class Steer(msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True):
    """What the caller asked of the stub itself; `flowledger.testing.llm` explains each."""

    tokens: _Tokens | None = None
    reasoning_tokens: _Tokens = 0
    cached_tokens: _Tokens = 0
    cache_write_tokens: _Tokens = 0
    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    mode: Literal["hang", "cut", "malformed"] | None = None
    fail_times: Annotated[int, Meta(ge=0)] | None = None
    key: str | None = None
    retry_after: _Seconds = 1.0
    delay: _Seconds | None = None
    chunk_delay: _Seconds | None = None


class Refusal(Exception):
    """An answer of OpenAI's that is an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "type": kind, "param": param, "code": code}
        self.headers = dict(headers or {})


# Status: type, code and message, as OpenAI words them.
_REFUSALS: dict[int, tuple[str, str | None, str]] = {
    401: (
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided: stub. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
    ),
    403: (
        "request_forbidden",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported",
    ),
    404: (
        "invalid_request_error",
        "model_not_found",
        "The model does not exist or you do not have access to it.",
    ),
    429: (
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached for requests. Please try again later.",
    ),
    503: (
        "server_error",
        None,
        "The engine is currently overloaded, please try again later",
    ),
}
_OTHER_4XX = ("invalid_request_error", None, "The request was refused, as asked by x-stub-status.")
_OTHER_5XX = (
    "server_error",
    None,
    "The server had an error while processing your request. Sorry about that!",
)


def refusal(status: int, retry_after: float) -> Refusal:
    """The error OpenAI sends with that status; 429 and 503 say when to come back."""
    kind, code, message = _REFUSALS.get(status, _OTHER_5XX if status >= 500 else _OTHER_4XX)
    headers = {}
    if status in (429, 503):
        # Whole seconds are all that HTTP allows; OpenAI's clients read the other one first.
        headers = {
            "retry-after": str(max(1, round(retry_after))),
            "retry-after-ms": str(round(retry_after * 1000)),
        }
    return Refusal(status, message, kind=kind, code=code, headers=headers)


def steering(headers: Mapping[str, str], model: Any) -> tuple[Steer, Any]:
    """The caller's wishes and the model's own name; a header wins over the model's marker."""
    name, _, marker = model.partition("?") if isinstance(model, str) else (model, "", "")
    wishes = dict(parse_qsl(marker, keep_blank_values=True)) | _of_headers(headers.items())
    if not wishes:
        return _NO_WISH, name
    try:
        return msgspec.convert(wishes, Steer, strict=False), name
    except msgspec.ValidationError as exc:
        raise Refusal(400, f"x-stub: {exc}. See flowledger.testing.llm.", code="x_stub") from exc


_NO_WISH = Steer()


def _of_headers(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.removeprefix(HEADER): value for name, value in headers if name.startswith(HEADER)}


class Failures:
    """How often each key has failed so far, for `fail-times`; the oldest keys are forgotten."""

    def __init__(self, keep: int = 10_000) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._keep = keep

    def due(self, key: str, times: int) -> bool:
        """Whether this request is one of the first `times` with that key; it is counted."""
        failed = self._counts.get(key, 0)
        if failed >= times:
            return False
        self._counts[key] = failed + 1
        if len(self._counts) > self._keep:
            self._counts.popitem(last=False)
        return True
