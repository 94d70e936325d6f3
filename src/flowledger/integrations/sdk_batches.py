"""Calls made in a provider's batch: recorded when their results are fetched, once each.

What was asked is known where this process sent the batch, and who asked then too; the results of
any other are recorded without. A result has the same id in every process that fetches it, so that
the store keeps it once.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from flowledger.capture import recorder
from flowledger.capture.context import Context, Pending, carried
from flowledger.capture.reading import field
from flowledger.integrations.sdk_endpoints import Body, Endpoint, Fields, asked
from flowledger.records import Outcome, fixed_id, unix_ns

__all__ = ["MOST_BYTES", "Batch", "Result", "record_result", "remember"]

MOST_BYTES = 32 << 20
MOST_SENT = 1000
MOST_RESULTS = 100_000
UNASKED = "what was asked is not known: another process sent the batch"
BATCH = {"processing": "batch"}  # in the words of the price list


class _Sent(NamedTuple):
    """The requests of a batch by the caller's ids for them, as JSON, and the context they had."""

    bodies: Mapping[str, bytes]
    context: Context


class Batch(NamedTuple):
    """A batch: who runs it, its id, when it began and ended (Unix seconds), its key in memory."""

    provider: str
    id: str | None = None
    created: float | None = None
    ended: float | None = None
    sent: str = ""


class Result(NamedTuple):
    """One result: the provider's id for it, the caller's, and what came of it.

    `outcome` is None where it worked.
    """

    key: str
    custom_id: str
    answer: Any = None
    outcome: Outcome | None = None


class _Memory:
    """The batches sent by this process, newest kept, in bounded memory.

    Without a lock: each step is one of the interpreter's own, and a forked child must not find a
    lock that nobody is left to open.
    """

    def __init__(self) -> None:
        self._sent: OrderedDict[str, _Sent] = OrderedDict()
        self._recorded: OrderedDict[str, object] = OrderedDict()

    def put(self, key: str, sent: _Sent) -> None:
        self._sent[key] = sent
        while len(self._sent) > MOST_SENT or sum(map(_size, self._sent.values())) > MOST_BYTES:
            self._sent.popitem(last=False)

    def get(self, key: str) -> _Sent | None:
        return self._sent.get(key)

    def first(self, call_id: str) -> bool:
        """Whether this result was not recorded by this process yet."""
        mark = object()
        if len(self._recorded) >= MOST_RESULTS:
            self._recorded.popitem(last=False)
        return self._recorded.setdefault(call_id, mark) is mark


_memory = _Memory()


def _size(sent: _Sent) -> int:
    return sum(map(len, sent.bodies.values()))


def remember(key: str, bodies: Mapping[str, bytes]) -> None:
    """The requests of a batch that is being sent, under a name its results will lead to."""
    _memory.put(key, _Sent(bodies, carried.get()))


def record_result(batch: Batch, endpoint: Endpoint, result: Result) -> None:
    """Record one call of a batch, unless this process has.

    Args:
        batch: the batch it was part of.
        endpoint: how to read what was asked and answered.
        result: what came of it.
    """
    made = _made(result)
    start_ns = unix_ns(batch.created or made or time.time())
    # A process that has only the answer must come to the same id.
    call_id = fixed_id(f"{batch.provider} {result.key}", unix_ns(made) if made else start_ns)
    if not _memory.first(call_id):
        return
    sent = _memory.get(batch.sent)
    body = _body_of(sent, result.custom_id)
    token = carried.set(carried.get() if sent is None else sent.context)
    try:
        pending = Pending(call_id, start_ns, time.perf_counter_ns())
        end = made or batch.ended
        took_ns = max(0, unix_ns(end) - start_ns) if end else 0
        told: Fields = {"provider": batch.provider, "duration_ns": took_ns}
        if result.outcome is not None:
            told["outcome"] = result.outcome
        recorder.finish(pending, lambda: {**_fields(batch, endpoint, result, body), **told})
    finally:
        carried.reset(token)


def _body_of(sent: _Sent | None, custom_id: str) -> Body | None:
    encoded = None if sent is None else sent.bodies.get(custom_id)
    body: Body | None = None if encoded is None else msgspec.json.decode(encoded)
    return body


def _made(result: Result) -> float | None:
    """When the answer says that it was made; some are not dated."""
    made = field(result.answer, "created", "created_at")
    return made if isinstance(made, int | float) else None


def _fields(batch: Batch, endpoint: Endpoint, result: Result, body: Body | None) -> Fields:
    given = asked(endpoint, body or {})
    told = {} if result.answer is None else endpoint.read(result.answer)
    names = {"batch_id": batch.id, "custom_id": result.custom_id}
    return {
        **given,
        **told,
        "settings": {**told.get("settings", {}), **given["settings"], **BATCH},
        "params": {**told.get("params", {}), **{k: v for k, v in names.items() if v is not None}},
        "tool_calls": [*endpoint.results(body or {}), *told.get("tool_calls", [])],
        "notes": [] if body is not None else [UNASKED],
    }
