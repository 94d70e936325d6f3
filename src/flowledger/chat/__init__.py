"""Chat: one call, four ways to answer, recorded and audited; and the documents it answers from.

The package is callable, so that `flowledger.chat(...)` works before and after its parts are loaded.
"""

import inspect
import sys
from types import ModuleType

from flowledger.chat.asking import AsyncChatStream, ChatStream, achat, chat
from flowledger.chat.providers import aclose
from flowledger.chat.sessions import forget

__all__ = ["AsyncChatStream", "ChatStream", "achat", "aclose", "chat", "forget"]

__signature__ = inspect.signature(chat)


class _Callable(ModuleType):
    __call__ = staticmethod(chat)


sys.modules[__name__].__class__ = _Callable
