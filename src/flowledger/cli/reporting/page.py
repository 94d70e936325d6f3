"""A report as one HTML file that needs nothing else: charts are in it, light and dark."""

import base64
from functools import cache

import jinja2
import vl_convert

from flowledger.charts import DARK, LIGHT, Chart, Theme
from flowledger.cli.reporting.document import Document

__all__ = ["as_html"]


def as_html(document: Document) -> bytes:
    """The page, in UTF-8."""
    pictures = {
        section.title: {
            "light": _picture(section.chart, LIGHT),
            "dark": _picture(section.chart, DARK),
        }
        for section in document.sections
        if section.chart is not None and not section.chart.is_empty
    }
    return _template().render(document=document, pictures=pictures).encode()


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("flowledger.cli.reporting", "")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2")


def _picture(chart: Chart, theme: Theme) -> str:
    """The chart as the address of an image that holds itself; pictures keep their ids apart."""
    svg = vl_convert.vegalite_to_svg(chart.spec(theme, titled=False))
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
