"""Versions of prompts nobody named: a hash of what an application says in every such call."""

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from flowledger.records import NO_PROMPT, Call, Prompt

__all__ = ["FewVersions", "versioned"]

FIXED_ROLES = ("system", "developer")
FIXED_FIELDS = ("instructions", "system")
HASH_LENGTH = 16
MOST_VERSIONS = 100
MOST_FEATURES = 1000


class FewVersions:
    """The first so many hashes of each of the first features.

    Instructions that hold a document or a name are others in every call: those are no versions, and
    a sum for each would be as long as the ledger itself.
    """

    def __init__(self, most: int = MOST_VERSIONS) -> None:
        self._most = most
        self._seen: dict[str | None, set[str]] = {}

    def admit(self, feature: str | None, digest: str) -> bool:
        """Whether this hash is one of them."""
        if feature not in self._seen and len(self._seen) >= MOST_FEATURES:
            return False
        seen = self._seen.setdefault(feature, set())
        if digest not in seen and len(seen) >= self._most:
            return False
        seen.add(digest)
        return True


def versioned(call: Call, few: FewVersions | None = None) -> Call:
    """The call with the hash of its instructions and tools, where it names no prompt.

    What stays the same from call to call is the system's messages and the names of the tools. A
    call without instructions stays as it is, and so does one whose hash is not among the `few`.
    """
    if call.prompt_version != NO_PROMPT:
        return call
    instructions = list(_instructions(call.prompt))
    if not instructions:
        return call
    text = "\0".join([*instructions, *map(str, call.settings.get("tools") or ())])
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:HASH_LENGTH]
    if few is not None and not few.admit(call.feature, digest):
        return call
    return msgspec.structs.replace(call, prompt_version=Prompt(hash=digest))


def _instructions(prompt: Any) -> Iterator[str]:
    if isinstance(prompt, dict):
        yield from (str(prompt[name]) for name in FIXED_FIELDS if prompt.get(name))
        prompt = prompt.get("messages") or prompt.get("input")
    for message in prompt if isinstance(prompt, list) else ():
        if isinstance(message, dict) and message.get("role") in FIXED_ROLES:
            yield str(message.get("content"))
