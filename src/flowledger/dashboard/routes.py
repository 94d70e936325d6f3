"""Where the dashboard's pages are, and what every answer of it has in common."""

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from flowledger.dashboard import assets, export
from flowledger.dashboard.asking import Asker, May
from flowledger.dashboard.pages import TEMPLATES, Shown
from flowledger.dashboard.rendering import PAGES, render
from flowledger.dashboard.view import View
from flowledger.errors import FlowledgerError, NotFound, QuestionError, StoreError
from flowledger.questions import Ledger

__all__ = ["PLACE", "router"]

PLACE = "/ledger"
SAFE = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
NEVER_KEPT = {"Cache-Control": "no-store"}
KEPT = {"Cache-Control": "private, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
AWAY = (
    "The database does not answer now. Nothing is lost: try again in a moment, and where that does"
    " not help choose a shorter window."
)
FAULT = "This is a fault of ours: the server's log says more, under request {}."
_log = logging.getLogger("flowledger.dashboard")


def router(asker: Asker) -> APIRouter:
    """Every page, below `/ledger`.

    Args:
        asker: how the app asks the ledger.
    """
    dashboard = _Dashboard(asker)
    routes = APIRouter(prefix=PLACE, route_class=_PageRoute, include_in_schema=False)
    routes.add_api_route("/static/{digest}/{name}", dashboard.asset)
    routes.add_api_route("/calls.csv", dashboard.csv)
    routes.add_api_route("/calls.jsonl", dashboard.jsonl)
    routes.add_api_route("", dashboard.page)
    routes.add_api_route("/{path:path}", dashboard.page)
    return routes


class _PageRoute(APIRoute):
    """Answers what goes wrong as a page."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                response: Response = await handle(request)
            except (HTTPException, RequestValidationError, FlowledgerError) as exc:
                response = await run_in_threadpool(_problem, request, exc)
            except Exception as exc:  # noqa: BLE001 - whoever waits for a page gets one
                response = await run_in_threadpool(_fault, request, exc)
            for name, value in SAFE.items():
                response.headers.setdefault(name, value)
            return response

        return handled


class _Dashboard:
    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    async def page(self, request: Request, path: str = "") -> Response:
        """One of the pages."""
        if path.endswith("/") or (not path and request.url.path.endswith("/")):
            return RedirectResponse(f"{_base(request)}/{path}".rstrip("/"))
        name, _, rest = path.partition("/")
        if name not in TEMPLATES or (rest and name != "calls"):
            raise HTTPException(404, "There is no such page: the menu has those there are.")
        show = TEMPLATES["call" if rest else name]
        asked = View.of(_base(request), path, request.query_params)

        def shown(ledger: Ledger, may: May) -> str:
            view = asked.fitted(ledger)
            template, context = show(Shown(ledger, may, view, self._asker.settings), rest)
            return render(template, view, ever=ledger.first_ms() is not None, **context)

        return HTMLResponse(await self._asker.ask(request, shown), headers=NEVER_KEPT)

    async def csv(self, request: Request) -> Response:
        """Every call that the filters let through, as CSV."""
        return await self._export(request, export.csv_lines, "text/csv; charset=utf-8", "csv")

    async def jsonl(self, request: Request) -> Response:
        """The same, one JSON object a line."""
        return await self._export(request, export.json_lines, "application/x-ndjson", "jsonl")

    async def _export(
        self, request: Request, lines: export.Lines, kind: str, ending: str
    ) -> Response:
        asked = View.of(_base(request), "calls", request.query_params)
        first, token, view = await self._asker.ask(
            request, lambda ledger, may: _first(ledger, may, asked.fitted(ledger))
        )

        async def body() -> AsyncIterator[bytes]:
            yield lines(first, True)
            page = token
            while page is not None:
                following = partial(export.rows_of, view=view, page=page)
                rows, page = await self._asker.ask(request, following)
                yield lines(rows, False)

        named = {"Content-Disposition": f'attachment; filename="calls.{ending}"'}
        return StreamingResponse(body(), media_type=kind, headers={**NEVER_KEPT, **named})

    async def asset(self, request: Request, digest: str, name: str) -> Response:
        """A file that pages load."""
        found = await run_in_threadpool(assets.load, name)
        if found is None or assets.address_of(name) != f"static/{digest}/{name}":
            raise HTTPException(404, "There is no such file: load the page again.")
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers = {**KEPT, "Content-Encoding": "gzip"}
            return Response(found.gzipped, headers=headers, media_type=found.kind)
        return Response(found.plain, headers=KEPT, media_type=found.kind)


def _first(ledger: Ledger, may: May, view: View) -> tuple[Any, str | None, View]:
    rows, page = export.rows_of(ledger, may, view, None)
    return rows, page, view


def _base(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}{PLACE}"


def _problem(request: Request, exc: Exception) -> Response:
    status, sentence, headers = _told(exc)
    page = render(
        "problem", _around(request), title=_title(status), status=status, sentence=sentence
    )
    return HTMLResponse(page, status, {**NEVER_KEPT, **headers})


def _around(request: Request) -> View:
    """What was asked for, so that another window can be chosen; nothing where it makes no sense."""
    path = request.path_params.get("path", "")
    try:
        if path in PAGES:
            return View.of(_base(request), path, request.query_params)
    except QuestionError:
        pass
    return View(base=_base(request), path="?", given={}, compared=())


def _fault(request: Request, exc: Exception) -> Response:
    """The page of a fault of ours: its log says what it was, under the same id."""
    request_id = secrets.token_hex(8)
    _log.error("request %s of %s failed", request_id, request.url.path, exc_info=exc)
    response = _problem(request, HTTPException(500, FAULT.format(request_id)))
    response.headers["X-Request-ID"] = request_id
    return response


def _told(exc: Exception) -> tuple[int, str, dict[str, str]]:
    if isinstance(exc, HTTPException):
        return exc.status_code, str(exc.detail), dict(exc.headers or {})
    if isinstance(exc, NotFound):
        return 404, str(exc), {}
    if isinstance(exc, QuestionError):
        return 422, str(exc), {}
    if isinstance(exc, StoreError):
        return 503, AWAY, {"Retry-After": "1"}
    return 400, str(exc), {}


def _title(status: int) -> str:
    if status == 404:
        return "Not found"
    return "That cannot be asked" if status < 500 and status != 429 else "Not now"
