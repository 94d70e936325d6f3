"""Content: bounded and plain, whatever the application hands over."""

import base64
import dataclasses
import hashlib
import os
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowledger.capture.content import encode_bounded, plain
from flowledger.records import Call, decode
from tests.calls import a_call, any_call

LIMIT = 4096


def kept(limit: int = LIMIT, **fields: Any) -> Call:
    record = decode(encode_bounded(a_call(**fields), limit))
    assert isinstance(record, Call)
    return record


def json_length(value: Any) -> int:
    return len(msgspec.json.encode(value))


@given(any_call())
def test_a_small_plain_call_passes_as_it_is(call: Call) -> None:
    expected, actual = (
        msgspec.json.decode(msgspec.json.encode(one))
        for one in (call, decode(encode_bounded(call, 1 << 20)))
    )
    assert expected == actual


@given(st.text(min_size=1, max_size=20))
def test_a_long_text_is_cut_and_names_its_length_and_hash(piece: str) -> None:
    text = piece * LIMIT
    data = text.encode()
    call = kept(prompt=text)
    assert json_length(call.prompt) <= LIMIT
    assert f"{len(data)} bytes in all, sha256 {hashlib.sha256(data).hexdigest()}" in call.prompt
    assert ["prompt is cut: it is longer than 4096 bytes"] == call.notes


def test_messages_that_are_too_long_keep_their_shape() -> None:
    messages = [{"role": "user", "content": "a" * 5000}, {"role": "user", "content": "short"}]
    call = kept(prompt=messages)
    assert ["user", "user"] == [message["role"] for message in call.prompt]
    assert "5000 bytes in all" in call.prompt[0]["content"]
    assert "short" == call.prompt[1]["content"]


@pytest.mark.parametrize("field", ["prompt", "response", "settings", "params", "tags"])
def test_ten_thousand_values_are_cut_with_a_note(field: str) -> None:
    many: dict[str, Any] = {field: {f"key{i}": "value" for i in range(10_000)}}
    call = kept(**many)
    assert json_length(getattr(call, field)) <= LIMIT
    assert [f"{field} is cut: it is longer than 4096 bytes"] == call.notes
    assert "10000 values in all" == getattr(call, field)["[cut]"]


def test_an_image_becomes_its_type_size_and_hash() -> None:
    image = b"\x89PNG" + os.urandom(500)
    uri = f"data:image/png;base64,{base64.b64encode(image).decode()}"
    part = {"type": "image_url", "image_url": {"url": uri}}
    call = kept(prompt=[{"role": "user", "content": [part]}])
    digest = hashlib.sha256(image).hexdigest()
    [stored] = call.prompt[0]["content"]
    assert f"[image/png, 504 bytes, sha256 {digest}]" == stored["image_url"]["url"]


@pytest.mark.parametrize("key", ["b64_json", "data"])
def test_media_without_a_data_uri_is_found_by_its_key(key: str) -> None:
    sound = b"RIFF" + os.urandom(3000)
    text = base64.b64encode(sound).decode()
    call = kept(response={"input_audio": {key: text}})
    assert "[audio/wav, 3004 bytes, sha256 " in call.response["input_audio"][key]


class Awkward:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@dataclasses.dataclass
class Holder:
    held: object


def test_objects_become_plain_values() -> None:
    values = [Holder(Awkward()), 2**90, b"abc", {(1, 2): {3}}, Ellipsis, "\ud800"]
    stored = kept(prompt=values).prompt
    assert {"held": "<Awkward whose repr raises RuntimeError>"} == stored[0]
    assert str(2**90) == stored[1]
    assert stored[2].startswith("[application/octet-stream, 3 bytes")
    assert {"(1, 2)": [3]} == stored[3]
    assert ["Ellipsis", "?"] == stored[4:]


def test_a_value_that_holds_itself_ends() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "too deep" in str(plain(endless))


@given(
    st.recursive(
        st.none() | st.binary(max_size=50) | st.text(max_size=300) | st.complex_numbers(),
        lambda inner: (
            st.lists(inner, max_size=5)
            | st.dictionaries(st.integers() | st.text(max_size=5), inner, max_size=5)
            | st.builds(Holder, inner)
        ),
        max_leaves=30,
    )
)
def test_whatever_comes_is_encoded_within_the_limit(value: Any) -> None:
    call = kept(limit=1024, prompt=value, params={"value": value})
    assert json_length(call.prompt) <= 1024
    assert json_length(call.params) <= 1024
