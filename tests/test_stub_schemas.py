"""The stub LLM's values fit the schema they were made for."""

import re
from datetime import date, datetime
from random import Random
from typing import Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from flowledger.testing.stub.answers import count, cut, pieces, prose
from flowledger.testing.stub.schemas import fitting, matching

SEEDS = range(25)


class Leaf(BaseModel):
    kind: Literal["leaf"]
    even: int = Field(ge=10, le=20, multiple_of=2)
    share: float = Field(gt=0, lt=0.01)
    below: float = Field(lt=-5)
    above: int = Field(gt=1000)


class Tree(BaseModel):
    kind: Literal["tree"]
    made_on: date
    made_at: datetime
    id: UUID
    short: str = Field(max_length=3)
    long: str = Field(min_length=200)
    pair: tuple[int, str]
    some: set[Literal["a", "b", "c"]] = Field(min_length=2)
    scores: dict[str, float]
    children: list["Tree | Leaf"]
    note: str | None
    anything: Any


@pytest.mark.parametrize("seed", SEEDS)
def test_a_value_fits_the_model_its_schema_came_from(seed: int) -> None:
    schema = Tree.model_json_schema()
    assert Tree.model_validate(fitting(schema, seed)).scores
    assert fitting(schema, seed) == fitting(schema, seed)


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        ({"const": 7}, 7),
        ({"enum": ["only"]}, "only"),
        ({"type": "null"}, None),
        ({"type": ["null", "object"]}, {}),
        ({"type": "array", "maxItems": 0}, []),
        ({"allOf": [{"minimum": 3}, {"maximum": 3}], "type": "integer"}, 3),
        ({"type": "object", "required": ["a"], "properties": {"a": {"const": 1}}}, {"a": 1}),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": "found"}}}, "found"),
        ({"items": {"const": 1}, "minItems": 3}, [1, 1, 1]),
        ({"additionalProperties": {"const": 1}, "minProperties": 2}, {"key_1": 1, "key_2": 1}),
    ],
)
def test_a_schema_with_one_value_gets_it(schema: Any, fits: Any) -> None:
    assert fitting(schema, 1) == fits


@pytest.mark.parametrize("schema", [None, True, [], {"type": "unheard"}, {"$ref": "#"}])
def test_a_schema_that_says_nothing_gets_some_words(schema: Any) -> None:
    assert isinstance(fitting(schema, 1), str)


def test_a_schema_that_demands_itself_without_end_is_given_up() -> None:
    endless = {"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]}
    assert "me" in fitting(endless, 1)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(0, 100))
def test_a_number_is_within_its_bounds(low: float, span: float, seed: int) -> None:
    value = fitting({"type": "number", "minimum": low, "maximum": low + span}, seed)
    assert low <= value <= low + span


@settings(deadline=None)
@given(st.integers(-1000, 1000), st.integers(0, 50), st.integers(1, 9), st.integers(0, 100))
def test_a_whole_number_is_a_multiple_within_its_bounds(
    low: int, span: int, step: int, seed: int
) -> None:
    bounds = {"minimum": low, "maximum": low + span + step, "multipleOf": step}
    value = fitting({"type": "integer"} | bounds, seed)
    assert value in range(low, low + span + step + 1)
    assert value % step == 0


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 100))
def test_a_text_is_as_long_as_it_may_be(least: int, more: int, seed: int) -> None:
    value = fitting({"type": "string", "minLength": least, "maxLength": least + more}, seed)
    assert least <= len(value) <= least + more


@pytest.mark.parametrize(
    "pattern",
    [
        "^[A-Z]{3}$",
        r"^\d{4}-\d\d$",
        r"^(?:foo|bar)+\s[^a-z]$",
        r"^\S+@\S+\.\S+$",
        r"^(?=.*\d)[a-z0-9]{4,8}$",
        r"^\w{2,}.\D\W?$",
        "^a*?b++(?>c)[^\\d\\s]x?$",
        "^[0-9]{0,3}$",
    ],
)
def test_a_text_matches_its_pattern(pattern: str) -> None:
    texts = [matching(pattern, Random(seed)) for seed in SEEDS]
    assert [text for text in texts if not re.search(pattern, text)] == []


def test_a_pattern_nobody_can_read_gets_some_words() -> None:
    assert fitting({"type": "string", "pattern": "["}, 1)


def test_a_schema_of_plain_types_is_answered_with_them() -> None:
    adapter = TypeAdapter(dict[str, int | bool | list[float]])
    assert adapter.validate_python(fitting(adapter.json_schema(), 3))


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(0, 10**9))
def test_prose_has_exactly_as_many_tokens_as_asked(tokens: int, seed: int) -> None:
    assert count(prose(seed, tokens)) == tokens


@settings(deadline=None)
@given(st.text(max_size=60))
def test_pieces_are_the_text_and_a_cut_is_its_beginning(text: str) -> None:
    assert "".join(pieces(text)) == text
    assert cut(text, count(text)) == text
