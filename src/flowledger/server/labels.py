"""Label values that stay few, so that `/metrics` does."""

import threading

__all__ = ["NONE", "OTHER", "Labels"]

NONE = "none"
OTHER = "other"
LONGEST = 100
COMBINATIONS = 25


class Labels:
    """Names for the labels of metrics: the first values seen keep theirs, the rest is `other`.

    Counters cannot change their labels later, so it is the first values and not the most frequent.
    Combinations are bounded too: `COMBINATIONS` times as many as values of one label.

    Args:
        most: how many values of each label keep their name.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._seen: dict[str, set[str]] = {}
        self._combinations: set[tuple[str, ...]] = set()

    def of(self, **values: str | None) -> tuple[str, ...]:
        """The label values to use for these, in their order."""
        with self._lock:
            named = tuple(self._named(label, value) for label, value in values.items())
            if named in self._combinations:
                return named
            if len(self._combinations) >= COMBINATIONS * self._most:
                return (OTHER,) * len(named)
            self._combinations.add(named)
            return named

    def _named(self, label: str, value: str | None) -> str:
        if not value:
            return NONE
        seen, name = self._seen.setdefault(label, set()), value[:LONGEST]
        if name in seen:
            return name
        if len(seen) >= self._most:
            return OTHER
        seen.add(name)
        return name
