"""What it costs: by any dimension, this month so far, and where that leads."""

from datetime import UTC, datetime, timedelta

import msgspec

from flowledger import charts
from flowledger.dashboard.pages.shown import MOST_ROWS, Context, Shown, check_few, parts
from flowledger.questions import DIMENSIONS, Window
from flowledger.questions.groups import ranked
from flowledger.store.rollup import FACETS, GROUPED

__all__ = ["costs"]

DEFAULT = "model"
MS_OF_A_DAY = 86_400_000
RECENT_DAYS = 7
MOST_DRAWN = 6
NAMES = {"user_id": "user", "session_id": "session", "persona_id": "persona"}


class Month(msgspec.Struct, frozen=True):
    """The spend of a month: so far, of the one before, and where the last days lead.

    `projected_usd` is what was spent plus the rest of the month at the pace of the last `days`.
    """

    name: str
    spent_usd: float | None
    before: str
    before_usd: float | None
    before_ms: int  # when its first call came, or it began
    before_whole: bool
    projected_usd: float | None
    days: float
    unpriced: int


def costs(shown: Shown, rest: str) -> Context:
    """Spend over time and by one dimension, and the month."""
    view = shown.view
    by = view.given.get("by", DEFAULT)
    name = NAMES.get(by, by.replace("_", " "))
    over, period = shown.over(), view.span.period
    if by not in (*GROUPED, *FACETS, "experiment", "status"):
        check_few(over, f"tell them apart by {name}")
    rows, more = parts(shown, by, "-cost_usd")
    top = over.by(by, MOST_ROWS, "cost_usd") if more else ranked(rows, "cost_usd")
    sums = over.sums()
    among = [row.value for row in top[:MOST_DRAWN]] if more else None
    return "costs", {
        "title": "Costs",
        "by": by,
        "name": name,
        "dimensions": {one: NAMES.get(one, one.replace("_", " ")) for one in DIMENSIONS},
        "month": month(shown),
        "sums": sums,
        "rows": rows,
        "more": more,
        "most": MOST_ROWS,
        "bars": charts.bars(top, name, whole=sums),
        "trend": charts.over_time(over.trend_by(by, period, among), name, view.window, period),
    }


def month(shown: Shown) -> Month:
    """The month that the page is asked in, in UTC."""
    now_ms = shown.view.now_ms
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=32)).replace(day=1)
    last_month = (first - timedelta(days=1)).replace(day=1)
    start_ms, end_ms, past_ms = (_ms(one) for one in (first, following, last_month))
    so_far = shown.over(window=Window(start_ms, now_ms)).sums()
    first_call_ms = shown.ledger.first_ms() or now_ms
    begun_ms = max(now_ms - RECENT_DAYS * MS_OF_A_DAY, first_call_ms)
    days = (now_ms - begun_ms) / MS_OF_A_DAY
    recent = shown.over(window=Window(begun_ms, now_ms)).sums()
    projected = None
    if days >= 1 and so_far.spend_usd is not None:
        projected = so_far.cost_usd + recent.cost_usd / days * (end_ms - now_ms) / MS_OF_A_DAY
    before = shown.over(window=Window(past_ms, start_ms)).sums()
    return Month(
        name=f"{first:%B}",
        spent_usd=so_far.spend_usd,
        before=f"{last_month:%B}",
        before_usd=before.spend_usd if before.calls else None,
        before_ms=max(past_ms, first_call_ms),
        before_whole=not past_ms < first_call_ms < start_ms,
        projected_usd=projected,
        days=days,
        unpriced=so_far.unpriced,
    )


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
