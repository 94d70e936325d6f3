"""What a page is asked to show: everything is in its URL, so a page can be kept and sent."""

import re
import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from starlette.datastructures import QueryParams

from flowledger.dashboard.asking import May
from flowledger.errors import QuestionError
from flowledger.questions import Filters, Ledger, Over, Window

__all__ = ["FILTERS", "WINDOWS", "Span", "View"]

LONGEST = 500
LONGEST_TOKEN = 8100
MOST_COMPARED = 4
MS_OF_A_DAY = 86_400_000
FILTERS = {
    "status": "Status",
    "model": "Model",
    "feature": "Feature",
    "user_id": "User",
    "session_id": "Session",
    "persona_id": "Persona",
    "provider": "Provider",
    "prompt_version": "Prompt version",
    "experiment": "Experiment",
    "tag": "Tag",
}
OTHERS = ("window", "q", "sort", "page", "by", "part")

_sort = re.compile(r"-?[a-z0-9_]{1,40}")


class Span(msgspec.Struct, frozen=True):
    """A window to choose: its name, how long it is, and what its charts count by."""

    name: str
    days: float
    period: str

    @property
    def short(self) -> str:
        """Its name where there is little room."""
        return self.name.replace(" days", " d").replace(" hours", " h").replace(" hour", " h")


WINDOWS = {
    "1h": Span("1 hour", 1 / 24, "minute"),
    "24h": Span("24 hours", 1, "hour"),
    "7d": Span("7 days", 7, "day"),
    "30d": Span("30 days", 30, "day"),
    "90d": Span("90 days", 90, "day"),
}
DEFAULT = "30d"
SHORTER = {"audit": "24h"}  # it looks at single calls


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a page is asked to show.

    base: what every address begins with.
    path: of the page, below it.
    given: what the URL says, by name, without what is empty.
    compared: what stands side by side.
    chosen: the window in force.
    now_ms: when the page was asked for.
    """

    base: str
    path: str
    given: dict[str, str]
    compared: tuple[str, ...]
    chosen: str = DEFAULT
    now_ms: int = 0

    @classmethod
    def of(cls, base: str, path: str, query: QueryParams) -> "View":
        """What a query asks for.

        Raises:
            QuestionError: a value is none that can be asked for.
        """
        given = {name: query[name].strip() for name in (*FILTERS, *OTHERS) if name in query}
        for name, value in given.items():
            if len(value) > (LONGEST_TOKEN if name == "page" else LONGEST):
                raise QuestionError(f"{name} is too long: give at most {LONGEST} characters")
        given = {name: value for name, value in given.items() if value}
        if given.get("window", DEFAULT) not in WINDOWS:
            raise QuestionError(f"window={given['window']!r}: use one of {', '.join(WINDOWS)}")
        if not _sort.fullmatch(given.get("sort", "a")):
            raise QuestionError(f"sort={given['sort']!r}: sort by a column, as its heading does")
        compared = tuple(dict.fromkeys(one[:LONGEST] for one in query.getlist("compare") if one))
        if len(compared) > MOST_COMPARED:
            raise QuestionError(f"compare at most {MOST_COMPARED}: take some away")
        now_ms = time.time_ns() // 1_000_000
        return cls(base=base, path=path, given=given, compared=compared, now_ms=now_ms)

    def fitted(self, ledger: Ledger) -> "View":
        """With the shortest window that holds a young ledger whole, unless the URL names one."""
        chosen = self.given.get("window", SHORTER.get(self.path))
        if chosen is None:
            age = (self.now_ms - (ledger.first_ms() or self.now_ms)) / MS_OF_A_DAY
            chosen = next((name for name in WINDOWS if WINDOWS[name].days >= age), DEFAULT)
            chosen = DEFAULT if chosen == "90d" else chosen
        return msgspec.structs.replace(self, chosen=chosen)

    @property
    def span(self) -> Span:
        """The window in force."""
        return WINDOWS[self.chosen]

    @property
    def window(self) -> Window:
        """The time that is asked about."""
        return Window.last(self.span.days, self.now_ms)

    @property
    def filters(self) -> dict[str, str]:
        """The filters in force, by name."""
        return {name: self.given[name] for name in FILTERS if name in self.given}

    @property
    def root(self) -> str:
        """What addresses outside the dashboard begin with."""
        return self.base.rpartition("/")[0]

    @property
    def q(self) -> str | None:
        """The text that is searched for."""
        return self.given.get("q")

    @property
    def page(self) -> str | None:
        """The token of a later page."""
        return self.given.get("page")

    def over(self, ledger: Ledger, may: May, window: Window | None = None, **more: Any) -> Over:
        """The ledger as far as this page is about it, for somebody who may read so much."""
        wanted = Filters(**{**self.filters, **more}, readable=may)
        return ledger.over(window or self.window, wanted)

    def order(self, default: str, allowed: Iterable[str]) -> tuple[str, bool]:
        """What a table is sorted by, and whether the least comes first.

        Raises:
            QuestionError: there is no such column.
        """
        asked = self.given.get("sort", default)
        name = asked.removeprefix("-")
        if name not in allowed:
            raise QuestionError(f"sort={asked!r}: sort by one of {', '.join(allowed)}")
        return name, not asked.startswith("-")

    def href(self, path: str | None = None, **changes: Any) -> str:
        """The address of a page of the same window and filters; None takes something away.

        Args:
            path: of another page; of this one with all it shows when left out.
            changes: what is different, by name.
        """
        names = (*FILTERS, *OTHERS) if path is None else ("window", *FILTERS)
        values: dict[str, Any] = {name: self.given.get(name) for name in names}
        if path is None:
            values |= {"part": None, "compare": list(self.compared)}
        values |= changes
        pairs = {name: value for name, value in values.items() if value not in (None, "", [])}
        place = self.path if path is None else path
        address = f"{self.base}{'/' if place else ''}{quote(place)}"
        return f"{address}?{urlencode(pairs, doseq=True)}" if pairs else address

    def fields(self, *without: str) -> dict[str, str]:
        """What a form hands on besides its own fields."""
        return {
            name: value
            for name, value in self.given.items()
            if name not in (*without, "page", "part")
        }
