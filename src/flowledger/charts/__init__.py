"""Charts, once for pages and reports: from rows that questions answer to Vega-Lite.

chart = charts.bars(over.by("model"), "model", whole=over.sums())
vl_convert.vegalite_to_svg(chart.spec(charts.LIGHT))
"""

from flowledger.charts import numbers
from flowledger.charts.chart import DARK, LIGHT, Chart, Theme
from flowledger.charts.shown import (
    MEASURES,
    bars,
    error_types,
    latencies,
    over_time,
    spend_and_calls,
)
from flowledger.charts.sparkline import sparkline

__all__ = [
    "DARK",
    "LIGHT",
    "MEASURES",
    "Chart",
    "Theme",
    "bars",
    "error_types",
    "latencies",
    "numbers",
    "over_time",
    "sparkline",
    "spend_and_calls",
]
