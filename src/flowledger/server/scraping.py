"""`/metrics`: the route that Prometheus asks."""

import os
import time

from fastapi import APIRouter, HTTPException, Response
from mlflow.server.constants import ARTIFACTS_DESTINATION_ENV_VAR
from starlette.concurrency import run_in_threadpool

from flowledger.errors import FlowledgerError
from flowledger.questions import Ledger
from flowledger.server.metrics_folder import VARIABLE as METRICS_FOLDER
from flowledger.server.parts import Parts
from flowledger.server.standing import Disks, Standing, StoreUp, ask_standing

__all__ = ["METRICS_PATH", "router"]

METRICS_PATH = "/metrics"
STANDING_SECONDS = 15.0


def router(parts: Parts) -> APIRouter:
    """The route that Prometheus asks."""
    routes = APIRouter(tags=["metrics"])
    routes.add_api_route(
        METRICS_PATH,
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
        self._disks = Disks.of_server(
            parts.common.tracking_uri,
            os.environ.get(ARTIFACTS_DESTINATION_ENV_VAR),
            os.environ[METRICS_FOLDER],
        )
        self._standing: Standing | None = None
        self._asked_at = float("-inf")

    async def metrics(self) -> Response:
        """All numbers, of all workers of this server, in Prometheus's text format."""
        metrics = self._parts.metrics
        standing = await self._fresh_standing()
        told = [StoreUp(standing is not None), self._disks, *([standing] if standing else [])]
        text = await run_in_threadpool(metrics.text, told)  # never behind a hung question
        return Response(text, headers={"Content-Type": metrics.content_type})

    async def _fresh_standing(self) -> Standing | None:
        """How the ledger stands, None when the database does not answer.

        The questions read tables, so they are asked now and then, not at every scrape.
        """
        try:
            await self._parts.ask(self._parts.database.version)
            if time.monotonic() - self._asked_at > STANDING_SECONDS:
                self._standing = await self._parts.ask(self._ask)
                self._asked_at = time.monotonic()
        except (HTTPException, FlowledgerError):
            return None
        return self._standing

    def _ask(self) -> Standing:
        parts = self._parts
        with Ledger(parts.common.tracking_uri) as ledger:
            return ask_standing(ledger, parts.database, parts.settings.label_values)
