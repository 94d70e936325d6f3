"""Counting HTTP requests, MLflow's and ours."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowledger.server.metrics import Metrics

__all__ = ["OURS", "Counted"]

OURS = "flowledger.ours"  # in the scope of a request that is for our routes
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# MLflow's routes by their beginnings; the rest are its pages.
AREAS = (
    ("/api/2.0/mlflow-artifacts", "mlflow artifacts"),
    ("/ajax-api/2.0/mlflow-artifacts", "mlflow artifacts"),
    ("/api/", "mlflow api"),
    ("/ajax-api/", "mlflow api"),
    ("/graphql", "mlflow api"),
    ("/v1/traces", "mlflow otlp"),
    ("/gateway/", "mlflow gateway"),
)
PAGES = "mlflow pages"
UNROUTED = "none"  # turned away before it reached a route of ours


class Counted:
    """Counts requests and how long they take; all that it adds to one is two clock readings.

    Args:
        app: what answers.
        metrics: where to count.
        prefix: of every path, from `--static-prefix`.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, prefix: str = "") -> None:
        self._app = app
        self._metrics = metrics
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it before its client has the whole answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, status, counted = time.perf_counter(), 500, False

        async def counting(message: Message) -> None:
            nonlocal status, counted
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body", False):
                counted = True
                self._count(scope, status, time.perf_counter() - begin)
            await send(message)

        try:
            await self._app(scope, receive, counting)
        finally:
            if not counted:
                self._count(scope, status, time.perf_counter() - begin)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.request(method, self._route(scope), status, seconds)

    def _route(self, scope: Scope) -> str:
        """A template of ours, or which part of MLflow: never a path, of which there is no end."""
        if OURS in scope:
            route = scope.get("route")
            return getattr(route, "path", None) or UNROUTED
        path: str = scope["path"].removeprefix(self._prefix)
        return next((area for start, area in AREAS if path.startswith(start)), PAGES)
