"""`/metrics`: the route that Prometheus asks."""

import time

from fastapi import APIRouter, HTTPException, Response
from starlette.concurrency import run_in_threadpool

from flowledger.errors import StoreError
from flowledger.server.parts import Parts

__all__ = ["router"]

COUNTS_SECONDS = 15.0


def router(parts: Parts) -> APIRouter:
    """The route that Prometheus asks."""
    routes = APIRouter(tags=["metrics"])
    routes.add_api_route(
        "/metrics",
        _Scrape(parts).metrics,
        operation_id="metrics",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        },
    )
    return routes


class _Scrape:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._counts: dict[str, int] | None = None
        self._counted_at = float("-inf")

    async def metrics(self) -> Response:
        """All numbers, of all workers of this server, in Prometheus's text format."""
        metrics = self._parts.metrics
        counts = await self._fresh_counts()
        text = await run_in_threadpool(metrics.text, counts)  # never behind a hung question
        return Response(text, headers={"Content-Type": metrics.content_type})

    async def _fresh_counts(self) -> dict[str, int] | None:
        """What the database counts, None when it does not answer.

        Counting runs reads a table, so it is done now and then, not at every scrape.
        """
        database = self._parts.database
        try:
            await self._parts.ask(database.version)
            if time.monotonic() - self._counted_at > COUNTS_SECONDS:
                self._counts = await self._parts.ask(database.counts)
                self._counted_at = time.monotonic()
        except (HTTPException, StoreError):
            return None
        return self._counts
