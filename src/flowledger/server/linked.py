"""A link to the dashboard on MLflow's own first page, which is sent as it is but for that."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Linked"]

END = b"</body>"
LINK = (
    '<a href="{place}" style="position:fixed;right:16px;bottom:16px;z-index:1000;padding:8px 16px;'
    "border-radius:999px;background:#4338ca;color:#fff;font:600 14px/1.4 system-ui,sans-serif;"
    'text-decoration:none;box-shadow:0 2px 8px rgba(0,0,0,.25)">Ledger</a>'
)


class Linked:
    """MLflow's app with a link on its first page.

    Args:
        app: MLflow's.
        prefix: of every path.
        place: the dashboard's path.
    """

    def __init__(self, app: ASGIApp, prefix: str, place: str) -> None:
        self._app = app
        self._first_page = f"{prefix}/"
        self._link = LINK.format(place=f"{prefix}{place}").encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        asked = (scope["type"], scope.get("method"), scope.get("path"))
        if asked == ("http", "GET", self._first_page):
            send = _Adding(send, self._link)
        await self._app(scope, receive, send)


class _Adding:
    """Sends a page with a link before its end, and anything else unchanged."""

    def __init__(self, send: Send, link: bytes) -> None:
        self._send = send
        self._link = link
        self._start: Message = {}
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._whole()
        else:
            await self._send(message)

    async def _whole(self) -> None:
        headers = MutableHeaders(raw=list(self._start["headers"]))
        is_page = headers.get("content-type", "").startswith("text/html")
        body = self._body
        if is_page and "content-encoding" not in headers:
            body = body.replace(END, self._link + END, 1)
            headers["content-length"] = str(len(body))
        await self._send({**self._start, "headers": headers.raw})
        await self._send({"type": "http.response.body", "body": body})
