"""One row a measurement, and the table of them all as text and as JSON."""

from collections.abc import Sequence
from typing import Any

import msgspec

__all__ = ["Goal", "Row", "as_json", "at_least", "at_most", "render", "times_better"]

HEADINGS = ("what", "measured", "peer", "ratio", "goal", "reached")
SPREAD = 2
FEW, MANY = 10, 1000


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """What a row must reach: a limit on the value itself or on its ratio to the peer's."""

    limit: float
    at_least: bool
    on_ratio: bool = False


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One thing measured, beside a peer measured in the same run.

    `value` and `peer_value` are in `unit`. `ratio` is how many times better than the peer we are
    where `more_is_better` says what better means.
    """

    subject: str
    what: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    more_is_better: bool = False
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer, or None without one."""
        if not self.peer_value or not self.value:
            return None
        better = self.value / self.peer_value
        return better if self.more_is_better else 1 / better

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.goal is None:
            return None
        value = self.ratio if self.goal.on_ratio else self.value
        if value is None:
            return False
        return value >= self.goal.limit if self.goal.at_least else value <= self.goal.limit


def at_most(limit: float) -> Goal:
    """The value may not be over this."""
    return Goal(limit=limit, at_least=False)


def at_least(limit: float) -> Goal:
    """The value must be this or more."""
    return Goal(limit=limit, at_least=True)


def times_better(limit: float) -> Goal:
    """The ratio to the peer must be this or more."""
    return Goal(limit=limit, at_least=True, on_ratio=True)


def render(rows: Sequence[Row]) -> str:
    """The rows as a plain text table."""
    lines = [HEADINGS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    rule = tuple("-" * width for width in widths)
    return "\n".join(_line(cells, widths) for cells in (lines[0], rule, *lines[1:]))


def as_json(machine: dict[str, Any], rows: Sequence[Row]) -> bytes:
    """The machine and the rows as JSON, with ratio and verdict worked out."""
    measured = [
        {**msgspec.structs.asdict(row), "ratio": row.ratio, "reached": row.reached} for row in rows
    ]
    return msgspec.json.format(msgspec.json.encode({"machine": machine, "rows": measured}))


def _cells(row: Row) -> tuple[str, ...]:
    peer = "" if row.peer_value is None else f"{row.peer} {_amount(row.peer_value, row.unit)}"
    return (
        f"{row.subject}: {row.what}",
        _amount(row.value, row.unit),
        peer,
        "" if row.ratio is None else f"{_number(row.ratio)}x",
        _goal(row),
        {True: "yes", False: "NO", None: ""}[row.reached],
    )


def _goal(row: Row) -> str:
    if row.goal is None:
        return ""
    sign = ">=" if row.goal.at_least else "<="
    if row.goal.on_ratio:
        return f"{sign} {row.goal.limit:g}x"
    return f"{sign} {row.goal.limit:,g} {row.unit}"


def _amount(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}"


def _number(value: float) -> str:
    if abs(value) >= MANY:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= FEW else f"{value:.2f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return (" " * SPREAD).join(padded).rstrip()
