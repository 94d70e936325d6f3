"""What the ledger says, as JSON, to those whom `PERMISSION` lets in."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET

from flowledger import config
from flowledger.errors import FlowledgerError, NotFound
from flowledger.integrations.django import conf
from flowledger.questions import Ledger, tracking

__all__ = ["experiments", "health", "metrics", "runs"]

MOST_RUNS = 1000
RUNS = 10

View = Callable[[HttpRequest, Ledger], dict[str, Any]]


def _asking(view: View) -> Any:
    """The view, for those who may see it, over a ledger that answers."""

    @require_GET  # type: ignore[untyped-decorator]
    @functools.wraps(view)
    def answered(request: HttpRequest) -> JsonResponse:
        if not all(may(request) for may in conf.callables("PERMISSION")):
            return _problem(403, "this user may not see the ledger: ask for the permission")
        try:
            with _ledger() as ledger:
                return JsonResponse(view(request, ledger))
        except _Wrong as exc:
            return _problem(400, str(exc))
        except NotFound as exc:
            return _problem(404, str(exc))
        except FlowledgerError:
            return _problem(503, "the database does not answer now: try again later")

    return answered


@_asking
def experiments(request: HttpRequest, ledger: Ledger) -> dict[str, Any]:
    """Every feature with the MLflow experiment that its calls went to."""
    return {
        "enabled": config.switched_on(),
        "tracking_uri": ledger.place,
        "experiments": [
            {"key": one.feature, "name": one.name, "experiment_id": str(one.experiment_id)}
            for one in tracking.experiments(ledger)
        ],
    }


@_asking
def runs(request: HttpRequest, ledger: Ledger) -> dict[str, Any]:
    """The latest runs of a feature, or of all, newest first."""
    feature = request.GET.get("feature")
    found = tracking.latest(ledger, feature, _limit(request))
    return {"feature": feature, "runs": [_run(run) for run in found]}


@_asking
def metrics(request: HttpRequest, ledger: Ledger) -> dict[str, Any]:
    """Numbers over all calls of a feature, or of all features, never over the last so many."""
    feature = request.GET.get("feature")
    numbers = tracking.numbers(ledger, feature)
    rate = 100 * numbers.succeeded / numbers.calls if numbers.calls else None
    return {
        "feature": feature,
        "metrics": {
            "total_runs": numbers.calls,
            "avg_execution_time": _seconds(numbers.mean_ms),
            "success_rate": None if rate is None else round(rate, 2),
            "total_tokens": numbers.total_tokens,
            "total_cost": numbers.cost_usd,
        },
    }


@require_GET  # type: ignore[untyped-decorator]
def health(request: HttpRequest) -> JsonResponse:
    """Whether the ledger can be asked; for everybody, so it names nothing."""
    try:
        with _ledger() as ledger:
            ledger.size()
    except NotFound:
        pass  # nothing was recorded yet
    except FlowledgerError:
        return JsonResponse({"enabled": config.switched_on(), "status": "unavailable"}, status=503)
    return JsonResponse({"enabled": config.switched_on(), "status": "healthy"})


class _Wrong(ValueError):
    """What the client sent cannot be used."""


@contextmanager
def _ledger() -> Iterator[Ledger]:
    with Ledger(conf.tracking_uri()) as ledger:
        yield ledger


def _limit(request: HttpRequest) -> int:
    text = request.GET.get("limit", str(RUNS))
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= MOST_RUNS:
        raise _Wrong(f"limit must be a whole number from 1 to {MOST_RUNS}")
    return int(text)


def _run(run: tracking.Run) -> dict[str, Any]:
    """A run as MLflow's `search_runs` names its columns."""
    own = msgspec.json.decode(run.details).get("metrics", {})
    told = {
        "run_id": run.id,
        "start_time": run.start_ms,
        "params.model": run.model,
        "params.operation": run.operation,
        "metrics.execution_time": _seconds(run.latency_ms),
        "metrics.total_tokens": run.total_tokens,
        "metrics.cost_usd": run.cost_usd,
        "tags.status": "success" if run.success else "failed",
        "tags.error_type": run.error_type,
        "tags.user_id": run.user_id,
    }
    return {**told, **{f"metrics.{name}": value for name, value in own.items()}}


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _problem(status: int, detail: str) -> JsonResponse:
    return JsonResponse({"detail": detail}, status=status)
