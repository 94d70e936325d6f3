"""The live end of the ledger: calls as they are stored, none twice and none missed."""

import time
from collections.abc import Callable

from flowledger.questions.over import Over
from flowledger.questions.rows import ReceivedCall, RecentCall

__all__ = ["Tail"]

# A transaction carries the moment it began, so a row appears some time after its `received_ms`:
# a writer may wait 20 s for its turn, and clocks of hosts differ. A look goes back a little, and
# one in `NEAR_LOOKS` goes far back.
NEAR_MS = 10_000
FAR_MS = 600_000
NEAR_LOOKS = 20


class Tail:
    """Follows what is stored from now on.

    Args:
        over: which calls; their window does not matter, a late call is as new as any.
        now_ms: the time, Unix milliseconds.
    """

    def __init__(
        self, over: Over, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        self._over = over
        self._now_ms = now_ms
        self._near_ms = self._far_ms = now_ms()
        self._looks = 0
        self._seen: dict[str, int] = {}
        self.new()

    def latest(self, limit: int) -> list[RecentCall]:
        """The calls that began last, newest first; `new` does not give them again."""
        rows = self._over.calls(limit).rows if limit else []
        self._seen.update((row.id, self._now_ms()) for row in rows)
        return rows

    def new(self) -> list[ReceivedCall]:
        """Calls stored since the last look, in the order of storing.

        Raises:
            StoreUnavailable: the next look gives what this one could not.
        """
        now_ms = self._now_ms()
        far = self._looks % NEAR_LOOKS == 0
        # Back from the last look that worked: this process may have slept since.
        last_ms, back_ms = (self._far_ms, FAR_MS) if far else (self._near_ms, NEAR_MS)
        since_ms = min(now_ms, last_ms) - back_ms
        rows = [row for row in self._over.received(since_ms) if row.id not in self._seen]
        self._looks += 1
        self._near_ms = now_ms
        if far:
            self._far_ms = now_ms
            self._forget(since_ms - FAR_MS)
        self._seen.update((row.id, row.received_ms) for row in rows)
        return rows

    def _forget(self, before_ms: int) -> None:
        self._seen = {id_: at for id_, at in self._seen.items() if at >= before_ms}
