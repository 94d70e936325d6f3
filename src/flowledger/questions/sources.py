"""Where the numbers of a window come from: the roll-up of whole days and hours, else the calls.

Each source is a subquery with the same columns whatever it reads: what calls are told apart by, and
the measures of `llm_measured`. So a question is the same over a roll-up and over single calls, and
counts every call of the window to the millisecond.
"""

from collections.abc import Collection, Iterator
from typing import Any

from flowledger.questions.window import Filters, Window
from flowledger.store import rollup
from flowledger.store.rollup import (
    FACETS,
    GROUPED,
    LONGEST,
    MEASURES,
    OF_LATENCIES,
    value_of_key,
)

__all__ = ["SUMS", "Sources"]

MS_OF_AN_HOUR = 3_600_000
HOURS_OF_A_DAY = 24
OF_A_GROUP = ("feature", "persona_id", "provider", "model", "prompt_version")
OF_A_CALL = ("user_id", "session_id", "kind")
# Every measure added up; a sum of no calls is 0.
SUMS = ", ".join(
    [
        *(
            f"CAST(COALESCE(SUM({name}), 0) AS {kind}) AS {name}"
            for name, kind in rollup.SUMS.items()
        ),
        *(f"{how}({name}) AS {name}" for name, how in rollup.BOUNDS.items()),
    ]
)
_measures = ", ".join(MEASURES)
_dimensions = ", ".join(GROUPED)


class Sources:
    """The subqueries of one window and its filters; texts from outside are bound, never written.

    Args:
        window: of time.
        filters: which calls.
        experiments: ids that an experiment's name in the filters stands for; None without one.
        by_minute: time is told in minutes, which no roll-up knows, else in hours.
    """

    def __init__(
        self,
        window: Window,
        filters: Filters,
        experiments: Collection[int] | None,
        by_minute: bool = False,
    ) -> None:
        self.parameters: dict[str, Any] = {}
        self._by_minute = by_minute
        self._moment = "start_ms / 60000 AS moment" if by_minute else "hour AS moment"
        self._window = window
        self._filters = filters
        self._grouped = self._group_conditions(experiments)
        self._single = [*self._grouped, *self._call_conditions()]

    @property
    def calls(self) -> str:
        """The condition on a row of `llm_calls`, or of `llm_measured`."""
        return f"{_between(self._window.start_ms, self._window.end_ms)} AND {self.matching}"

    @property
    def matching(self) -> str:
        """The same condition whenever the call began."""
        return " AND ".join(self._single) or "1 = 1"

    def measured(self, hours: int = HOURS_OF_A_DAY) -> str:
        """Measures with the dimensions of groups and the time, in spans of 24 hours or of 1."""
        columns = f"{_dimensions}, {_measures}"
        if self._needs_calls:
            return f"(SELECT {self._moment}, {columns} FROM llm_measured WHERE {self.calls})"
        return self._rolled_up(
            f"SELECT r.start AS moment, {columns}"
            " FROM llm_rollup r JOIN llm_groups g ON g.group_id = r.group_id WHERE",
            f"SELECT {self._moment}, {columns} FROM llm_measured WHERE",
            hours,
        )

    def groups(self) -> str:
        """Measures with the group alone."""
        columns = f"group_id, {_measures}"
        if self._needs_calls:
            return f"(SELECT {columns} FROM llm_measured WHERE {self.calls})"
        joined = " JOIN llm_groups USING (group_id)" if self._grouped else ""
        return self._rolled_up(
            f"SELECT {columns} FROM llm_rollup{joined} WHERE",
            f"SELECT {columns} FROM llm_measured WHERE",
        )

    def totals(self, hours: int = HOURS_OF_A_DAY) -> str:
        """Measures with the time alone; those of one user come from sums too."""
        user = self._filters.user_id
        only_user = user is not None and len(self._single) == len(self._grouped) + 1
        if not only_user or self._by_minute or self._asks_beyond(("feature",)):
            return self.measured(hours)
        if not user or len(user) > LONGEST:  # the key of no user is empty
            return self.measured(hours)
        return self._rolled_up(
            f"SELECT start AS moment, {_measures} FROM llm_facets"
            " WHERE facet = 'user_id' AND value = :user_id AND",
            f"SELECT {self._moment}, {_measures} FROM llm_measured WHERE user_id = :user_id AND",
            hours,
        )

    def latencies(self, hours: int = HOURS_OF_A_DAY) -> str:
        """How many calls are in each bucket of latency, with the time and what they are told by."""
        if self._needs_calls or self._asks_beyond(OF_LATENCIES):
            columns = ", ".join((*GROUPED, "latency_bucket", "calls"))
            return f"(SELECT {self._moment}, {columns} FROM llm_measured WHERE {self.calls})"
        kept = ("experiment_id", value_of_key("feature"), value_of_key("model"))
        return self._rolled_up(
            f"SELECT start AS moment, {', '.join(kept)}, latency_bucket, calls"
            " FROM llm_latencies WHERE",
            f"SELECT {self._moment}, {', '.join(OF_LATENCIES)}, latency_bucket, calls"
            " FROM llm_measured WHERE",
            hours,
        )

    def dimension(self, name: str, hours: int = HOURS_OF_A_DAY) -> str:
        """Measures with the time and one dimension, whichever it is, as a text `value`."""
        if name in GROUPED:
            return self.measured(hours)
        if name.startswith("tag:"):
            self.parameters["dimension_tag"] = name.removeprefix("tag:")
            return (
                f"(SELECT {self._moment}, t.value AS value, {_measures} FROM llm_measured"
                " LEFT JOIN llm_tags t ON t.call_id = id AND t.key = :dimension_tag"
                f" WHERE {self.calls})"
            )
        if name not in FACETS or self._needs_calls or self._asks_beyond(("feature",)):
            value = value_of_key(name, "value")
            single = f"SELECT {self._moment}, {value}, {_measures} FROM llm_measured"
            return f"({single} WHERE {self.calls})"
        cut = f"SUBSTR({name}, 1, {LONGEST})"
        return self._rolled_up(
            f"SELECT start AS moment, {value_of_key('value')}, {_measures} FROM llm_facets"
            f" WHERE facet = '{name}' AND",
            f"SELECT {self._moment}, {value_of_key(cut, 'value')}, {_measures}"
            " FROM llm_measured WHERE",
            hours,
        )

    @property
    def _needs_calls(self) -> bool:
        return self._by_minute or len(self._single) > len(self._grouped)

    def _asks_beyond(self, known: Collection[str]) -> bool:
        """Whether a filter is on what a roll-up does not know of, or is no key of it as it is."""
        given = {name: getattr(self._filters, name) for name in ("status", *OF_A_GROUP)}
        return any(
            value is not None and (name not in known or not 0 < len(value) <= LONGEST)
            for name, value in given.items()
        )

    def _rolled_up(self, rolled: str, single: str, hours: int = HOURS_OF_A_DAY) -> str:
        """Both queries together, each with its part of the window: whole spans, single calls."""
        conditions = "".join(f" AND {condition}" for condition in self._grouped)
        spans, edges = _parts(self._window, hours)
        parts = [f"{rolled} {span}{conditions}" for span in spans]
        parts += [f"{single} {edge}{conditions}" for edge in edges]
        return f"({' UNION ALL '.join(parts)})"

    def _group_conditions(self, experiments: Collection[int] | None) -> list[str]:
        conditions = [
            f"experiment_id IN ({', '.join(map(str, ids)) or 'NULL'})"
            for ids in (experiments, self._filters.readable)
            if ids is not None
        ]
        for name in OF_A_GROUP:
            value = getattr(self._filters, name)
            if value is not None:
                self.parameters[name] = value
                conditions.append(f"{name} = :{name}")
        if self._filters.status is not None:
            conditions.append("success" if self._filters.status == "success" else "NOT success")
        return conditions

    def _call_conditions(self) -> Iterator[str]:
        for name in OF_A_CALL:
            value = getattr(self._filters, name)
            if value is not None:
                self.parameters[name] = value
                yield f"{name} = :{name}"
        if self._filters.tag is not None:
            key, _, value = self._filters.tag.partition("=")
            self.parameters |= {"tag_key": key, "tag_value": value}
            yield (
                "id IN (SELECT call_id FROM llm_tags WHERE key = :tag_key AND value = :tag_value)"
            )


def _parts(window: Window, hours: int) -> tuple[list[str], list[str]]:
    """The conditions for the spans that a window holds whole, and for the calls outside of them."""
    first, beyond = -(-window.start_ms // MS_OF_AN_HOUR), window.end_ms // MS_OF_AN_HOUR
    if first >= beyond:
        return [], [_between(window.start_ms, window.end_ms)]
    first_day = -(-first // HOURS_OF_A_DAY) * HOURS_OF_A_DAY
    beyond_day = beyond // HOURS_OF_A_DAY * HOURS_OF_A_DAY
    if hours < HOURS_OF_A_DAY or first_day >= beyond_day:
        spans = [(1, first, beyond)]
    else:
        spans = [(1, first, first_day), (24, first_day, beyond_day), (1, beyond_day, beyond)]
    edges = [
        (window.start_ms, first * MS_OF_AN_HOUR),
        (beyond * MS_OF_AN_HOUR, window.end_ms),
    ]
    return (
        [f"span = {s} AND start >= {a} AND start < {b}" for s, a, b in spans if a < b],
        [_between(a, b) for a, b in edges if a < b],
    )


def _between(start_ms: int, end_ms: int) -> str:
    return f"start_ms >= {start_ms} AND start_ms < {end_ms}"
