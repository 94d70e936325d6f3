"""What the ledger says, as JSON, to those whom `PERMISSION` lets in."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET

from flowledger import config
from flowledger.config import without_password
from flowledger.errors import FlowledgerError, NotFound
from flowledger.integrations.django import conf
from flowledger.questions import Filters, Ledger, tracking

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
        "tracking_uri": without_password(conf.tracking_uri()),
        "experiments": tracking.experiments(ledger),
    }


@_asking
def runs(request: HttpRequest, ledger: Ledger) -> dict[str, Any]:
    """The latest runs of a feature, or of all, newest first."""
    feature = request.GET.get("feature")
    found = ledger.over(filters=Filters(feature=feature)).runs(_limit(request))
    return {"feature": feature, "runs": [tracking.flat(run) for run in found]}


@_asking
def metrics(request: HttpRequest, ledger: Ledger) -> dict[str, Any]:
    """Numbers over all calls of a feature, or of all features, never over the last so many."""
    feature = request.GET.get("feature")
    sums = ledger.over(filters=Filters(feature=feature)).sums()
    return {"feature": feature, "metrics": tracking.metrics_of(sums)}


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
    with Ledger(conf.ledger_uri()) as ledger:
        yield ledger


def _limit(request: HttpRequest) -> int:
    text = request.GET.get("limit", str(RUNS))
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= MOST_RUNS:
        raise _Wrong(f"limit must be a whole number from 1 to {MOST_RUNS}")
    return int(text)


def _problem(status: int, detail: str) -> JsonResponse:
    return JsonResponse({"detail": detail}, status=status)
