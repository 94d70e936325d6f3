"""`/api/v1/mlflow/tracking`: experiments, runs and metrics, as `aiflow.md` shows them."""

from collections.abc import Collection
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from flowledger.questions import ALWAYS, Filters, Ledger, Run, Sums
from flowledger.server.analytics.answers import Number, time_text
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

    @classmethod
    def of(cls, sums: Sums) -> "Metrics":
        return cls(
            total_runs=sums.calls,
            avg_execution_time=sums.mean_latency_ms / 1000,
            success_rate=sums.success_rate,
            avg_confidence=sums.mean_confidence,
            total_cost=sums.cost_usd,
            total_tokens=sums.total_tokens,
            unpriced_runs=sums.unpriced,
        )


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
        found = await self._asker.ask(request, _experiments)
        return Experiments(
            enabled=self._asker.settings.enabled,
            tracking_uri=self._asker.place(request),
            experiments=found,
        )

    async def runs(self, request: Request, feature: Feature = None, limit: Limit = 10) -> Runs:
        """The latest runs of a feature, newest first."""

        def latest(ledger: Ledger, may: Collection[int] | None) -> list[dict[str, Any]]:
            over = ledger.over(ALWAYS, Filters(feature=feature, readable=may))
            return [_flat(run) for run in over.runs(limit)]

        return Runs(feature=feature, runs=await self._asker.ask(request, latest))

    async def metrics(self, request: Request, feature: Feature = None) -> FeatureMetrics:
        """Sums and averages over every run of a feature there has ever been."""

        def sums(ledger: Ledger, may: Collection[int] | None) -> Sums:
            return ledger.over(ALWAYS, Filters(feature=feature, readable=may)).sums()

        found = await self._asker.ask(request, sums)
        return FeatureMetrics(feature=feature, metrics=Metrics.of(found))

    async def health(self, request: Request) -> Health:
        """Whether the ledger answers."""
        await self._asker.ask(request, lambda ledger, _: ledger.experiments())
        return Health(
            status="healthy",
            enabled=self._asker.settings.enabled,
            tracking_uri=self._asker.place(request),
        )


def _experiments(ledger: Ledger, may: Collection[int] | None) -> list[ExperimentOf]:
    features = {row.experiment_id: row.feature for row in ledger.features() if row.feature}
    return [
        ExperimentOf(
            key=features.get(row.experiment_id, row.name),
            name=row.name,
            experiment_id=str(row.experiment_id),
        )
        for row in ledger.experiments()
        if row.lifecycle_stage == "active" and (may is None or row.experiment_id in may)
    ]


def _flat(run: Run) -> dict[str, Any]:
    """A run as a row of MLflow's own `search_runs`, without what is not known of it."""
    details = msgspec.json.decode(run.details)
    metrics = {
        "execution_time": run.latency_ms / 1000,
        "latency_ms": run.latency_ms,
        "confidence_score": run.confidence,
        "input_tokens": run.input_tokens,
        "output_tokens": run.output_tokens,
        "total_tokens": run.total_tokens,
        "cost_usd": run.cost_usd,
        **details.get("metrics", {}),
    }
    params = {
        "model": run.model,
        "provider": run.provider,
        "feature": run.feature,
        "operation": run.operation,
        **details.get("params", {}),
    }
    tags = {
        "status": "success" if run.success else "failed",
        "error_type": run.error_type,
        "user_id": run.user_id,
        "session_id": run.session_id,
        "persona_id": run.persona_id,
        **details.get("tags", {}),
    }
    flat = {
        "run_id": run.id,
        "experiment_id": str(run.experiment_id),
        "status": "FINISHED" if run.success else "FAILED",
        "start_time": time_text(run.start_ms),
        "end_time": time_text(round(run.start_ms + run.latency_ms)),
    }
    for kind, values in (("metrics", metrics), ("params", params), ("tags", tags)):
        flat |= {f"{kind}.{name}": value for name, value in values.items() if value is not None}
    return flat
