"""A stub LLM server that speaks OpenAI's and Anthropic's HTTP protocols, for tests and benchmarks.

    with StubLLM() as stub:
        client = OpenAI(base_url=stub.url, api_key="stub")
        client.chat.completions.create(model="gpt-4o-mini", messages=[...])
        client = Anthropic(base_url=stub.root, api_key="stub")
        client.messages.create(model="claude-sonnet-4-5", max_tokens=100, messages=[...])

It answers chat and text completions, responses, embeddings, image generations, transcriptions,
Anthropic's messages, both kinds of batches (done at once) and the list of models. The same request
gets the same answer, and usage is counted from the real texts with the o200k_base tokenizer. Tools
are called, and schemas filled in, with values that fit.

A request is steered by headers, or by the same settings in its model's name, written as a query:
`x-stub-tokens: 40` and `model="gpt-4o-mini?tokens=40"` say the same; `&` joins several, and a
header wins. The answer names the model without them.

| header | the answer |
|---|---|
| `x-stub-tokens: N` | its text is exactly N tokens long; schemas and tool calls keep theirs |
| `x-stub-reasoning-tokens: N` | its usage has N reasoning tokens besides the text's |
| `x-stub-cached-tokens: N` | its usage has N of the prompt's tokens as cached |
| `x-stub-cache-write-tokens: N` | (messages) and N of them as written to the cache |
| `x-stub-status: CODE` | is this error, 400 to 599 |
| `x-stub-retry-after: SECONDS` | is a 429 or 503 that says so; 1 unless told otherwise |
| `x-stub-mode: hang` | never comes, until the client leaves |
| `x-stub-mode: cut` | stops half-way, a stream inside an event, and the connection closes |
| `x-stub-mode: malformed` | is half of its JSON, or a stream with an event that is no JSON |
| `x-stub-fail-times: N` | fails so the first N times, with 500 unless told how, and then works |
| `x-stub-key: TEXT` | is counted under this key, else `idempotency-key`, else the request itself |
| `x-stub-delay: SECONDS` | begins after this time |
| `x-stub-chunk-delay: SECONDS` | is a stream with this time between its events |

Run it by itself with `python -m flowledger.testing.llm --port 8000`; its first line is its URL.
With a command, `python -m flowledger.testing.llm -- python app.py`, it stands in for OpenAI and
Anthropic while that command runs.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

import click
import msgspec
import uvicorn
from starlette.types import Scope

from flowledger.errors import FlowledgerError
from flowledger.testing.stub.app import Defaults, Received, StubApp

__all__ = ["Received", "StubLLM", "StubProcess", "main"]

_HOST = "127.0.0.1"


class StubLLM:
    """The server in a thread of this process, on a free port of the loopback address.

    `error_rate` is the part of the requests, 0 to 1, that fail with 429, 500 or 503: always the
    same ones, so a retry does not help them. An answer takes `latency_ms`, and `ms_per_token` for
    each token it generates. `requests` keeps the last `keep` of what came in.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        error_rate: float = 0.0,
        latency_ms: float = 0.0,
        ms_per_token: float = 0.0,
        keep: int = 1000,
    ) -> None:
        self._port = port
        self._keep = keep
        self._defaults = Defaults(
            error_rate=error_rate, latency_ms=latency_ms, ms_per_token=ms_per_token
        )
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def start(self) -> Self:
        """Start it and wait until it answers.

        Raises:
            FlowledgerError: the port is taken, or the server did not start.
        """
        listener = _listen(self._port)
        self._port = listener.getsockname()[1]
        ready = threading.Event()
        self._server = _Server(self._defaults, self._keep, ready.set)
        self._thread = threading.Thread(
            target=self._run, args=(self._server, listener, ready), name="stub-llm", daemon=True
        )
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            raise FlowledgerError("the stub LLM server did not start") from self._failure
        return self

    def _run(self, server: "_Server", listener: socket.socket, ready: threading.Event) -> None:
        try:
            server.run(sockets=[listener])
        except BaseException as exc:  # noqa: BLE001 - it is raised in the thread that waits
            self._failure = exc
        finally:
            listener.close()
            ready.set()

    @property
    def url(self) -> str:
        """The address to give a client as `base_url`: `http://127.0.0.1:PORT/v1`.

        Raises:
            FlowledgerError: it has not been started, so it has no port yet.
        """
        if not self._port:
            raise FlowledgerError("the stub LLM server has no address before `with` or start()")
        return _url(self._port)

    @property
    def root(self) -> str:
        """The address to give a client of Anthropic as `base_url`: without `/v1`."""
        return self.url.removesuffix("/v1")

    @property
    def requests(self) -> list[Received]:
        """What came in, oldest first."""
        return list(self._server.stub.received) if self._server else []

    def close(self) -> None:
        """Close every connection and stop; `requests` stays readable."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        """Stop it."""
        self.close()

    @classmethod
    def process(
        cls, *, error_rate: float = 0.0, latency_ms: float = 0.0, ms_per_token: float = 0.0
    ) -> "StubProcess":
        """The same server in a process of its own, so that it takes no time from a benchmark's."""
        return StubProcess(
            f"--error-rate={error_rate}",
            f"--latency-ms={latency_ms}",
            f"--ms-per-token={ms_per_token}",
        )


class StubProcess:
    """A stub server in a process that leaves when it is closed or its parent is gone."""

    def __init__(self, *flags: str) -> None:
        command = [sys.executable, "-m", "flowledger.testing.llm", f"--parent={os.getpid()}"]
        self._process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self.url = self._output.readline().strip()
        if not self.url:
            self.close()
            raise FlowledgerError("the stub LLM server did not start: see its error output")

    def close(self) -> None:
        """Stop it and wait until it is gone."""
        self._process.terminate()
        self._process.wait()
        self._output.close()

    def __enter__(self) -> Self:
        """It runs already."""
        return self

    def __exit__(self, *_exc: object) -> None:
        """Stop it."""
        self.close()


class _Server(uvicorn.Server):
    """Uvicorn, silent, that says when it is ready and hangs up on everybody when it stops."""

    def __init__(
        self,
        defaults: Defaults,
        keep: int,
        on_ready: Callable[[], None],
        parent: int | None = None,
    ) -> None:
        self.stub = StubApp(defaults, self._hang_up, keep)
        self._on_ready = on_ready
        self._parent = parent
        config = uvicorn.Config(
            self.stub,
            interface="asgi3",
            lifespan="off",
            ws="none",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            # Longer than a client keeps an idle connection, so that none is closed under its feet.
            timeout_keep_alive=600,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        orphan = self._parent is not None and os.getppid() != self._parent
        return await super().on_tick(counter) or orphan

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A hung answer would wait for ever: its handler ends when its connection does.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)

    def _hang_up(self, scope: Scope) -> None:
        for connection in list(self.server_state.connections):
            if getattr(connection, "scope", None) is scope:
                connection.transport.close()


def _listen(port: int) -> socket.socket:
    try:
        listener = socket.create_server((_HOST, port), backlog=2048)
    except OSError as exc:
        raise FlowledgerError(f"port {port} is not free: choose another one, or 0") from exc
    # Connections inherit it. Plain asyncio sets it only where the socket names its protocol, and
    # without it every kept-alive request waits 44 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(port: int) -> str:
    return f"http://{_HOST}:{port}/v1"


@click.command()
@click.option("--port", default=0, help="0 takes a free one.")
@click.option("--error-rate", default=0.0, type=click.FloatRange(0, 1), help="0 to 1.")
@click.option("--latency-ms", default=0.0, type=click.FloatRange(0), help="Before each answer.")
@click.option("--ms-per-token", default=0.0, type=click.FloatRange(0), help="While generating.")
@click.option("--parent", type=int, hidden=True, help="Leave when this process is gone.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def main(
    port: int,
    error_rate: float,
    latency_ms: float,
    ms_per_token: float,
    parent: int | None,
    command: tuple[str, ...],
) -> None:
    """Run the stub LLM server until it is interrupted; the first line is its URL.

    With a COMMAND, written after `--`, run that instead, with the server in the place of OpenAI and
    Anthropic, and leave with its exit code.
    """
    defaults = Defaults(error_rate=error_rate, latency_ms=latency_ms, ms_per_token=ms_per_token)
    if command:
        with StubLLM(port=port, keep=0, **msgspec.structs.asdict(defaults)) as stub:
            sys.exit(_run_beside(stub, command))
    try:
        listener = _listen(port)
    except FlowledgerError as exc:
        raise click.ClickException(str(exc)) from exc
    url = _url(listener.getsockname()[1])
    server = _Server(defaults, 0, lambda: click.echo(url), parent)
    with listener, suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def _run_beside(stub: StubLLM, command: Sequence[str]) -> int:
    """Run a command that finds the stub where its clients look for OpenAI and Anthropic."""
    stands_in = {
        "OPENAI_BASE_URL": stub.url,
        "OPENAI_API_KEY": "stub",
        "ANTHROPIC_BASE_URL": stub.root,
        "ANTHROPIC_API_KEY": "stub",
    }
    try:
        process = subprocess.Popen(command, env={**os.environ, **stands_in})
    except OSError as exc:
        raise click.ClickException(f"{command[0]} cannot be run: {exc.strerror}") from exc
    # A terminal sends Ctrl-C to both: what to do about it is the command's to say.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
