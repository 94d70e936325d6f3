"""An application with two clients of each package, one of them wrapped; nothing is shipped."""

import time
from collections.abc import Callable
from typing import Any

from anthropic import Anthropic
from openai import OpenAI

import flowledger
from bench.processes import argument, serve

URL: str = argument()["url"]
ASK: list[Any] = [{"role": "user", "content": "What does the report of last week say of costs?"}]
CLAUDE: dict[str, Any] = {"model": "claude-sonnet-4-5", "max_tokens": 200, "messages": ASK}
GPT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": ASK}


def _openai() -> OpenAI:
    return OpenAI(base_url=URL, api_key="stub")


def _anthropic() -> Anthropic:
    return Anthropic(base_url=URL.removesuffix("/v1"), api_key="stub")


def _chats(client: Any) -> Callable[[], object]:
    return lambda: client.chat.completions.create(**GPT)


def _streams(client: Any) -> Callable[[], object]:
    # The wrapper asks for the usage, so the plain client does too: both get as many chunks.
    options = {"include_usage": True}
    create = client.chat.completions.create
    return lambda: list(create(**GPT, stream=True, stream_options=options))


def _messages(client: Any) -> Callable[[], object]:
    return lambda: client.messages.create(**CLAUDE)


def _pair(
    make: Callable[[], Any], how: Callable[[Any], Callable[[], object]]
) -> list[Callable[[], object]]:
    return [how(make()), how(flowledger.wrap(make()))]


PAIRS = {
    "openai chat": _pair(_openai, _chats),
    "openai stream": _pair(_openai, _streams),
    "anthropic message": _pair(_anthropic, _messages),
}


def timed(name: str, calls: int) -> dict[str, list[int]]:
    """Nanoseconds of each call, the plain and the wrapped client taking turns to be first."""
    took: list[list[int]] = [[], []]
    for turn in range(calls):
        for which in (0, 1) if turn % 2 else (1, 0):
            call = PAIRS[name][which]
            started = time.perf_counter_ns()
            call()
            took[which].append(time.perf_counter_ns() - started)
    return {"plain": took[0], "wrapped": took[1]}


serve(timed=timed)
