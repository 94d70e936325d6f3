"""Who holds a key, and what a key opens besides ingest: MLflow's route for spans."""

import logging

from fastapi import FastAPI, HTTPException
from mlflow.server.fastapi_security import init_fastapi_security
from mlflow.server.otel_api import otel_router
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from flowledger.errors import StoreError
from flowledger.server.callers import Caller, database_away, not_authenticated
from flowledger.server.parts import Parts
from flowledger.server.problems import answer_to, first_line
from flowledger.store.keys import Keys, is_key

__all__ = ["SpansByKey", "bearer", "key_holder"]

_log = logging.getLogger("flowledger.server")


class SpansByKey:
    """Lets holders of keys send spans to MLflow's own route, which knows users alone.

    Everything else goes on to MLflow's app and its authentication.

    Args:
        app: MLflow's app.
        parts: of this worker.
        path: of the route for spans.
    """

    def __init__(self, app: ASGIApp, parts: Parts, path: str) -> None:
        self._app = app
        self._parts = parts
        self._path = path
        self._route = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        self._route.include_router(otel_router, prefix=path.removesuffix(otel_router.prefix))
        init_fastapi_security(self._route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        token = ""
        if scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", self._path):
            token = bearer(Headers(scope=scope))
        if not is_key(token):
            await self._app(scope, receive, send)
            return
        try:
            await key_holder(self._parts, token)
        except HTTPException as exc:
            await answer_to(exc)(scope, receive, send)
            return
        await self._route(scope, receive, send)


def bearer(headers: Headers) -> str:
    """The token that a request carries; empty without one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def key_holder(parts: Parts, token: str) -> Caller:
    """The caller behind a key.

    Raises:
        HTTPException: 401 when there is no such key, 503 when nobody can say.
    """

    def ask() -> str | None:
        try:
            return Keys(parts.database.engine).holder(token)
        except StoreError as exc:
            _log.warning("a key cannot be looked up: %s", first_line(exc))
            raise database_away() from exc

    name = await parts.keys.do(ask)
    if name is None:
        raise not_authenticated("this key is not known, or was revoked: ask for a new one")
    return Caller("key", name)
