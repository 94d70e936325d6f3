"""`wrap`: record every call of a provider's client."""

from collections.abc import Callable
from typing import Any, TypeVar

from flowledger import config, logs

__all__ = ["wrap"]

C = TypeVar("C")


def _openai(client: Any) -> bool:
    from flowledger.integrations.openai import wrap_openai

    return wrap_openai(client)


def _anthropic(client: Any) -> bool:
    from flowledger.integrations.anthropic import wrap_anthropic

    return wrap_anthropic(client)


WRAPPERS: list[tuple[str, Callable[[Any], bool]]] = [
    ("openai", _openai),
    ("anthropic", _anthropic),
]


def wrap(client: C) -> C:
    """Record every call that this client makes from now on; the client itself comes back.

    Types, exceptions and streamed chunks stay as they were. Clients of `openai` (also Azure's and
    those of compatible servers) and of `anthropic` (also Bedrock's and Vertex's), synchronous or
    not, are known; any other client is returned as it is, with a warning.

    Args:
        client: `openai.OpenAI`, `anthropic.Anthropic`, or their asynchronous or derived clients.
    """
    if not config.switched_on():
        return client
    packages = {cls.__module__.partition(".")[0] for cls in type(client).__mro__}
    for package, wrapper in WRAPPERS:
        if package in packages and wrapper(client):
            return client
    logs.warn("capture", "calls of %s are not recorded: no such client is known", type(client))
    return client
