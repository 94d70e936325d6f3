"""Recording every client that is made of a package, without a change of the code that makes it."""

import functools
import importlib
from typing import Any

from flowledger.capture.wrapping import wrap

__all__ = ["anthropic", "openai"]


def openai() -> None:
    """Wrap every client of `openai` from now on as it is made."""
    _wrap_each_of("openai._base_client")


def anthropic() -> None:
    """Wrap every client of `anthropic` from now on as it is made."""
    _wrap_each_of("anthropic._base_client")


def _wrap_each_of(module: str) -> None:
    base = importlib.import_module(module)
    for cls in (base.SyncAPIClient, base.AsyncAPIClient):
        if not getattr(cls.__init__, "records_calls", False):
            cls.__init__ = _wrapping(cls.__init__)


def _wrapping(init: Any) -> Any:
    @functools.wraps(init)
    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        wrap(self)

    vars(made)["records_calls"] = True
    return made
