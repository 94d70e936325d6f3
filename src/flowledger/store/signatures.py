"""Versions of prompts nobody named: a hash of what an application says in every such call."""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from flowledger.records import NO_PROMPT, Call, Prompt

__all__ = ["versioned"]

FIXED_ROLES = ("system", "developer")
FIXED_FIELDS = ("instructions", "system")
HASH_LENGTH = 16


def versioned(call: Call) -> Call:
    """The call with the hash of its instructions and tools, where it names no prompt.

    What stays the same from call to call is the system's messages and the names of the tools. A
    call without instructions stays as it is.
    """
    if call.prompt_version != NO_PROMPT:
        return call
    instructions = list(_instructions(call.prompt))
    if not instructions:
        return call
    text = "\0".join([*instructions, *map(str, call.settings.get("tools") or ())])
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:HASH_LENGTH]
    return msgspec.structs.replace(call, prompt_version=Prompt(hash=digest))


def _instructions(prompt: Any) -> Iterator[str]:
    if isinstance(prompt, dict):
        yield from (str(prompt[name]) for name in FIXED_FIELDS if prompt.get(name))
        prompt = prompt.get("messages") or prompt.get("input")
    for message in prompt if isinstance(prompt, list) else ():
        if isinstance(message, dict) and message.get("role") in FIXED_ROLES:
            yield str(message.get("content"))
