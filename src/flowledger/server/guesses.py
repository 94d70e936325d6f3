"""Failed log-ins, counted: how long the next one from there must wait."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

import msgspec
from fastapi import HTTPException

from flowledger.server.problems import seconds

__all__ = ["Guesses"]

FREE_BY_NAME = 10  # people mistype, and programs try an old password some times before they give up
FREE_BY_ADDRESS = 100  # many people may come from one address
LONGEST_WAIT_SECONDS = 300.0
FORGOTTEN_SECONDS = 900.0
MOST_COUNTED = 10_000


class _Count(msgspec.Struct):
    failures: int = 0
    last: float = 0.0


class Guesses:
    """Counts attempts by address, and by user name and address together; used by one event loop.

    A name alone is never made to wait: anybody could lock its owner out. An attempt counts as
    failed from its beginning, so that many at once gain nothing. Past the free ones the wait
    doubles with each, up to five minutes.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[tuple[str, str], _Count] = OrderedDict()

    def begin(self, name: str, address: str) -> None:
        """Count an attempt.

        Raises:
            HTTPException: 429, and after how many seconds it may be made.
        """
        now, buckets = self._clock(), _buckets(name, address)
        wait = max(self._wait(key, free, now) for key, free in buckets)
        if wait > 0:
            raise HTTPException(
                429,
                f"too many failed log-ins from here: try again in {seconds(wait)} seconds",
                {"Retry-After": str(seconds(wait))},
            )
        for key, _ in buckets:
            count = self._counts.pop(key, None) or _Count()
            if now - count.last > FORGOTTEN_SECONDS:
                count = _Count()
            self._counts[key] = _Count(count.failures + 1, now)
        while len(self._counts) > MOST_COUNTED:
            self._counts.popitem(last=False)

    def take_back(self, name: str, address: str, *, passed: bool) -> None:
        """Count an attempt no more: it passed, which clears the name, or nobody could say."""
        (by_name, _), (by_address, _) = _buckets(name, address)
        for key in (by_name, by_address):
            if count := self._counts.get(key):
                count.failures = max(0, count.failures - 1)
        if passed:
            self._counts.pop(by_name, None)

    def _wait(self, key: tuple[str, str], free: int, now: float) -> float:
        count = self._counts.get(key)
        if count is None or count.failures < free or now - count.last > FORGOTTEN_SECONDS:
            return 0.0
        pause = min(LONGEST_WAIT_SECONDS, 2.0 ** min(count.failures - free, 20))
        return count.last + pause - now


def _buckets(name: str, address: str) -> tuple[tuple[tuple[str, str], int], ...]:
    network = _network(address)
    return ((f"by {name[:200]}", network), FREE_BY_NAME), (("", network), FREE_BY_ADDRESS)


def _network(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 one, in which one host has as many as it likes."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((found, 64), strict=False))
