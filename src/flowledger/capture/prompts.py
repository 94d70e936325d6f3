"""Prompts by name and version, which travel with the calls that use them."""

import hashlib
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

import msgspec

from flowledger.asynchronous import reraise_asynchronous
from flowledger.capture.context import carried, leave
from flowledger.errors import PromptError
from flowledger.records import Prompt

__all__ = ["PromptTemplate", "prompt", "signature"]

HASH_LENGTH = 16

_variable = re.compile(r"\{\{\s*(\w+)\s*\}\}")


class PromptTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt's text with `{{variables}}`, written as MLflow's prompt registry writes them."""

    name: str
    template: str
    version: str | None = None

    @property
    def hash(self) -> str:
        """Names this very text, and stands for its version where it has none."""
        return _hash(self.template)

    def format(self, **values: object) -> str:
        """The text with its variables filled in.

        Raises:
            PromptError: a variable has no value.
        """
        missing = sorted(set(_variable.findall(self.template)) - values.keys())
        if missing:
            raise PromptError(f"prompt {self.name!r} needs {', '.join(missing)}")
        return _variable.sub(lambda match: str(values[match[1]]), self.template)

    @contextmanager
    def use(self, **values: object) -> Iterator[str]:
        """The text with its variables filled in; calls made inside carry this prompt.

        Raises:
            PromptError: a variable has no value.
        """
        text = self.format(**values)
        outer = carried.get()
        used = Prompt(name=self.name, version=self.version, hash=self.hash)
        tags = {**outer.tags, "prompt_name": self.name, "prompt_template": self.template}
        token = carried.set(msgspec.structs.replace(outer, prompt_version=used, tags=tags))
        try:
            yield text
        finally:
            leave(token)


def prompt(name: str, template: str, version: object = None) -> PromptTemplate:
    """A prompt whose name, version and text travel with the calls that use it.

    With the number of a version in MLflow's prompt registry, the traces of those calls are linked
    to it there. Without one, the hash of the text is the version.

    Args:
        name: as in the registry.
        template: the text, with variables as `{{name}}`.
        version: the registry's number, or any name of a version.
    """
    return PromptTemplate(
        name=name, template=template, version=None if version is None else str(version)
    )


def signature(function: Callable[..., Any]) -> str:
    """A hash that changes with what a function asks: its parameters and the texts in its code."""
    try:
        code = getattr(inspect.unwrap(function), "__code__", None)
    except Exception as exc:  # noqa: BLE001 - the application's objects may raise anything
        reraise_asynchronous(exc)
        code = None
    texts = list(_texts(code)) if isinstance(code, CodeType) else [type(function).__qualname__]
    return _hash("\0".join(texts))


def _texts(code: CodeType) -> Iterator[str]:
    """Names of parameters and constant texts, those of inner functions included."""
    yield ",".join(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, CodeType):
            yield from _texts(constant)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:HASH_LENGTH]
