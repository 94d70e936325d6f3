"""Recording every call of an `anthropic` client; those for Bedrock, Vertex and Foundry too."""

import functools
from typing import Any

from anthropic._base_client import AsyncAPIClient, SyncAPIClient

from flowledger.integrations.anthropic_batches import saw_batch
from flowledger.integrations.anthropic_reading import ENDPOINTS
from flowledger.integrations.sdk import Sdk, install, is_local

__all__ = ["wrap_anthropic"]

# Who answers, by a word in the name of the client's class, or of one that it comes from.
SELLERS = {
    "Bedrock": "aws.bedrock",
    "Vertex": "gcp.vertex_ai",
    "Foundry": "azure",
    # Anthropic's own platform, under the addresses of others.
    "AnthropicAWS": "anthropic",
    "AnthropicGoogleCloud": "anthropic",
}


def wrap_anthropic(client: Any) -> bool:
    """Record every call of this client from now on, once however often it is wrapped.

    `provider` is `anthropic`, also at loopback addresses, `aws.bedrock`, `gcp.vertex_ai` or `azure`
    for the clients of those, and the host of the base URL for any other.

    Args:
        client: an `anthropic.Anthropic` or `anthropic.AsyncAnthropic`, one of a subclass, or the
            package's client for another cloud.

    Returns:
        Whether it is such a client.
    """
    if not isinstance(client, SyncAPIClient | AsyncAPIClient):
        return False
    install(client, SDK)
    return True


def _provider(client: Any) -> str:
    cls: Any = type(client)
    return _seller(cls) or _provider_at(client.base_url.host)


@functools.lru_cache(maxsize=1000)
def _seller(cls: Any) -> str | None:
    names = " ".join(base.__name__ for base in cls.__mro__)
    return next((seller for word, seller in SELLERS.items() if word in names), None)


@functools.lru_cache(maxsize=1000)
def _provider_at(host: str) -> str:
    return "anthropic" if is_local(host) or host.endswith(".anthropic.com") else host


def _saw(client: Any, options: Any, answer: Any) -> None:
    saw_batch(_provider(client), options, answer)


SECRETS = ("api_key", "auth_token", "aws_secret_key", "aws_session_token", "access_token")
SDK = Sdk("anthropic", ENDPOINTS, _provider, _saw, SECRETS)
