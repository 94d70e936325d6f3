"""A chart: what it shows in words, in a table, and as Vega-Lite in a light or a dark theme."""

from collections.abc import Sequence
from typing import Any

import msgspec

__all__ = ["DARK", "LIGHT", "Chart", "Theme"]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
CHART_WIDTH = 640


class Theme(msgspec.Struct, frozen=True, kw_only=True):
    """The colours of a chart.

    series: of the parts of a chart, in their order; neighbours differ in lightness too.
    """

    background: str
    text: str
    muted: str
    grid: str
    series: tuple[str, ...]

    def config(self) -> dict[str, Any]:
        """It as the `config` of a Vega-Lite chart."""
        first, second = self.series[:2]
        axis = {
            "labelColor": self.muted,
            "titleColor": self.muted,
            "gridColor": self.grid,
            "domain": False,
            "ticks": False,
            "labelPadding": 8,
            "labelFontSize": 11,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
        }
        fading = [
            {"offset": 0, "color": f"{first}05"},
            {"offset": 1, "color": f"{first}38"},
        ]
        return {
            "background": "transparent",
            "font": FONT,
            "title": {"color": self.text, "anchor": "start", "fontSize": 14, "offset": 12},
            "axis": axis,
            "axisX": {"grid": False},
            "legend": {
                "labelColor": self.muted,
                "labelFontSize": 11,
                "columns": 4,
                "symbolType": "square",
                "symbolOpacity": 1,
                "symbolStrokeWidth": 0,
                "symbolSize": 90,
            },
            "view": {"stroke": None},
            "range": {"category": list(self.series)},
            "bar": {"color": first},
            "text": {"color": self.muted, "fontSize": 11},
            "rule": {"color": self.muted},
            "style": {
                "fading": {
                    "color": {
                        "gradient": "linear",
                        "x1": 1,
                        "y1": 1,
                        "x2": 1,
                        "y2": 0,
                        "stops": fading,
                    },
                },
                "first": {"stroke": first},
                "second": {"stroke": second},
            },
        }


LIGHT = Theme(
    background="#ffffff",
    text="#12161f",
    muted="#5b6472",
    grid="#e6e9ee",
    series=(
        "#4f46e5",
        "#0d9488",
        "#d97706",
        "#e11d48",
        "#0284c7",
        "#9333ea",
        "#4d7c0f",
        "#64748b",
    ),
)
DARK = Theme(
    background="#171b24",
    text="#f1f3f7",
    muted="#a3adbd",
    grid="#2a303c",
    series=(
        "#8f8bff",
        "#2dd4bf",
        "#fbbf24",
        "#fb7185",
        "#38bdf8",
        "#c084fc",
        "#a3e635",
        "#94a3b8",
    ),
)


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A chart, and the same in words and in a table.

    title: what it shows, with the unit.
    summary: one sentence, for those who do not see it.
    head: of the table.
    rows: of the table, as text, first column the name of the row.
    drawing: Vega-Lite without title, size and colours.
    height: in pixels.
    """

    title: str
    summary: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    drawing: dict[str, Any]
    height: int

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        return not self.rows

    def spec(
        self, theme: Theme = LIGHT, *, width: int = CHART_WIDTH, titled: bool = True
    ) -> dict[str, Any]:
        """The whole chart as Vega-Lite, for `vl_convert` or `vegaEmbed`.

        Args:
            theme: its colours.
            width: in pixels.
            titled: whether the title is drawn too.
        """
        config = {**theme.config(), "background": theme.background}
        title = {"title": self.title} if titled else {}
        return {**self.drawing, **title, "width": width, "height": self.height, "config": config}

    def in_page(self) -> dict[str, Any]:
        """It as wide as the page lets it be; the page adds the colours."""
        return {**self.drawing, "width": "container", "height": self.height}
