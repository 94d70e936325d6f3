"""What pages have in common: whom they ask, change against the window before, choices."""

from typing import Any

import msgspec

from flowledger.config import Settings
from flowledger.dashboard.asking import May
from flowledger.dashboard.view import View
from flowledger.errors import QuestionError
from flowledger.questions import Ledger, Over, Slice

__all__ = ["MOST_ROWS", "PART_ORDERS", "Change", "Context", "Shown", "check_few", "parts"]

MOST_ROWS = 200
MOST_READ = 200_000  # calls that a page reads one by one within its time
# What tables of parts can be sorted by.
PART_ORDERS = (
    "value",
    "calls",
    "error_rate",
    "total_tokens",
    "mean_latency_ms",
    "cost_usd",
    "last_ms",
    "mean_confidence",
)
Context = tuple[str, dict[str, Any]]  # the template, and what it shows


class Shown(msgspec.Struct, frozen=True):
    """Whom a page asks, for whom, and about what."""

    ledger: Ledger
    may: May
    view: View
    settings: Settings

    def over(self, **more: Any) -> Over:
        """The window and the filters of the page, and some more."""
        return self.view.over(self.ledger, self.may, **more)


class Change(msgspec.Struct, frozen=True):
    """How much a number changed against the window before; `percent` is None without one then."""

    percent: float | None
    more_is_better: bool

    @classmethod
    def of(cls, now: float | None, before: float | None, *, more_is_better: bool) -> "Change":
        """From both numbers."""
        if not before or now is None:
            return cls(None, more_is_better)
        return cls(100 * (now - before) / before, more_is_better)

    @property
    def way(self) -> str:
        """`up`, `down` or `same`, as the number is read."""
        if self.percent is None or abs(self.percent) < 0.05:
            return "same"
        return "up" if self.percent > 0 else "down"

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `same`."""
        if self.way == "same":
            return "same"
        return "better" if (self.way == "up") == self.more_is_better else "worse"


def parts(shown: Shown, dimension: str, default: str = "-calls") -> tuple[list[Slice], bool]:
    """The rows of a table of parts in its order, and whether there are more than it shows."""
    order, ascending = shown.view.order(default, PART_ORDERS)
    rows = shown.over().by(dimension, MOST_ROWS + 1, order, ascending=ascending)
    return rows[:MOST_ROWS], len(rows) > MOST_ROWS


def check_few(over: Over, to_do: str) -> None:
    """Let only a window pass whose calls can be read one by one while somebody waits.

    Args:
        over: the window.
        to_do: what is done with them, for the sentence.

    Raises:
        QuestionError: it has too many.
    """
    if over.sums().calls > MOST_READ:
        raise QuestionError(
            f"more than {MOST_READ:,} calls would be read one by one to {to_do}: choose a shorter"
            " window or a filter"
        )
