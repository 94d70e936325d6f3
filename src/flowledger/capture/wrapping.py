"""`wrap`: record every call of a provider's client."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

from flowledger import config, logs
from flowledger.asynchronous import reraise_asynchronous

__all__ = ["wrap"]

C = TypeVar("C")


def _openai(client: Any) -> bool:
    from flowledger.integrations.openai import wrap_openai

    return wrap_openai(client)


def _anthropic(client: Any) -> bool:
    from flowledger.integrations.anthropic import wrap_anthropic

    return wrap_anthropic(client)


def _litellm(module: Any) -> bool:
    from flowledger.integrations.litellm import wrap_litellm

    return wrap_litellm(module)


WRAPPERS: list[tuple[str, Callable[[Any], bool]]] = [
    ("openai", _openai),
    ("anthropic", _anthropic),
    ("litellm", _litellm),
]


def wrap(client: C) -> C:
    """Record every call that this client makes from now on; the client itself comes back.

    Types, exceptions and streamed chunks stay as they were. Clients of `openai` (also Azure's and
    those of compatible servers) and of `anthropic` (also Bedrock's and Vertex's), synchronous or
    not, are known, and so is the module `litellm`; anything else is returned as it is, with a
    warning.

    Args:
        client: `openai.OpenAI`, `anthropic.Anthropic`, their asynchronous or derived clients, or
            `litellm` itself.
    """
    if not config.switched_on():
        return client
    try:
        if not _wrapped(client):
            logs.warn(
                "capture", "calls of %s are not recorded: no such client is known", type(client)
            )
    except Exception as exc:  # noqa: BLE001 - no fault of ours may reach the application
        reraise_asynchronous(exc)
        logs.warn("capture", "calls of %s are not recorded: %r", type(client), exc)
    return client


def _wrapped(client: Any) -> bool:
    packages = _packages(client)
    return any(wrapper(client) for package, wrapper in WRAPPERS if package in packages)


def _packages(client: Any) -> set[str]:
    if isinstance(client, ModuleType):
        return {client.__name__}
    return {cls.__module__.partition(".")[0] for cls in type(client).__mro__}
