"""OpenAI's batches: files of requests that go up, and files of results that come down."""

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from flowledger.capture.reading import field
from flowledger.integrations.openai_reading import ENDPOINTS
from flowledger.integrations.sdk_batches import (
    MOST_BYTES,
    Batch,
    Result,
    record_result,
    remember,
)
from flowledger.integrations.sdk_endpoints import Endpoint, always
from flowledger.records import Kind, Outcome

__all__ = ["saw_file_or_batch"]

MOST = 1000
# How every line of a batch's results begins, and of no other file.
RESULTS = re.compile(rb'\s*\{"id":\s*"batch_req_')
# What an answer says it is, and the endpoint it comes from.
OBJECTS = {
    "chat.completion": "chat/completions",
    "text_completion": "completions",
    "response": "responses",
    "list": "embeddings",
}

# For results that tell neither: those that failed, of a batch that was not seen.
UNKNOWN = ENDPOINTS["chat/completions"]._replace(operation="batch", kind=always(Kind.CUSTOM))

_content = re.compile(r"files/([^/]+)/content")


class _Request(msgspec.Struct):
    """A line of the file that goes up."""

    custom_id: str
    body: msgspec.Raw


class _Response(msgspec.Struct):
    status_code: int = 0
    body: Any = None


class _Line(msgspec.Struct):
    """A line of the file that comes down."""

    id: str
    custom_id: str
    response: _Response | None = None
    error: Any = None


class _Seen(NamedTuple):
    """A batch that this process saw, and the endpoint it is for."""

    batch: Batch
    endpoint: str


class _Batches:
    """The latest batches seen, by the files that hold their results."""

    def __init__(self) -> None:
        self._by_file: OrderedDict[str, _Seen] = OrderedDict()

    def add(self, provider: str, batch: Any) -> None:
        known = Batch(
            provider=provider,
            id=batch.id,
            created=batch.created_at,
            ended=field(batch, "completed_at", "cancelled_at", "expired_at"),
            sent=batch.input_file_id,
        )
        for name in filter(None, (batch.output_file_id, batch.error_file_id)):
            self._by_file[name] = _Seen(known, batch.endpoint)
            if len(self._by_file) > MOST:
                self._by_file.popitem(last=False)

    def of(self, file_id: str, provider: str) -> _Seen:
        return self._by_file.get(file_id) or _Seen(Batch(provider), "")


_batches = _Batches()


def saw_file_or_batch(provider: str, options: Any, answer: Any) -> None:
    """Remember the batches and the requests that pass by; record the results that come down."""
    path = options.url.partition("?")[0].strip("/")
    if path == "files" and field(answer, "purpose") == "batch":
        remember(answer.id, dict(_requests(_uploaded(options.files))))
    elif path.partition("/")[0] == "batches":
        for batch in field(answer, "data") or [answer]:
            if field(batch, "object") == "batch":
                _batches.add(provider, batch)
    elif found := _content.fullmatch(path):
        _record(_batches.of(found[1], provider), _bytes(answer))


def _uploaded(files: Any) -> bytes:
    """What was uploaded; a file of the caller's is left where it was."""
    [upload] = files.values() if isinstance(files, Mapping) else [value for _, value in files]
    content = upload[1] if isinstance(upload, tuple) else upload
    if hasattr(content, "read"):
        position = content.tell()
        content.seek(0)
        data = content.read(MOST_BYTES + 1)
        content.seek(position)
        return data if isinstance(data, bytes) else str(data).encode()
    return bytes(content)


def _requests(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The requests of a file; none where they are too many to remember."""
    if len(data) > MOST_BYTES:
        return
    for line in data.splitlines():
        if line.strip():
            request = msgspec.json.decode(line, type=_Request)
            yield request.custom_id, bytes(request.body)


def _bytes(answer: Any) -> bytes:
    return answer.encode() if isinstance(answer, str) else answer.content


def _record(seen: _Seen, data: bytes) -> None:
    if not RESULTS.match(data):
        return
    for text in data.splitlines():
        if text.strip():
            result = _result(msgspec.json.decode(text, type=_Line))
            record_result(seen.batch, _endpoint(seen, result), result)


def _result(line: _Line) -> Result:
    response = line.response or _Response()
    error = line.error or (field(response.body, "error") if response.status_code >= 400 else None)
    if error is None:
        return Result(line.id, line.custom_id, answer=response.body)
    name = str(field(error, "code", "type") or "BatchError")
    message = field(error, "message")
    failed = Outcome(success=False, error_type=name, message=message and str(message))
    return Result(line.id, line.custom_id, outcome=failed)


def _endpoint(seen: _Seen, result: Result) -> Endpoint:
    path = seen.endpoint.removeprefix("/v1/") or OBJECTS.get(field(result.answer, "object"), "")
    return ENDPOINTS.get(path, UNKNOWN)
