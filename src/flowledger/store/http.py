"""Delivering to a flowledger server: the journal's frames as they are, over HTTP."""

import gzip
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
import urllib3

from flowledger.errors import StoreMisconfigured, StoreUnavailable
from flowledger.journal.frames import frame
from flowledger.store import Refusal

__all__ = ["CALLS_PATH", "FRAMES", "HEALTH_PATH", "HttpSink", "is_flowledger"]

CALLS_PATH = "/api/flowledger/v1/calls"
HEALTH_PATH = "/api/flowledger/v1/health"
FRAMES = "application/vnd.flowledger.frames"
TIMEOUT = urllib3.Timeout(connect=5, read=60)


class _Refused(msgspec.Struct):
    index: int
    reason: str


class _Answer(msgspec.Struct):
    refused: list[_Refused] = msgspec.field(default_factory=list)


class HttpSink:
    """A `Sink` that posts batches to a flowledger server.

    Args:
        url: the server, as in `http://host:5000`.
        token: bearer key, when the server wants one.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self._url = url.rstrip("/") + CALLS_PATH
        self._headers = {"Content-Type": FRAMES, "Content-Encoding": "gzip"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._pool = _pool()

    batch_bytes = 1 << 20

    def write(self, payloads: Sequence[bytes], *, redelivered: bool = False) -> list[Refusal]:
        """Post a batch; one that is too large for the server goes in halves."""
        if not payloads:
            return []
        body = gzip.compress(b"".join(map(frame, payloads)), compresslevel=1)
        response = _request(self._pool, "POST", self._url, body=body, headers=self._headers)
        if response.status == 413:
            return self._in_halves(payloads)
        _raise_for(response, self._url)
        answer = msgspec.json.decode(response.data, type=_Answer)
        return [Refusal(item.index, item.reason) for item in answer.refused]

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.clear()

    def _in_halves(self, payloads: Sequence[bytes]) -> list[Refusal]:
        """The first half is stored before the second is sent: producers stay ahead of records."""
        if len(payloads) == 1:
            return [Refusal(0, "too large for the server")]
        middle = len(payloads) // 2
        first = self.write(payloads[:middle])
        second = self.write(payloads[middle:])
        return [*first, *(Refusal(middle + place, reason) for place, reason in second)]


def is_flowledger(url: str) -> bool:
    """Whether a flowledger server answers there, rather than a plain MLflow server.

    Raises:
        StoreUnavailable: nothing answers.
    """
    response = _request(_pool(), "GET", url.rstrip("/") + HEALTH_PATH)
    if response.status >= 500:
        raise StoreUnavailable(f"{url} answers {response.status}")
    return response.status == 200 and b'"flowledger"' in response.data


@cache
def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(num_pools=2, maxsize=1, retries=False, timeout=TIMEOUT)


# A connection that a forked child went on using would mix its answers with its parent's.
os.register_at_fork(after_in_child=_pool.cache_clear)


def _request(
    pool: urllib3.PoolManager, method: str, url: str, **arguments: Any
) -> urllib3.BaseHTTPResponse:
    try:
        return pool.request(method, url, **arguments)
    except urllib3.exceptions.HTTPError as exc:
        raise StoreUnavailable(f"{url} does not answer: {exc}") from exc


def _raise_for(response: urllib3.BaseHTTPResponse, url: str) -> None:
    if response.status == 200:
        return
    said = response.data[:300].decode("utf-8", "replace")
    if response.status in (408, 425, 429) or response.status >= 500:
        raise StoreUnavailable(f"{url} answers {response.status}: {said}")
    if response.status in (401, 403):
        raise StoreMisconfigured(f"{url} refuses us ({response.status}): set FLOWLEDGER_TOKEN")
    raise StoreMisconfigured(f"{url} answers {response.status}: {said}")
