"""Pages made of templates; whatever stands in a call is text there, never markup."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flowledger import charts
from flowledger.charts import numbers
from flowledger.dashboard.assets import address_of
from flowledger.dashboard.view import FILTERS, WINDOWS, View
from flowledger.questions.tracking import time_text

__all__ = ["PAGES", "render"]

# The pages of the navigation: their path and their name.
PAGES = {
    "": "Overview",
    "calls": "Calls",
    "sessions": "Sessions",
    "users": "Users",
    "models": "Models",
    "prompts": "Prompts",
    "errors": "Errors",
    "costs": "Costs",
    "audit": "Audit",
    "health": "Health",
}
# What JSON may not contain inside a script element.
_unsafe = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def render(template: str, view: View, **context: Any) -> str:
    """A page as HTML.

    Args:
        template: its name, without the ending.
        view: what is asked for.
        context: what the template shows.
    """
    return _environment().get_template(f"{template}.html").render(view=view, **context)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("flowledger.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "count": numbers.count,
        "short": numbers.short_count,
        "money": numbers.money,
        "spend": numbers.amount,
        "day": numbers.day,
        "ago": numbers.duration,
        "percent": numbers.percent,
        "ms": numbers.milliseconds,
        "moment": numbers.moment,
        "second": numbers.second,
        "iso": time_text,
        "data": _data,
        "pretty": _pretty,
        "sparkline": _sparkline,
    }
    made.globals |= {
        "asset": address_of,
        "pages": PAGES,
        "windows": WINDOWS,
        "filter_names": FILTERS,
        "themes": {"light": charts.LIGHT.config(), "dark": charts.DARK.config()},
    }
    return made


def _sparkline(values: Sequence[float]) -> Markup:
    return Markup(charts.sparkline(values))


def _data(value: Any) -> Markup:
    """A value as JSON inside a script element, which no text in it can end."""
    return Markup(msgspec.json.encode(value).decode().translate(_unsafe))


def _pretty(value: Any) -> str:
    """A value for people: text as it is, JSON indented."""
    if isinstance(value, str):
        return value
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
