"""The analytics endpoints: flowledger's, and one of our own over the same ledger."""

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from flowledger.config import load
from flowledger.errors import ConfigError, FlowledgerError
from flowledger.questions import Ledger, Window
from flowledger.server.analytics import analytics_router

logger = logging.getLogger(__name__)
PREFIX = "/api/analytics/mlflow"
Days = Annotated[int, Query(ge=1, le=3650)]


def strategies(days: Days = 30) -> Any:
    """The strategies of the prompt side by side, over every run of the window."""
    try:
        with Ledger(load().tracking_uri) as ledger:
            found = ledger.over(Window.last(days=days)).by("tag:strategy")
    except FlowledgerError as exc:
        return JSONResponse({"detail": str(exc)}, 503)
    rows = [
        {
            "strategy": one.value,
            "run_count": one.calls,
            "success_rate": one.success_rate,
            "avg_confidence": one.mean_confidence,
            "avg_response_time_ms": one.mean_latency_ms,
            "total_cost_usd": one.cost_usd,
        }
        for one in found
        if one.value is not None
    ]
    return {"period_days": days, "strategies": rows}


def router() -> APIRouter:
    """The endpoints; none where the settings name no place that runs can go to."""
    routes = APIRouter()
    try:
        routes.add_api_route(f"{PREFIX}/strategies", strategies)
        routes.include_router(analytics_router())
    except ConfigError as exc:
        logger.warning("there are no analytics: %s", exc)
    return routes
