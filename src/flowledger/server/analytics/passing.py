"""The analytics routes of an app whose calls go to a flowledger server: that server answers."""

from urllib.parse import urlsplit

import urllib3
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

__all__ = ["router"]

PREFIXES = ("/api/analytics/mlflow", "/api/v1/mlflow/tracking", "/api/flowledger/v1")
TIMEOUT = 30.0
PASSED_ON = ("authorization", "accept")
NO_LEDGER = "{} has no ledger to ask: start it with `flowledger server`"
AWAY = "{} does not answer now: try again later"


def router(url: str) -> APIRouter:
    """Routes that ask the server as whoever asks them.

    Args:
        url: of the server.
    """
    pool = urllib3.PoolManager(retries=False, timeout=TIMEOUT)
    place = urlsplit(url)
    shown = f"{place.scheme}://{place.hostname}:{place.port or ''}".rstrip(":")

    def answer(request: Request) -> Response:
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        address = f"{url.rstrip('/')}{request.url.path}?{request.url.query}"
        try:
            told = pool.request(request.method, address, headers=headers)
        except urllib3.exceptions.HTTPError:
            return JSONResponse({"detail": AWAY.format(shown)}, 503)
        kind = told.headers.get("content-type", "")
        if "json" not in kind:  # a plain MLflow server shows its own page
            return JSONResponse({"detail": NO_LEDGER.format(shown)}, 503)
        return Response(told.data, told.status, media_type=kind)

    routes = APIRouter(include_in_schema=False)
    for prefix in PREFIXES:
        routes.add_api_route(f"{prefix}/{{path:path}}", answer, methods=["GET", "POST"])
    return routes
