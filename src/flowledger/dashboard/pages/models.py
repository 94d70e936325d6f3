"""Models, and some of them side by side."""

from flowledger import charts
from flowledger.dashboard.pages.shown import MOST_ROWS, PART_ORDERS, Context, Shown
from flowledger.questions import Percentiles
from flowledger.questions.groups import added_up, ranked
from flowledger.questions.speeds import percentiles_of

__all__ = ["models"]

SIDE_BY_SIDE = 3
ORDERS = (*PART_ORDERS, "p95")


def models(shown: Shown, rest: str) -> Context:
    """Every model of the window; those to compare, or else the most used, side by side."""
    over, period = shown.over(), shown.view.span.period
    trend = over.trend_by("model", period)
    found = added_up(trend, lambda row: row.value)
    by_name = {row.value or "": row for row in ranked(found, "calls")}
    names = [name for name in shown.view.compared if name in by_name]
    names = names or list(by_name)[:SIDE_BY_SIDE]
    histograms = over.histograms("model")
    speeds = {name: percentiles_of(some) for name, some in histograms.items()}
    order, ascending = shown.view.order("-calls", ORDERS)
    also = {"p95": lambda row: speeds[row.value].p95 or 0 if row.value in speeds else 0}
    return "models", {
        "title": "Models",
        "rows": ranked(found, order, ascending=ascending, also=also)[:MOST_ROWS],
        "more": len(found) > MOST_ROWS,
        "speeds": speeds,
        "nothing": Percentiles(),
        "names": names,
        "compared": [by_name[name] for name in names],
        "unknown": [name for name in shown.view.compared if name not in by_name],
        "latency": charts.latencies({name: histograms.get(name or None, []) for name in names}),
        "spend": charts.over_time(trend, "model", shown.view.window, period),
    }
