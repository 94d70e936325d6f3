"""Grafana's dashboards as code: `python -m deploy.grafana.dashboards` writes the JSON beside it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableRefresh

from deploy.grafana.boards import BOARDS, Board, Panel

FOLDER = Path(__file__).with_name("dashboards")
TAG = "flowledger"
SOURCE = DataSourceRef(type_val="prometheus", uid="$source")
KINDS: dict[str, Any] = {
    "line": timeseries.Panel,
    "bars": bargauge.Panel,
    "number": stat.Panel,
    "heat": heatmap.Panel,
}
WIDTHS = {"number": 6, "bars": 12, "line": 12, "heat": 24}
HEIGHTS = {"number": 4}


def built(board: Board) -> str:
    """The JSON of one dashboard."""
    made = (
        dashboard.Dashboard(f"flowledger: {board.title}")
        .uid(f"flowledger-{board.name}")
        .description(board.says)
        .tags([TAG])
        .time("now-6h", "now")
        .refresh("30s")
        .timezone("browser")
        .link(dashboard.DashboardLink("flowledger").tags([TAG]).as_dropdown(True).keep_time(True))
        .with_variable(
            dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus")
        )
        .with_variable(
            dashboard.QueryVariable("job")
            .label("Job")
            .datasource(SOURCE)
            .query("label_values(flowledger_store_up, job)")
            .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
            .multi(True)
            .include_all(True)
        )
    )
    for panel in board.panels:
        made = made.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


def _panel(panel: Panel) -> Any:
    made = (
        KINDS[panel.kind]()
        .title(panel.title)
        .description(panel.says)
        .datasource(SOURCE)
        .unit(panel.unit)
        .span(WIDTHS[panel.kind])
        .height(HEIGHTS.get(panel.kind, 8))
    )
    if panel.kind in ("bars", "number"):
        made = made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    for place, (legend, query) in enumerate(panel.queries.items()):
        target = prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(65 + place))
        made = made.with_target(target.instant() if panel.kind == "bars" else target.range())
    return made


def files() -> Iterator[tuple[Path, str]]:
    """Every file there should be, and what is in it."""
    for board in BOARDS:
        yield FOLDER / f"{board.name}.json", built(board)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in files():
        path.write_text(text)
