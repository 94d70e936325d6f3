"""The guard: who may come to our routes, asked before any of them."""

import logging

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from flowledger.errors import StoreError
from flowledger.server.callers import (
    Caller,
    MlflowUsers,
    database_away,
    key_holder,
)
from flowledger.server.health import PUBLIC_PATHS
from flowledger.server.ingest import CALLS_PATH
from flowledger.server.parts import Parts
from flowledger.server.problems import answer_to, first_line
from flowledger.store.keys import Keys, is_key

__all__ = ["Guard"]

_log = logging.getLogger("flowledger.server")


class Guard:
    """Lets a request through to `app` with its caller, or answers 401, 403 or 503.

    Health is for everybody, ingest for users and holders of keys, all the rest for users.

    Args:
        app: our routes.
        parts: of this worker.
        users: MLflow's users.
    """

    def __init__(self, app: ASGIApp, parts: Parts, users: MlflowUsers) -> None:
        self._app = app
        self._parts = parts
        self._users = users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or answer it."""
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            if path not in PUBLIC_PATHS:
                try:
                    caller = await self._caller(Headers(scope=scope), path, scope["method"])
                except HTTPException as exc:
                    await answer_to(exc)(scope, receive, send)
                    return
                scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    async def _caller(self, headers: Headers, path: str, method: str) -> Caller:
        token = _bearer(headers)
        if not is_key(token):
            return await self._parts.ask(lambda: self._users.caller(headers, path, method))
        if (method, path) != ("POST", CALLS_PATH):
            raise HTTPException(403, "a key is for ingest alone: log in as a user here")
        return await self._parts.ask(lambda: self._holder(token))

    def _holder(self, token: str) -> Caller:
        try:
            return key_holder(Keys(self._parts.database.engine).holder(token))
        except StoreError as exc:
            _log.warning("a key cannot be looked up: %s", first_line(exc))
            raise database_away() from exc


def _bearer(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
