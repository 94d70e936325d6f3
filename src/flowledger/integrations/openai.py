"""Recording every call of an `openai` client, of version 2.20 up to 3.x."""

import functools
from typing import Any

import openai

from flowledger.integrations.openai_batches import saw_file_or_batch
from flowledger.integrations.openai_reading import ENDPOINTS
from flowledger.integrations.sdk import Sdk, install, is_local

__all__ = ["wrap_openai"]

AZURES = (openai.AzureOpenAI, openai.AsyncAzureOpenAI)


def wrap_openai(client: Any) -> bool:
    """Record every call of this client from now on, once however often it is wrapped.

    `provider` is `azure` for Azure's clients and addresses, `openai` for OpenAI's own and for
    loopback addresses, and the host of the base URL for any other, since prices depend on who
    answers.

    Args:
        client: an `openai.OpenAI` or `openai.AsyncOpenAI`, or one of a subclass.

    Returns:
        Whether it is such a client.
    """
    if not isinstance(client, openai.OpenAI | openai.AsyncOpenAI):
        return False
    install(client, SDK)
    return True


def _provider(client: Any) -> str:
    if isinstance(client, AZURES):
        return "azure"
    return _provider_at(client.base_url.host)


@functools.lru_cache(maxsize=1000)
def _provider_at(host: str) -> str:
    if is_local(host) or host.endswith(".openai.com"):
        return "openai"
    return "azure" if host.endswith(".azure.com") else host


def _saw(client: Any, options: Any, answer: Any) -> None:
    saw_file_or_batch(_provider(client), options, answer)


SDK = Sdk("openai", ENDPOINTS, _provider, _saw, ("api_key", "admin_api_key", "_azure_ad_token"))
