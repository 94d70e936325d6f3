"""Calls to store in tests, and how hypothesis makes them."""

import time
from typing import Any

import msgspec
from hypothesis import strategies as st

from flowledger.config import WRITTEN_NAMES
from flowledger.records import Actor, Call, Kind, Outcome, Prompt, ToolCall, Usage, new_id

__all__ = ["NOW_NS", "a_call", "any_call"]

NOW_NS = time.time_ns()

text = st.text(max_size=40)
maybe_text = st.none() | text
count = st.none() | st.integers(0, 2**40)
plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
a_map = st.dictionaries(text, plain_values, max_size=2)


def a_call(**fields: Any) -> Call:
    """A chat call as an application makes it, with these fields its own."""
    usual = Call(
        id=new_id(),
        producer="0" * 32,
        seq=1,
        start_ns=NOW_NS,
        duration_ns=120_000_000,
        operation="answer",
        feature="support",
        function="app.answer",
        experiment="support",
        kind=Kind.CHAT,
        provider="openai",
        model_asked="gpt-4o",
        model="gpt-4o-2024-08-06",
        settings={"temperature": 0.7, "max_tokens": 100},
        prompt=[{"role": "user", "content": "Where is my order?"}],
        response="On its way.",
        actor=Actor(user_id="ana", session_id="s-1", persona_id="helper", audit_reason="support"),
        usage=Usage(input_tokens=100, output_tokens=20),
    )
    return msgspec.structs.replace(usual, **fields)


def any_call() -> st.SearchStrategy[Call]:
    """Any call that can be encoded."""
    return st.builds(
        Call,
        id=st.builds(new_id),
        producer=st.just("0" * 32),
        seq=st.integers(0, 2**63 - 1),
        start_ns=st.integers(0, 2**63 - 1),
        duration_ns=st.integers(0, 2**62),
        first_token_ns=st.none() | st.integers(0, 2**62),
        operation=text,
        feature=maybe_text,
        function=maybe_text,
        experiment=maybe_text,
        kind=st.sampled_from([str(kind) for kind in Kind]),
        provider=maybe_text,
        model_asked=maybe_text,
        model=maybe_text,
        settings=a_map,
        prompt=plain_values,
        response=plain_values,
        tool_calls=st.lists(st.builds(ToolCall, name=text, arguments=maybe_text), max_size=2),
        actor=st.builds(Actor, user_id=maybe_text, session_id=maybe_text, audit_reason=maybe_text),
        usage=st.builds(Usage, input_tokens=count, output_tokens=count, images=count),
        outcome=st.builds(Outcome, success=st.booleans(), error_type=maybe_text),
        prompt_version=st.builds(Prompt, name=maybe_text, version=maybe_text),
        parent_id=maybe_text,
        cost_usd=st.none() | st.floats(0, 1e6),
        params=a_map,
        metrics=st.dictionaries(text, st.floats(), max_size=3),
        tags=a_map,
        notes=st.lists(text, max_size=2),
        also_as=st.dictionaries(st.sampled_from(WRITTEN_NAMES), text, max_size=2),
        unknown=st.dictionaries(st.from_regex(r"new_[a-z]{1,8}", fullmatch=True), plain_values),
    )
