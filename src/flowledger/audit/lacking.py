"""Calls that lack what the policy asks of them, all in one pass over the ledger."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from flowledger.audit.policy import FIELDS, Policy
from flowledger.audit.shortfalls import Shortfall

__all__ = ["lacking"]

MS_OF_A_DAY = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# As `llm_measured` counts: something was used, and its price is not known.
UNPRICED = (
    "cost_usd IS NULL AND ((success AND model IS NOT NULL)"
    " OR total_tokens IS NOT NULL OR images IS NOT NULL OR audio_seconds IS NOT NULL"
    " OR input_characters IS NOT NULL)"
)
UNCOUNTED = "total_tokens IS NULL AND success AND model IS NOT NULL"
LACKS = {"cost": UNPRICED, "tokens": UNCOUNTED}
ALWAYS = {
    "unknown_prices": ("the price is not known", UNPRICED),
    "estimated_tokens": ("tokens are estimated", "usage_source = 'estimated'"),
}
# A call whose model never answered has none.
NO_MODEL = ("model", "provider")


def lacking(connection: sa.Connection, policy: Policy, window: str) -> list[Shortfall]:
    """What calls of the window lack, each kind by feature, user and day.

    A call that only groups others is none of them: those stand for themselves.

    Args:
        connection: to the ledger.
        policy: which fields are required of which calls.
        window: a condition on rows of `llm_calls`.
    """
    values: dict[str, Any] = {}
    conditions = {f: f"({_lacks(f)}) AND {_asked(policy, f, values)}" for f in policy.required}
    kinds = [("missing_fields", f"{field} is missing", conditions[field]) for field in conditions]
    kinds += [(kind, what, condition) for kind, (what, condition) in ALWAYS.items()]
    sums = ", ".join(
        f"SUM(CASE WHEN {condition} THEN 1 ELSE 0 END) AS n{place},"
        f" MIN(CASE WHEN {condition} THEN id END) AS first{place},"
        f" MAX(CASE WHEN {condition} THEN id END) AS last{place}"
        for place, (_, _, condition) in enumerate(kinds)
    )
    either = " OR ".join(f"({condition})" for _, _, condition in kinds)
    query = (
        f"SELECT start_ms / {MS_OF_A_DAY} AS day, feature, user_id, {sums} FROM llm_calls"
        f" WHERE {window} AND inner_calls = 0 AND ({either}) GROUP BY 1, 2, 3"
    )
    counted = [_Counted() for _ in kinds]
    for row in connection.execution_options(yield_per=10_000).execute(sa.text(query), values):
        for place, counts in enumerate(counted):
            counts.add(row._asdict(), place)
    return [
        Shortfall.of(kind, what, one.features, one.users, one.days, one.examples)
        for (kind, what, _), one in zip(kinds, counted, strict=True)
    ]


class _Counted:
    """Counts of one kind, and the ids of its oldest and newest calls."""

    def __init__(self) -> None:
        self.features = Counter[str]()
        self.users = Counter[str]()
        self.days = Counter[str]()
        self._ids: set[str] = set()

    def add(self, row: Mapping[str, Any], place: int) -> None:
        count = int(row[f"n{place}"])
        if not count:
            return
        self.features[row["feature"] or ""] += count
        self.users[row["user_id"] or ""] += count
        self.days[(EPOCH + timedelta(days=row["day"])).date().isoformat()] += count
        self._ids |= {row[f"first{place}"], row[f"last{place}"]}
        if len(self._ids) > 100:
            self._ids = set(self.examples)

    @property
    def examples(self) -> list[str]:
        ordered = sorted(self._ids)
        return ordered if len(ordered) <= 5 else [*ordered[:3], *ordered[-2:]]


def _lacks(field: str) -> str:
    """The condition that a call lacks a field; only a model that was asked has tokens or a cost."""
    if field in LACKS:
        return LACKS[field]
    column = FIELDS[field]
    empty = f"({column} IS NULL OR {column} = '')"
    return f"{empty} AND success" if field in NO_MODEL else empty


def _asked(policy: Policy, field: str, values: dict[str, Any]) -> str:
    """The condition that the policy asks a call for this field."""
    cases = []
    for column in ("environment", "feature"):
        rules: dict[str, list[str]] = getattr(policy, f"by_{column}")
        for name, fields in rules.items():
            mark = f"v{len(values)}"
            values[mark] = name
            cases.append(f"WHEN {column} = :{mark} THEN {int(field in fields)}")
    default = int(field in policy.require)
    return f"CASE {' '.join(cases)} ELSE {default} END = 1" if cases else f"{default} = 1"
