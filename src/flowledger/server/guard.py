"""The guard: who may come to our routes, asked before any of them."""

import hmac

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from flowledger.server.callers import Caller, MlflowUsers
from flowledger.server.health import PUBLIC_PATHS
from flowledger.server.ingest import CALLS_PATH
from flowledger.server.key_holders import bearer, key_holder
from flowledger.server.parts import Parts
from flowledger.server.problems import answer_to
from flowledger.server.scraping import METRICS_PATH
from flowledger.store.keys import is_key

__all__ = ["Guard"]

NUMBERS_OF_ALL = (
    "these numbers are of every experiment: log in as an administrator, or send the token that the "
    "server has as FLOWLEDGER_SERVER_METRICS_TOKEN"
)


class Guard:
    """Lets a request through to `app` with its caller, or answers 401, 403 or 503.

    Health is for everybody, ingest for users and holders of keys, all the rest for users. Numbers
    name features of every experiment, so they are for administrators; also for Prometheus with a
    token of its own, so that they are told while the database is away.

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
        token = bearer(headers)
        if path == METRICS_PATH and self._is_of_prometheus(token):
            return Caller("prometheus")
        if not is_key(token):
            caller = await self._parts.callers.do(lambda: self._users.caller(headers, path, method))
            if path == METRICS_PATH and not caller.is_admin:
                raise HTTPException(403, NUMBERS_OF_ALL)
            return caller
        if (method, path) != ("POST", CALLS_PATH):
            raise HTTPException(403, "a key is for sending calls and spans: log in as a user here")
        return await key_holder(self._parts, token)

    def _is_of_prometheus(self, token: str) -> bool:
        wanted = self._parts.settings.metrics_token
        return bool(wanted) and hmac.compare_digest(token.encode(), wanted.encode())
