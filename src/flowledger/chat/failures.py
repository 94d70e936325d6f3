"""What a provider's client raises, in our own words."""

from flowledger.asynchronous import reraise_asynchronous
from flowledger.chat.providers import Provider
from flowledger.errors import (
    ProviderError,
    ProviderKeyError,
    ProviderLimitError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)

__all__ = ["translated"]

LONGEST = 500
NO_KEY = (401, 403)
TOO_MUCH = (402, 429)
TIMEOUTS = ("APITimeoutError", "ReadTimeout", "ConnectTimeout", "WriteTimeout", "PoolTimeout")
UNREACHABLE = ("APIConnectionError", "RemoteProtocolError", "ReadError", "ConnectError")


def translated(exc: Exception, provider: Provider, begun: bool = False) -> ProviderError:
    """The provider error that says what happened; `openai` and `anthropic` name theirs alike.

    Args:
        exc: whatever a client raised.
        provider: who was asked.
        begun: part of the answer had come.

    Raises:
        Exception: what a signal handler of the application raised is nobody's answer.
    """
    reraise_asynchronous(exc)
    if isinstance(exc, ProviderError):
        return exc
    status = getattr(exc, "status_code", None)
    status = status if isinstance(status, int) else None
    names = [cls.__name__ for cls in type(exc).__mro__]
    model = provider.model
    told = " ".join(provider.hidden(str(exc)).split())[:LONGEST]
    if any(name in TIMEOUTS for name in names):
        return ProviderTimeoutError(f"{model} did not answer in time", status, begun)
    if status in NO_KEY:
        return ProviderKeyError(f"{model} does not take the key: {told}", status, begun)
    if status in TOO_MUCH:
        return ProviderLimitError(f"{model} takes no more requests now: {told}", status, begun)
    if any(name in UNREACHABLE for name in names):
        return ProviderUnavailableError(f"{model} cannot be reached: {told}", status, begun)
    if status is not None and status >= 500:
        return ProviderUnavailableError(f"{model} has a fault: {told}", status, begun)
    if status is not None:
        return ProviderError(f"{model} refuses: {told}", status, begun)
    return ProviderError(f"the answer of {model} cannot be read: {told}", None, begun)
