"""Which provider answers for a model, and the recorded client that reaches it.

    openai/gpt-4o           OPENAI_API_KEY, and OPENAI_BASE_URL for another address
    anthropic/claude-...    ANTHROPIC_API_KEY, and ANTHROPIC_BASE_URL
    ollama/llama3           http://127.0.0.1:11434/v1, or OLLAMA_BASE_URL
    NAME/any/model          NAME_BASE_URL and NAME_API_KEY, or `providers` in flowledger.yaml

A name without a prefix is Anthropic's when it begins with `claude`, else OpenAI's.
"""

import asyncio
import functools
import os
import re
import time
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import msgspec

from flowledger import config
from flowledger.capture import wrap
from flowledger.chat.protocols import PROTOCOLS, Speaks
from flowledger.chat.steps import Reply
from flowledger.config import Settings
from flowledger.errors import ChatInputError, ConfigError, ProviderKeyError
from flowledger.records import Call, Kind, Usage

__all__ = ["Provider", "aclose", "find", "priced"]

KNOWN = {
    "openai": config.Provider(base_url="https://api.openai.com/v1"),
    "anthropic": config.Provider(base_url="https://api.anthropic.com", protocol="anthropic"),
    "ollama": config.Provider(base_url="http://127.0.0.1:11434/v1"),
}
NEED_A_KEY = ("api.openai.com", "api.anthropic.com")
NO_KEY = "none"
SHORTEST_KEY = 8


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model is asked: by what name, over which protocol, with which key."""

    model: str
    protocol: str
    base_url: str
    key: str
    timeout: float
    retries: int

    @property
    def speaks(self) -> Speaks:
        """Its protocol."""
        return PROTOCOLS[self.protocol]

    def hidden(self, text: str) -> str:
        """The text without the key, which some servers' errors quote."""
        return text.replace(self.key, "***") if len(self.key) >= SHORTEST_KEY else text

    @property
    def name(self) -> str:
        """As records name it: by its host, and what is on this host stands in for the real one."""
        host = urlsplit(self.base_url).hostname or ""
        local = host in ("localhost", "::1") or host.startswith("127.")
        official = local or host.endswith((".openai.com", ".anthropic.com"))
        return self.protocol if official else "azure" if host.endswith(".azure.com") else host

    def client(self) -> Any:
        """A client that records its calls; the same one in every thread of this process."""
        return _client(os.getpid(), self._where, asynchronous=False)

    def async_client(self) -> Any:
        """The same for this event loop alone: its connections belong to it."""
        clients = _async_clients.setdefault(asyncio.get_running_loop(), {})
        if self._where not in clients:
            clients[self._where] = _made(self._where, asynchronous=True)
        return clients[self._where]

    @property
    def _where(self) -> "_Where":
        return (self.protocol, self.base_url, self.key, self.timeout, self.retries)


_Where = tuple[str, str, str, float, int]
_async_clients: WeakKeyDictionary[Any, dict[_Where, Any]] = WeakKeyDictionary()


def find(model: str, settings: Settings) -> Provider:
    """The provider of a model.

    Raises:
        ChatInputError: nobody is known by its prefix.
        ProviderKeyError: its key is missing.
    """
    prefix, name = _split(model)
    known = settings.providers.get(prefix) or KNOWN.get(prefix) or config.Provider()
    variable = re.sub(r"\W", "_", prefix).upper()
    base_url = os.environ.get(f"{variable}_BASE_URL") or known.base_url
    if not base_url or not name:
        raise ChatInputError(
            f"no provider is known for model {model!r}: set {variable}_BASE_URL, or write "
            f"openai/{model} for a model that OPENAI_BASE_URL serves"
        )
    key_name = known.api_key_env or f"{variable}_API_KEY"
    key = os.environ.get(key_name, "").strip()
    if not key and urlsplit(base_url).hostname in NEED_A_KEY:
        raise ProviderKeyError(f"{key_name} is not set, and {prefix} asks for a key")
    return Provider(
        model=name,
        protocol=known.protocol,
        base_url=base_url,
        key=key or NO_KEY,
        timeout=settings.chat_timeout,
        retries=settings.chat_retries,
    )


def _split(model: str) -> tuple[str, str]:
    prefix, slash, name = model.partition("/")
    if slash:
        return prefix, name
    return ("anthropic" if model.startswith("claude") else "openai"), model


def priced(reply: Reply, provider: Provider) -> Reply:
    """The reply with what it cost, where the price list is installed and knows it."""
    try:
        from flowledger.pricing import price
    except ImportError:
        return reply
    cost = price(
        Call(
            id="",
            start_ns=time.time_ns(),
            kind=Kind.CHAT,
            provider=provider.name,
            model=reply.model,
            model_asked=provider.model,
            usage=reply.usage or Usage(),
        )
    )
    return reply if cost is None else msgspec.structs.replace(reply, cost_usd=cost.total)


async def aclose() -> None:
    """Close the connections that `achat` opened in this event loop."""
    for client in _async_clients.pop(asyncio.get_running_loop(), {}).values():
        await client.close()


@functools.lru_cache(maxsize=100)
def _client(pid: int, where: _Where, *, asynchronous: bool) -> Any:
    """One for each process: a forked child must not share its parent's connections."""
    return _made(where, asynchronous=asynchronous)


def _made(where: _Where, *, asynchronous: bool) -> Any:
    protocol, base_url, key, timeout, retries = where
    make = _class(protocol, asynchronous)
    return wrap(make(base_url=base_url, api_key=key, timeout=timeout, max_retries=retries))


def _class(protocol: str, asynchronous: bool) -> Any:
    try:
        if protocol == "anthropic":
            import anthropic

            return anthropic.AsyncAnthropic if asynchronous else anthropic.Anthropic
        import openai

        return openai.AsyncOpenAI if asynchronous else openai.OpenAI
    except ImportError as exc:
        raise ConfigError(
            f"{protocol} is not installed, and chat needs it: pip install 'flowledger[chat]'"
        ) from exc
