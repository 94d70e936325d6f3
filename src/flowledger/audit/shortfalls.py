"""One kind of thing that evidence lacks: how much, where, and examples."""

from collections import Counter
from typing import Self

import msgspec

__all__ = ["Shortfall"]

MOST_LISTED = 1_000


class Shortfall(msgspec.Struct, frozen=True, kw_only=True):
    """What is short, and by feature, user and day how much of it.

    Only the 1,000 largest of each are named; `count` is of all. `allowed` says that the policy
    lists it and does not fail.
    """

    kind: str
    what: str
    count: int
    by_feature: dict[str, int] = {}
    by_user: dict[str, int] = {}
    by_day: dict[str, int] = {}
    by_source: dict[str, int] = {}
    examples: list[str] = []
    allowed: bool = False

    @classmethod
    def of(
        cls,
        kind: str,
        what: str,
        features: Counter[str],
        users: Counter[str],
        days: Counter[str],
        examples: list[str],
    ) -> Self:
        """A shortfall of single calls, counted three ways."""
        return cls(
            kind=kind,
            what=what,
            count=days.total(),
            by_feature=dict(features.most_common(MOST_LISTED)),
            by_user=dict(users.most_common(MOST_LISTED)),
            by_day=dict(sorted(days.items())[-MOST_LISTED:]),
            examples=examples,
        )
