"""`/api/analytics/mlflow`: the window at a glance, by day, by error, by model and by prompt."""

from collections.abc import Collection, Iterable, Sized
from typing import Annotated

from fastapi import APIRouter, Query, Request

from flowledger.questions import Filters, Ledger, Over, Percentiles, Slice, Sums
from flowledger.questions.groups import MOST_ROWS
from flowledger.questions.tracking import time_text
from flowledger.server.analytics.answers import (
    Change,
    Errors,
    Health,
    ModelComparison,
    ModelNumbers,
    Overview,
    PromptAnalysis,
    PromptNumbers,
    RecentError,
    Recreated,
    Report,
    Trend,
    Trends,
    now_text,
)
from flowledger.server.analytics.asking import Asker
from flowledger.server.analytics.experiments import recreate
from flowledger.server.analytics.parameters import About, Days, Limit
from flowledger.server.problems import documented

__all__ = ["report", "router"]

PREFIX = "/api/analytics/mlflow"
LATEST_ERRORS = 10
Period = Annotated[str, Query(pattern="^(day|hour)$", description="`day` or `hour`, in UTC.")]
ANSWERS = documented(
    _404="No call has that feature, or there is no such experiment.",
    _429="Too much is asked at once.",
)


def router(asker: Asker) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix=PREFIX, tags=["analytics"], responses=ANSWERS)
    analytics = _Analytics(asker)
    for path, endpoint in (
        ("/overview", analytics.overview),
        ("/trends", analytics.trends),
        ("/errors", analytics.errors),
        ("/model-comparison", analytics.model_comparison),
        ("/prompt-analysis", analytics.prompt_analysis),
        ("/report", analytics.report),
        ("/health", analytics.health),
    ):
        routes.add_api_route(path, endpoint, operation_id=f"analytics{path}".replace("/", "_"))
    routes.add_api_route(
        "/experiments/recreate",
        analytics.recreate,
        methods=["POST"],
        operation_id="recreate_experiments",
    )
    return routes


class _Analytics:
    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def overview(self, request: Request, about: About, days: Days = 7) -> Overview:
        """All calls of the window in numbers, with the change against the window before."""

        def overview(ledger: Ledger, may: Collection[int] | None) -> Overview:
            over = about.over(ledger, may, days)
            return _overview(over, days, over.sums())

        return await self._asker.ask(request, overview)

    async def trends(
        self, request: Request, about: About, days: Days = 30, period: Period = "day"
    ) -> Trends:
        """The window day by day, or hour by hour."""
        return await self._asker.ask(
            request, lambda ledger, may: _trends(about.over(ledger, may, days), days, period)
        )

    async def errors(
        self, request: Request, about: About, days: Days = 7, limit: Limit = LATEST_ERRORS
    ) -> Errors:
        """What failed, by type, with the latest calls that did."""

        def errors(ledger: Ledger, may: Collection[int] | None) -> Errors:
            over = about.over(ledger, may, days)
            return _errors(over, days, over.sums(), limit)

        return await self._asker.ask(request, errors)

    async def model_comparison(
        self, request: Request, about: About, days: Days = 30
    ) -> ModelComparison:
        """Models side by side: speed, cost, success and scores."""
        return await self._asker.ask(
            request, lambda ledger, may: _models(about.over(ledger, may, days), days)
        )

    async def prompt_analysis(
        self, request: Request, about: About, days: Days = 30
    ) -> PromptAnalysis:
        """Prompt versions, the one used last first."""
        return await self._asker.ask(
            request, lambda ledger, may: _prompts(about.over(ledger, may, days), days)
        )

    async def report(self, request: Request, about: About, days: Days = 30) -> Report:
        """Overview, trends, errors, models and prompts over one window."""
        return await self._asker.ask(
            request, lambda ledger, may: report(about.over(ledger, may, days), days)
        )

    async def health(self, request: Request) -> Health:
        """Whether the ledger answers, and how much is in it."""
        place = self._asker.place(request)
        return await self._asker.ask(request, lambda ledger, may: _health(ledger, may, place))

    async def recreate(self, request: Request) -> Recreated:
        """Make or restore the experiments that calls go to; what is there is left as it is."""
        self._asker.check_admin(request)
        settings = self._asker.settings
        return await self._asker.ask(request, lambda ledger, _: recreate(ledger, settings))


def _overview(over: Over, days: int, sums: Sums) -> Overview:
    speed = over.percentiles()
    intents, roles, modules = map(over.by, ("intent", "user_role", "module"))
    return Overview(
        period_days=days,
        total_runs=sums.calls,
        successful_runs=sums.calls - sums.failed,
        failed_runs=sums.failed,
        success_rate=sums.success_rate,
        avg_confidence=sums.mean_confidence,
        avg_response_time_ms=sums.mean_latency_ms,
        p50_response_time_ms=speed.p50,
        p90_response_time_ms=speed.p90,
        p95_response_time_ms=speed.p95,
        p99_response_time_ms=speed.p99,
        template_match_rate=sums.template_match_rate,
        intent_distribution=_distribution(intents),
        user_role_distribution=_distribution(roles),
        module_distribution=_distribution(modules),
        truncated=_is_truncated(intents, roles, modules),
        total_tokens=sums.total_tokens,
        total_cost_usd=sums.cost_usd,
        unpriced_runs=sums.unpriced,
        estimated_runs=sums.estimated,
        estimated_cost_usd=sums.estimated_cost_usd,
        change=Change.between(sums, over.sums_before()),
        generated_at=now_text(),
    )


def _distribution(rows: Iterable[Slice]) -> dict[str, int]:
    return {row.value: row.calls for row in rows if row.value is not None}


def _is_truncated(*lists: Sized) -> bool:
    """Whether one of these lists may go on beyond the most rows of an answer."""
    return any(len(one) >= MOST_ROWS for one in lists)


def _trends(over: Over, days: int, period: str = "day") -> Trends:
    rows = [Trend.of(row, period == "hour") for row in over.trend(period)]
    return Trends(period_days=days, trends=rows)


def _errors(over: Over, days: int, sums: Sums, limit: int = LATEST_ERRORS) -> Errors:
    types = over.by("error_type", order="failed")
    return Errors(
        period_days=days,
        total_errors=sums.failed,
        error_rate=sums.error_rate,
        error_types={row.value or "unknown": row.failed for row in types if row.failed},
        truncated=_is_truncated(types),
        recent_errors=[RecentError.of(row) for row in over.failed(limit)],
    )


def _models(over: Over, days: int) -> ModelComparison:
    speeds = over.percentiles_by("model")
    rows = [ModelNumbers.of(row, speeds.get(row.value, Percentiles())) for row in over.by("model")]
    return ModelComparison(period_days=days, model_comparison=rows, truncated=_is_truncated(rows))


def _prompts(over: Over, days: int) -> PromptAnalysis:
    rows = [PromptNumbers.of(row) for row in over.by_prompt()]
    return PromptAnalysis(period_days=days, prompt_analysis=rows)


def report(over: Over, days: int) -> Report:
    """Overview, trends, errors, models and prompts over one window.

    Args:
        over: the window.
        days: how many days it has.
    """
    sums = over.sums()
    return Report(
        period_days=days,
        overview=_overview(over, days, sums),
        trends=_trends(over, days),
        errors=_errors(over, days, sums),
        model_comparison=_models(over, days),
        prompt_analysis=_prompts(over, days),
        generated_at=now_text(),
    )


def _health(ledger: Ledger, may: Collection[int] | None, place: str) -> Health:
    sums = ledger.over(filters=Filters(readable=may)).sums()
    active = [row for row in ledger.experiments() if row.lifecycle_stage == "active"]
    return Health(
        status="healthy",
        tracking_uri=place,
        experiments=sum(may is None or row.experiment_id in may for row in active),
        total_runs=sums.calls,
        last_run_at=None if sums.last_ms is None else time_text(sums.last_ms),
    )
