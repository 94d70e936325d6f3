"""Anthropic's batches: requests that are sent together, and results that are read one by one."""

import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import msgspec

from flowledger.capture.reading import field
from flowledger.integrations.anthropic_reading import ENDPOINTS
from flowledger.integrations.sdk_batches import Batch, Result, record_result, remember
from flowledger.integrations.sdk_call import never_raises
from flowledger.records import Outcome

__all__ = ["saw_batch"]

MOST = 1000
ENDPOINT = ENDPOINTS["v1/messages"]

_path = re.compile(r"v1/messages/batches(?:/(?P<id>[^/]+)(?P<results>/results)?)?")


class _Batches:
    """The latest batches seen, by id."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[str, Batch] = OrderedDict()

    def add(self, provider: str, batch: Any) -> None:
        ended = batch.ended_at
        self._by_id[batch.id] = Batch(
            provider=provider,
            id=batch.id,
            created=batch.created_at.timestamp(),
            ended=None if ended is None else ended.timestamp(),
            sent=batch.id,
        )
        if len(self._by_id) > MOST:
            self._by_id.popitem(last=False)

    def of(self, batch_id: str, provider: str) -> Batch:
        return self._by_id.get(batch_id) or Batch(provider, batch_id, sent=batch_id)


_batches = _Batches()


def saw_batch(provider: str, options: Any, answer: Any) -> None:
    """Remember the batches that pass by; record their results as the caller reads them."""
    found = _path.search(options.url.partition("?")[0])
    if found is None:
        return
    if found["results"]:
        batch = _batches.of(found["id"], provider)
        _follow(answer, lambda line: _record(batch, line))
        return
    if isinstance(options.json_data, Mapping):
        requests = options.json_data.get("requests") or ()
        encode = msgspec.json.encode
        bodies = {one["custom_id"]: encode(one["params"], enc_hook=str) for one in requests}
        remember(answer.id, bodies)
    for batch in field(answer, "data") or [answer]:
        if field(batch, "type") == "message_batch":
            _batches.add(provider, batch)


def _follow(lines: Any, saw: Callable[[Any], object]) -> None:
    """Show each line of a decoder to `saw`; the decoder stays the caller's own."""

    def each(given: Iterator[Any]) -> Iterator[Any]:
        for line in given:
            saw(line)
            yield line

    async def each_async(given: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for line in given:
            saw(line)
            yield line

    asynchronous = hasattr(type(lines), "__anext__")
    lines._iterator = each_async(lines._iterator) if asynchronous else each(lines._iterator)


@never_raises
def _record(batch: Batch, line: Any) -> None:
    custom_id, result = line.custom_id, line.result
    message = field(result, "message")
    outcome = None if message is not None else _failure(result)
    record_result(batch, ENDPOINT, Result(f"{batch.id} {custom_id}", custom_id, message, outcome))


def _failure(result: Any) -> Outcome:
    error = field(field(result, "error"), "error")
    name = field(error, "type") or f"batch_{field(result, 'type')}"
    return Outcome(success=False, error_type=str(name), message=field(error, "message"))
