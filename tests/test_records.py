"""Records: the codec, and what a newer version may add."""

import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given

from flowledger.errors import RecordError
from flowledger.records import Call, decode, encode, new_id, to_json
from tests.calls import a_call, any_call


def same(one: Any, other: Any) -> bool:
    """Equality under which NaN equals itself."""
    one, other = (msgspec.json.decode(msgspec.json.encode(value)) for value in (one, other))
    return bool(one == other)


@given(any_call())
def test_a_decoded_call_is_the_call_that_was_encoded(call: Call) -> None:
    assert same(call, decode(encode(call)))


@given(any_call())
def test_unknown_fields_of_a_newer_version_survive_an_older_one(call: Call) -> None:
    newer = msgspec.msgpack.decode(encode(call))
    newer["rating"] = {"stars": 5}
    newer.setdefault("actor", {})["team"] = "blue"
    payload = msgspec.msgpack.encode(newer)
    through_older = msgspec.msgpack.decode(encode(decode(payload)))
    assert same(newer, through_older)


def test_what_a_newer_version_added_can_be_read() -> None:
    newer = msgspec.msgpack.decode(encode(a_call()))
    newer["rating"] = 5
    newer["usage"]["thinking_tokens"] = 7
    expected = {"rating": 5, "usage.thinking_tokens": 7}
    assert expected == decode(msgspec.msgpack.encode(newer)).unknown


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x93\x01\x02\x03", b"\x81\xa4type\xa4nope"])
def test_bytes_that_are_no_record_are_refused_with_a_reason(payload: bytes) -> None:
    with pytest.raises(RecordError, match="not a record"):
        decode(payload)


@pytest.mark.parametrize("value", ["\ud800", 2**70, object()])
def test_a_value_without_a_form_is_refused_with_a_reason(value: object) -> None:
    with pytest.raises(RecordError, match="cannot be encoded"):
        encode(a_call(prompt=value))


def test_ids_are_uuid7_and_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert {7} == {uuid.UUID(one).version for one in ids}
    times = [one[:12] for one in ids]
    assert sorted(times) == times
    assert len(set(ids)) == 1000


def test_a_record_reads_as_json() -> None:
    assert msgspec.json.decode(to_json(a_call()))["model_asked"] == "gpt-4o"
