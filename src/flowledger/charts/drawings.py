"""What charts look like: Vega-Lite made by Altair, once; each request adds its numbers.

A drawing's data are rows under the name `rows`, texts for tooltips among them, so that a number
reads the same in the chart and beside it. Colours come from the theme: marks name styles.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import altair as alt

__all__ = ["CALLS", "SPEND", "bars", "distribution", "spend_and_calls", "stacked", "with_rows"]

ROWS = "rows"
SPEND, CALLS = "Spend", "Calls"
Drawing = dict[str, Any]
# What stands at a tick of time is a parameter: Vega knows neither parts of days nor what is cut.
TIME_LABEL = "labels[toNumber(datum.value)]"
LATENCY_TICKS = [size * 10**power for power in range(-1, 7) for size in (1, 2, 5)]
LATENCY_LABEL = (
    "datum.value < 1000 ? format(datum.value, ',') + ' ms' : format(datum.value / 1000, ',') + ' s'"
)


def with_rows(drawing: Drawing, rows: Sequence[Drawing], **params: Any) -> Drawing:
    """A drawing with its rows, and with the values of its parameters."""
    named = [{"name": name, "value": value} for name, value in params.items()]
    return {**drawing, "datasets": {ROWS: list(rows)}, "params": named}


@cache
def spend_and_calls() -> Drawing:
    """Two lines over time, each with an axis of its own; dashed where a span of time is cut."""
    chart = alt.Chart(alt.NamedData(ROWS)).encode(x=_time())
    spend = _amount("Spend, US dollars", "left", "money")
    calls = _amount("Calls", "right", "number")
    fading = chart.transform_filter(_of(SPEND, "solid")).mark_area(
        style="fading", interpolate="monotone"
    )
    rules = chart.transform_filter(alt.datum.kind == SPEND).mark_rule(strokeWidth=14, opacity=0)
    tooltip = _tooltip(when="When", spend="Spend", calls="Calls")
    return _made(
        alt.layer(
            alt.layer(fading.encode(y=spend), *_lines(chart, SPEND, spend)),
            alt.layer(*_lines(chart, CALLS, calls)),
            rules.encode(tooltip=tooltip),
        ).resolve_scale(y="independent")
    )


@cache
def bars() -> Drawing:
    """Lying bars with their number beside them; `most` is where the axis ends."""
    there = alt.Chart(alt.NamedData(ROWS)).encode(
        x=alt.X("amount:Q", axis=None, scale=alt.Scale(domainMin=0, domainMax=alt.expr("most"))),
        y=alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=150)),
        tooltip=_tooltip(name="Name", text="Amount", share="Share"),
    )
    return _made(
        alt.layer(
            there.mark_bar(height=16, cornerRadiusEnd=7),
            there.mark_text(align="left", dx=6).encode(text="text:N"),
        )
    )


@cache
def stacked(title: str) -> Drawing:
    """Standing bars over time, one part on the other; `form` is how d3 writes the numbers.

    Args:
        title: of the axis.
    """
    return _made(
        alt.Chart(alt.NamedData(ROWS))
        .mark_bar(binSpacing=2)
        .encode(
            x=_time().bin("binned"),
            x2="end:T",
            y=_amount(title, "left", "form").stack("zero"),
            color=_series(),
            order=alt.Order("place:Q"),
            tooltip=_tooltip(when="When", name="Part", text="Amount"),
        )
    )


@cache
def distribution() -> Drawing:
    """How the latencies of one or more parts spread, on an axis that grows by factors."""
    return _made(
        alt.Chart(alt.NamedData(ROWS))
        .mark_area(line=True, fillOpacity=0.06, interpolate="monotone")
        .encode(
            x=alt.X(
                "ms:Q",
                title="Latency",
                scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(values=LATENCY_TICKS, labelExpr=LATENCY_LABEL, labelOverlap="greedy"),
            ),
            y=alt.Y(
                "share:Q",
                title="Share of calls",
                stack=None,
                axis=alt.Axis(format=".0%", tickCount=5),
            ),
            color=_series(),
            tooltip=_tooltip(name="Part", between="Latency", text="Share", calls="Calls"),
        )
    )


def _made(chart: Any) -> Drawing:
    drawing: Drawing = chart.to_dict()
    del drawing["config"]  # the theme's
    return drawing


def _lines(chart: Any, kind: str, value: Any) -> list[Any]:
    scale = alt.Scale(domain=[SPEND, CALLS])
    legend = alt.Legend(title=None, orient="top", direction="horizontal")
    chart = chart.encode(y=value, color=alt.Color("kind:N", scale=scale, legend=legend))
    line: dict[str, Any] = {"interpolate": "monotone", "strokeWidth": 2}
    return [
        chart.transform_filter(_of(kind, "solid")).mark_line(**line),
        chart.transform_filter(_of(kind, "dashed"))
        .mark_line(**line, strokeDash=[3, 4])
        .encode(detail="stretch:N"),
        chart.transform_filter(_of(kind, "alone")).mark_point(filled=True, size=60),
    ]


def _of(kind: str, how: str) -> str:
    return f"datum.kind === '{kind}' && indexof(datum.stretch, '{how}') === 0"


def _time() -> Any:
    axis = alt.Axis(labelOverlap="greedy", values=alt.ExprRef("ticks"), labelExpr=TIME_LABEL)
    return alt.X("start:T", title=None, scale=alt.Scale(type="utc"), axis=axis)


def _amount(title: str, side: Any, form: str) -> Any:
    """An axis of amounts; `form` names the parameter that says how d3 writes them."""
    label = f"format(datum.value, {form})"
    axis = alt.Axis(orient=side, tickCount=5, grid=side == "left", labelExpr=label)
    return alt.Y("amount:Q", title=title, scale=alt.Scale(domainMin=0), axis=axis)


def _series() -> Any:
    legend = alt.Legend(title=None, orient="top", direction="horizontal", labelLimit=140)
    return alt.Color("name:N", sort=alt.EncodingSortField("place", op="min"), legend=legend)


def _tooltip(**titles: str) -> list[Any]:
    return [alt.Tooltip(f"{field}:N", title=title) for field, title in titles.items()]
