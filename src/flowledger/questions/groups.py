"""A window read once, by every combination of what calls are grouped by."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from flowledger.questions.rows import Slice, Sums
from flowledger.store.rollup import SUMS

__all__ = ["MOST_ROWS", "NOTHING", "Group", "Groups", "added_up", "ranked"]

MOST_ROWS = 10_000  # of any answer
NOTHING = Sums(**dict.fromkeys(SUMS, 0), first_ms=None, last_ms=None)


class Group(Sums, frozen=True):
    """What the calls of one combination add up to; all is None where it is not known yet."""

    experiment_id: int | None
    feature: str | None
    persona_id: str | None
    provider: str | None
    model: str | None
    prompt_version: str | None
    dspy_version: str | None
    success: Any
    error_type: str | None


class Groups:
    """The sums of a window, told apart in several ways from one reading.

    So its parts by one dimension add up to those by another, while calls arrive too.

    Args:
        rows: one for each combination.
        reader: gives the attribute that a dimension is in, and how its values are called.
    """

    def __init__(
        self,
        rows: Sequence[Group],
        reader: Callable[[str], tuple[str, Callable[[Any], str | None]]],
    ) -> None:
        self.rows = rows
        self._reader = reader

    def sums(self) -> Sums:
        """What all calls add up to."""
        return _sum_of(self.rows)

    def by(
        self,
        dimension: str,
        limit: int = MOST_ROWS,
        order: str = "calls",
        *,
        ascending: bool = False,
    ) -> list[Slice]:
        """What `Over.by` answers for a dimension that calls are grouped by.

        Raises:
            QuestionError: there is no such dimension, or calls are not grouped by it.
        """
        column, named = self._reader(dimension)
        parts = added_up(self.rows, lambda row: named(getattr(row, column)))
        return ranked(parts, order, ascending=ascending)[:limit]


def added_up(rows: Iterable[Sums], name: Callable[[Any], str | None]) -> list[Slice]:
    """Rows that have the same name as one, in the order in which names come first."""
    together: defaultdict[str | None, list[Sums]] = defaultdict(list)
    for row in rows:
        together[name(row)].append(row)
    return [
        Slice(value=value, **msgspec.structs.asdict(_sum_of(some)))
        for value, some in together.items()
    ]


def ranked(
    rows: Iterable[Slice],
    order: str,
    *,
    ascending: bool = False,
    also: Mapping[str, Callable[[Slice], Any]] = MappingProxyType({}),
) -> list[Slice]:
    """Parts by their name or one of their numbers, those that are equal by name.

    Args:
        rows: them.
        order: an attribute, `value` for the name.
        ascending: the least first.
        also: other orders, with what gives a part its place.
    """
    place = also.get(order, lambda row: _place(row, order))
    return sorted(sorted(rows, key=_name), key=place, reverse=not ascending)


def _name(row: Slice) -> str:
    return row.value or ""


def _place(row: Slice, order: str) -> Any:
    if order == "value":
        return _name(row)
    if order == "mean_confidence" and not row.confidences:
        return -1
    return getattr(row, order) or 0


def _sum_of(rows: Sequence[Sums]) -> Sums:
    if not rows:
        return NOTHING
    sums = {name: sum(getattr(row, name) for row in rows) for name in SUMS}
    first = min((row.first_ms for row in rows if row.first_ms is not None), default=None)
    last = max((row.last_ms for row in rows if row.last_ms is not None), default=None)
    return Sums(**sums, first_ms=first, last_ms=last)
