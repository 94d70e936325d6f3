"""The REST API: flowledger's own answers over all runs, and a page that lists them."""

import inspect

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.views.decorators.http import require_GET

from flowledger.integrations.django.permissions import is_staff
from flowledger.integrations.django.views import experiments, health, metrics, runs

__all__ = ["docs", "experiments", "health", "may_read", "metrics", "runs"]

ENDPOINTS = (
    ("/api/v1/mlflow/tracking/experiments/", experiments),
    ("/api/v1/mlflow/tracking/runs/?feature=pfd_conversion&limit=10", runs),
    ("/api/v1/mlflow/tracking/metrics/?feature=pid_verification", metrics),
    ("/api/v1/mlflow/tracking/health/", health),
)
PAGE = (
    '<!doctype html><html lang="en"><title>AIFlow API</title><h1>AIFlow API</h1>'
    "<table><tr><th>GET<th>what it answers</tr>{}</table></html>"
)
ROW = '<tr><td><a href="{}">{}</a><td>{}</tr>'


def may_read(request: HttpRequest) -> bool:
    """Members of staff; everybody on a developer's own machine."""
    return bool(settings.DEBUG) or is_staff(request)


@require_GET  # type: ignore[untyped-decorator]
def docs(request: HttpRequest) -> HttpResponse:
    """The addresses of the API, each with what it answers."""
    rows = ((path, path, inspect.getdoc(view)) for path, view in ENDPOINTS)
    return HttpResponse(format_html(PAGE, format_html_join("", ROW, rows)))
