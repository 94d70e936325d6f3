"""`/api/v1/mlflow/tracking`: experiments, runs and metrics, as `aiflow.md` shows them."""

from collections.abc import Collection
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from flowledger.questions import ALWAYS, Filters, Ledger, Sums
from flowledger.questions.tracking import experiments, flat, metrics_of
from flowledger.server.analytics.answers import Number
from flowledger.server.analytics.asking import Asker
from flowledger.server.analytics.parameters import Limit
from flowledger.server.problems import documented

__all__ = ["router"]

PREFIX = "/api/v1/mlflow/tracking"
ANSWERS = documented(_404="No call has that feature.", _429="Too much is asked at once.")
Feature = Annotated[
    str | None,
    Query(min_length=1, max_length=500, description="Only this feature; every one without it."),
]


class ExperimentOf(BaseModel):
    """An experiment, and the feature whose calls go there."""

    key: str
    name: str
    experiment_id: str


class Experiments(BaseModel):
    """Every experiment that is not deleted."""

    enabled: bool = Field(description="Whether `MLFLOW_ENABLED` and its like leave tracking on.")
    tracking_uri: str
    experiments: list[ExperimentOf]


class Runs(BaseModel):
    """The latest runs, flat: `metrics.<name>`, `params.<name>` and `tags.<name>`."""

    feature: str | None
    runs: list[dict[str, Any]]


class Metrics(BaseModel):
    """Sums and averages over every run of a feature; times in seconds, success in per cent."""

    total_runs: int
    avg_execution_time: Number
    success_rate: Number
    avg_confidence: Number
    total_cost: Number
    total_tokens: int
    unpriced_runs: int
    estimated_runs: int
    estimated_cost_usd: Number


class FeatureMetrics(BaseModel):
    """The metrics of one feature, or of all."""

    feature: str | None
    metrics: Metrics


class Health(BaseModel):
    """Whether the ledger answers."""

    status: str = Field(examples=["healthy"])
    enabled: bool
    tracking_uri: str


def router(asker: Asker) -> APIRouter:
    """The routes; each path ends with a slash, and works without it too."""
    routes = APIRouter(prefix=PREFIX, tags=["tracking"], responses=ANSWERS)
    tracking = _Tracking(asker)
    for name in ("experiments", "runs", "metrics", "health"):
        endpoint = getattr(tracking, name)
        routes.add_api_route(f"/{name}/", endpoint, operation_id=f"tracking_{name}")
        routes.add_api_route(f"/{name}", endpoint, include_in_schema=False)
    return routes


class _Tracking:
    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def experiments(self, request: Request) -> Experiments:
        """Every experiment, with the feature whose calls go there as its key."""
        found = await self._asker.ask(request, experiments)
        return Experiments(
            enabled=self._asker.settings.enabled,
            tracking_uri=self._asker.place(request),
            experiments=[ExperimentOf(**one) for one in found],
        )

    async def runs(self, request: Request, feature: Feature = None, limit: Limit = 10) -> Runs:
        """The latest runs of a feature, newest first."""

        def latest(ledger: Ledger, may: Collection[int] | None) -> list[dict[str, Any]]:
            over = ledger.over(ALWAYS, Filters(feature=feature, readable=may))
            return [flat(run) for run in over.runs(limit)]

        return Runs(feature=feature, runs=await self._asker.ask(request, latest))

    async def metrics(self, request: Request, feature: Feature = None) -> FeatureMetrics:
        """Sums and averages over every run of a feature there has ever been."""

        def sums(ledger: Ledger, may: Collection[int] | None) -> Sums:
            return ledger.over(ALWAYS, Filters(feature=feature, readable=may)).sums()

        found = await self._asker.ask(request, sums)
        return FeatureMetrics(feature=feature, metrics=Metrics(**metrics_of(found)))

    async def health(self, request: Request) -> Health:
        """Whether the ledger answers."""
        await self._asker.ask(request, lambda ledger, _: ledger.experiments())
        return Health(
            status="healthy",
            enabled=self._asker.settings.enabled,
            tracking_uri=self._asker.place(request),
        )
