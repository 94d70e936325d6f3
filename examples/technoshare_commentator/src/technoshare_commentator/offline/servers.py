"""Copies of web pages, and a stand-in for Slack that refuses what Slack would refuse."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

PAGES = Path(__file__).parent / "pages"
MOST_BYTES = 1 << 20
# Longest texts and most blocks. Source: docs.slack.dev, Block Kit reference.
LONGEST = {"header": 150, "section": 3000}
MOST_BLOCKS = 50


class _Handler(SimpleHTTPRequestHandler):
    """Answers GET with a page, and POST as Slack."""

    posted: list[dict[str, Any]]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, directory=str(PAGES))

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(min(int(self.headers["Content-Length"]), MOST_BYTES)))
        error = self._refusal(message)
        if not error:
            self.posted.append(message)
        answer = {"ok": False, "error": error} if error else {"ok": True, "ts": "1.0"}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def _refusal(self, message: dict[str, Any]) -> str | None:
        blocks = message.get("blocks", [])
        checks = {
            "unknown_method": self.path == "/api/chat.postMessage",
            "invalid_auth": self.headers.get("Authorization", "").startswith("Bearer x"),
            "channel_not_found": bool(message.get("channel")),
            "no_text": bool(message.get("text")),
            "invalid_blocks": len(blocks) <= MOST_BLOCKS and all(map(_fits, blocks)),
        }
        return next((error for error, fine in checks.items() if not fine), None)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _fits(block: dict[str, Any]) -> bool:
    if block["type"] == "context":
        return all(one["type"] in ("mrkdwn", "plain_text", "image") for one in block["elements"])
    return 0 < len(block["text"]["text"]) <= LONGEST.get(block["type"], 0)


@contextmanager
def offline() -> Iterator[tuple[dict[str, str], list[dict[str, Any]]]]:
    """Settings that lead to both, and what is posted to Slack."""
    posted: list[dict[str, Any]] = []
    handler = type("Handler", (_Handler,), {"posted": posted})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        settings = {"TECHNOSHARE_FETCH_THROUGH": url, "SLACK_API_URL": f"{url}/api"}
        yield {**settings, "SLACK_BOT_TOKEN": "xoxb-offline"}, posted
        server.shutdown()
