"""What can be asked of a window: query parameters that many routes share."""

from collections.abc import Collection
from typing import Annotated, TypeAlias

from fastapi import Depends, Query

from flowledger.questions import Filters, Ledger, Over, Window
from flowledger.questions.window import LONGEST_DAYS

__all__ = ["NO_NUL", "About", "Days", "Limit"]

Days: TypeAlias = Annotated[
    int,
    Query(ge=1, le=LONGEST_DAYS, description="How many days up to now, of 24 hours each."),
]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=1000, description="Most rows of the answer.")]
# Documented here and refused in one place for API, pages and command line: `questions/engine.py`.
NO_NUL = {"pattern": "^[^\\u0000]*$"}
_Text: TypeAlias = Annotated[
    str | None, Query(min_length=1, max_length=500, json_schema_extra=NO_NUL)
]
_Status: TypeAlias = Annotated[
    str | None, Query(pattern="^(success|failed)$", description="`success` or `failed`.")
]
_Tag: TypeAlias = Annotated[
    str | None,
    Query(
        max_length=501,
        pattern="^[^=]+=",
        description="One of the caller's tags: `key=value`.",
        json_schema_extra={"pattern": "^[^=\\u0000]+=[^\\u0000]*$"},
    ),
]


class Wanted:
    """The filters of a request; each leaves only the calls that have this value."""

    def __init__(
        self,
        experiment: _Text = None,
        feature: _Text = None,
        persona_id: _Text = None,
        provider: _Text = None,
        model: _Text = None,
        prompt_version: _Text = None,
        user_id: _Text = None,
        session_id: _Text = None,
        kind: _Text = None,
        status: _Status = None,
        tag: _Tag = None,
    ) -> None:
        self._given = {
            "experiment": experiment,
            "feature": feature,
            "persona_id": persona_id,
            "provider": provider,
            "model": model,
            "prompt_version": prompt_version,
            "user_id": user_id,
            "session_id": session_id,
            "kind": kind,
            "status": status,
            "tag": tag,
        }

    def over(self, ledger: Ledger, readable: Collection[int] | None, days: int) -> Over:
        """The last days of the ledger, for somebody who may read these experiments."""
        return ledger.over(Window.last(days), Filters(**self._given, readable=readable))


About: TypeAlias = Annotated[Wanted, Depends()]
