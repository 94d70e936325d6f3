"""Models, and some of them side by side."""

from flowledger import charts
from flowledger.dashboard.pages.shown import Context, Shown, parts
from flowledger.questions import Percentiles

__all__ = ["models"]

SIDE_BY_SIDE = 3


def models(shown: Shown, rest: str) -> Context:
    """Every model of the window; those to compare, or else the most used, side by side."""
    rows, more = parts(shown, "model", "-calls")
    over = shown.over()
    by_name = {row.value or "": row for row in over.by("model", 1000)}
    names = [name for name in shown.view.compared if name in by_name]
    names = names or list(by_name)[:SIDE_BY_SIDE]
    histograms = over.histograms("model")
    return "models", {
        "title": "Models",
        "rows": rows,
        "more": more,
        "speeds": over.percentiles_by("model"),
        "nothing": Percentiles(),
        "names": names,
        "compared": [by_name[name] for name in names],
        "unknown": [name for name in shown.view.compared if name not in by_name],
        "latency": charts.latencies({name: histograms.get(name or None, []) for name in names}),
        "spend": charts.over_time(
            over.trend_by("model", shown.view.span.period),
            "model",
            shown.view.window,
            shown.view.span.period,
        ),
    }
