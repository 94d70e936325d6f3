"""A program that records calls with values nobody should send, each followed by a plain one.

It prints `{case: [id of its call, what was raised]}`; the plain calls are called `next to CASE`.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import flowledger

NAN, INF = float("nan"), float("inf")


class Wild:
    """An object that tells nothing about itself."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class WildKey(Wild):
    """The same as a key."""


class WildError(Exception):
    """An error that does not say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no")


class WildMap(Mapping[str, int]):
    """A map that cannot be read."""

    def __getitem__(self, key: str) -> int:
        raise RuntimeError("no")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 3


def everywhere(text: str) -> dict[str, Any]:
    """A call with this text in every field that takes text."""
    names = ("operation", "feature", "provider", "model", "prompt", "response", "function")
    actor = ("user_id", "session_id", "persona_id", "user_role", "audit_reason", "environment")
    own = {name: {f"own {text}": text} for name in ("params", "tags", "settings")}
    prompt = {"prompt_name": text, "prompt_version": text}
    return {**dict.fromkeys((*names, *actor), text), **own, **prompt, "error": text}


def nested(depth: int) -> list[Any]:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def endless() -> list[Any]:
    """A list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


ODD_KEYS = [
    "../x",
    "",
    "😀",
    "a?b",
    "/root",
    ".",
    "..",
    "a//b",
    "a/../../b",
    " ",
    "a\nb",
    "ключ",
    "'",
]
THOUSANDS = {f"key {number}": number for number in range(10_000)}

CASES: dict[str, dict[str, Any]] = {
    "50 MB prompt": {"prompt": "¡50 MB! " * (6 << 20), "response": "short"},
    "50 MB of messages": {"prompt": [{"role": "user", "content": "x" * 1000}] * 50_000},
    "50 MB of bytes": {"prompt": bytes(50 << 20)},
    "NUL bytes": everywhere("a\0b"),
    "lone surrogates": everywhere("a\ud800b"),
    "control characters": everywhere("a\x01\x1f\u2028b"),
    "long text": everywhere("long " * 4000),
    "metrics that are not finite": {"metrics": {"nan": NAN, "inf": INF, "minus inf": -INF}},
    "metrics that are no numbers": {
        "metrics": {"word": "x", "none": None, "list": [1], "object": Wild(), "fine": "1.5"}
    },
    "cost that is not finite": {"cost_usd": NAN},
    "cost that is no number": {"cost_usd": "a lot"},
    "cost that is huge": {"cost_usd": 10**400},
    "latency that is not finite": {"latency_ms": NAN, "time_to_first_token_ms": INF},
    "latency that is negative": {"latency_ms": -5},
    "latency that is no number": {"latency_ms": "slow"},
    "long keys": {name: {"k" * 300: 1} for name in ("params", "metrics", "tags")},
    "odd keys": {name: dict.fromkeys(ODD_KEYS, 1) for name in ("params", "metrics", "tags")},
    "10,000 tags": {"tags": THOUSANDS},
    "10,000 params": {"params": THOUSANDS},
    "10,000 metrics": {"metrics": THOUSANDS},
    "naive start": {"started": datetime(2026, 1, 1)},
    "future start": {"started": datetime(2100, 1, 1, tzinfo=UTC)},
    "last start": {"started": datetime.max},
    "first start": {"started": datetime.min},
    "start that is huge": {"started": 1e30},
    "start that is negative": {"started": -1e15},
    "start that is not finite": {"started": INF},
    "start that is no time": {"started": "yesterday"},
    "huge integers": {
        "params": {"n": 2**100},
        "metrics": {"m": 10**400},
        "tags": {"t": -(2**80)},
        "prompt": [2**64, -(2**63) - 1],
        "settings": {"seed": 2**70},
    },
    "more tokens than a database counts": {"input_tokens": 2**63, "output_tokens": 1},
    "more tokens than a record holds": {"input_tokens": 2**70, "output_tokens": 1},
    "fewer tokens than none": {"input_tokens": -5, "output_tokens": -1},
    "tokens that are no number": {"input_tokens": "many"},
    "usage that is none": {"usage": {"cached_input_tokens": "all"}},
    "keys that are no text": {
        "prompt": {1: 2, (1, 2): 3, None: 4, 1.5: 5},
        "params": {1: 2},
        "tags": {None: 1},
        "metrics": {2: 3},
    },
    "keys that cannot be told": {"prompt": {WildKey(): 1}, "tags": {WildKey(): 1}},
    "objects whose repr raises": {
        "prompt": Wild(),
        "response": [Wild()],
        "params": {"a": Wild()},
        "tags": {"a": Wild()},
        "settings": {"a": Wild()},
    },
    "maps that cannot be read": {"prompt": WildMap(), "response": {"inside": WildMap()}},
    "an error that cannot be told": {"error": WildError()},
    "nested beyond measure": {"prompt": nested(5_000), "tags": {"deep": nested(100)}},
    "a list in itself": {"prompt": endless()},
    "values that are no JSON": {"prompt": {1, 2}, "response": object(), "tags": {"type": int}},
    "tags that are no map": {"tags": ["a", "b"]},
    "params that are no map": {"params": 5},
    "an operation that is no text": {"operation": 123, "feature": 4.5, "model": ["gpt"]},
    "actors that are no text": {"user_id": Wild(), "session_id": 7},
    "tool calls that are none": {"tool_calls": [{"name": "x"}, 5]},
    "a kind that is none": {"kind": None},
    "a parent that is none": {"parent_id": 5},
    "arguments that are unknown": {"colour": "red"},
    "an experiment that has no name": {"experiment": " \t"},
    "nothing": {},
}


def record(values: dict[str, Any]) -> tuple[str | None, str | None]:
    """Record a call; returns its id, and what was raised, which should be nothing."""
    try:
        return flowledger.record(**values), None
    except Exception as exc:  # noqa: BLE001 - that is what is tested
        return None, type(exc).__name__


if __name__ == "__main__":
    made = {}
    for name, values in CASES.items():
        made[name] = record(values)
        flowledger.record(operation=f"next to {name}")
    print(json.dumps(made))
