"""Credentials that this worker has not seen before are looked at here, before any route is.

Comparing a password is slow on purpose, and that is the work a flood of guesses makes. So guesses
are slowed down before it, and have threads of their own: whoever is known waits for none of them.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowledger.server.callers import MlflowUsers
from flowledger.server.guesses import Guesses
from flowledger.server.key_holders import bearer, key_holder
from flowledger.server.parts import Parts
from flowledger.server.problems import answer_to, busy
from flowledger.store.keys import is_key

__all__ = ["LogIns"]

MOST_KNOWN = 1_000
AT_ONCE_FROM_ONE_ADDRESS = 4


class LogIns:
    """Lets a request on when its password or key is right, or when it carries none.

    Routes look at the credentials again: what is remembered here is only that they were right once
    and are no guess. It is a keyed digest, so that no password stays in memory.

    Args:
        app: MLflow's routes and ours.
        parts: of this worker.
        users: MLflow's users.
        public: paths that are for everybody, whatever credentials come with a request.
    """

    def __init__(
        self, app: ASGIApp, parts: Parts, users: MlflowUsers, public: frozenset[str]
    ) -> None:
        self._app = app
        self._parts = parts
        self._users = users
        self._public = public
        self._guesses = Guesses()
        self._secret = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._under_way: dict[bytes, tuple[str, asyncio.Task[None]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request on, or answer it."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        name = _name_of(headers)
        if name is None or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        digest = self._digest(headers["authorization"])
        if digest not in self._known:
            try:
                await self._check(digest, name, scope)
            except HTTPException as exc:
                await answer_to(exc)(scope, receive, send)
                return

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                self._known.pop(digest, None)  # a password that was changed, a key that was revoked
            await send(message)

        await self._app(scope, receive, noting)

    async def _check(self, digest: bytes, name: str, scope: Scope) -> None:
        """Look at credentials once, however many requests bring them at the same time.

        Raises:
            HTTPException: 401 they are wrong, 429 too many failed before, 503 nobody can say.
        """
        if digest not in self._under_way:
            address = scope["client"][0] if scope.get("client") else ""
            if (
                sum(address == one for one, _ in self._under_way.values())
                >= AT_ONCE_FROM_ONE_ADDRESS
            ):
                raise busy("several log-ins from here are being looked at: send it again later")
            self._guesses.begin(name, address)
            task = asyncio.create_task(self._log_in(digest, name, address, scope))
            self._under_way[digest] = (address, task)
            task.add_done_callback(lambda done: self._end(digest, done))
        await asyncio.shield(self._under_way[digest][1])

    async def _log_in(self, digest: bytes, name: str, address: str, scope: Scope) -> None:
        headers = Headers(scope=scope)
        token, path, method = bearer(headers), scope["path"], scope["method"]
        try:
            if is_key(token):
                await key_holder(self._parts, token)
            else:
                await self._parts.log_ins.do(lambda: self._users.caller(headers, path, method))
        except HTTPException as exc:
            if exc.status_code != 401:
                self._guesses.take_back(name, address, passed=False)
            raise
        self._guesses.take_back(name, address, passed=True)
        self._known[digest] = None
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def _end(self, digest: bytes, done: "asyncio.Task[None]") -> None:
        del self._under_way[digest]
        if not done.cancelled():
            done.exception()  # whoever waited for it was told

    def _digest(self, authorization: str) -> bytes:
        text = authorization.encode("utf-8", "surrogateescape")
        return hmac.digest(self._secret, text, hashlib.sha256)


def _name_of(headers: Headers) -> str | None:
    """Whose password or key a request carries, as far as can be read; None where it has neither."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()[:16] if is_key(given.strip()) else None
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(given, validate=True).decode("utf-8", "replace").partition(":")[0]
    except (binascii.Error, ValueError):
        return ""
