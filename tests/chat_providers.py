"""Providers to chat with: the stub server under several names, and Anthropic's protocol."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

__all__ = ["ANTHROPIC_TEXT", "anthropic_server"]

ANTHROPIC_TEXT = "Because of Rayleigh scattering."
USAGE = {"input_tokens": 12, "output_tokens": 7, "cache_read_input_tokens": 3}
EVENTS: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**USAGE, "output_tokens": 1},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Because of "},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "Rayleigh scattering."},
    },
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 7},
    },
    {"type": "message_stop"},
]


def _message(asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "content": [{"type": "text", "text": ANTHROPIC_TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": USAGE,
    }


@contextmanager
def anthropic_server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a server that speaks Anthropic's messages, and what it was asked."""
    asked: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(asked.append))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(saw: Callable[[dict[str, Any]], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            saw(asked)
            if asked["model"] == "claude-broken":
                message = f"busy, {self.headers['x-api-key']}"
                error = {"type": "error", "error": {"type": "busy", "message": message}}
                self._send(529, "application/json", json.dumps(error).encode())
            elif asked.get("stream"):
                events = EVENTS[:3] if asked["model"] == "claude-cut" else EVENTS
                lines = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events]
                self._send(200, "text/event-stream", "".join(lines).encode())
            else:
                self._send(200, "application/json", json.dumps(_message(asked)).encode())

        def _send(self, status: int, media_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
