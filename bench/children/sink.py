"""A server on loopback that takes whatever is posted to it."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.processes import serve


class Taking(BaseHTTPRequestHandler):
    """Reads the request and says 200."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take it."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


server = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
threading.Thread(target=server.serve_forever, daemon=True).start()
serve(port=lambda: server.server_port)
