"""`track_text` and its like: what they read from arguments and from answers of any shape."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai.types import ImagesResponse
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

import flowledger
from flowledger.records import Call, Kind
from flowledger.testing import capture_calls

COMPLETION = ChatCompletion.model_validate(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": "A pump."},
            }
        ],
        "usage": {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34},
    }
)
TOLD: dict[str, Any] = {
    "text": "A pump.",
    "tokens_used": 1500,
    "cost": 0.02,
    "confidence": 0.95,
    "model": "gpt-4o",
}


@dataclass
class Told:
    text: str
    tokens_used: int
    cost: float
    confidence: float
    model: str


class ToldModel(BaseModel):
    text: str
    tokens_used: int
    cost: float
    confidence: float
    model: str


@pytest.fixture
def calls(home: Path) -> Iterator[list[Call]]:
    with capture_calls() as captured:
        yield captured


def returning(decorator: Any, answer: Any) -> Callable[..., Any]:
    def ask(data: str, model: str = "gpt-4o", temperature: float = 0.2) -> Any:
        return answer

    recorded: Callable[..., Any] = decorator("pid_verification", "analysis")(ask)
    return recorded


@pytest.mark.parametrize(
    ("decorator", "kind"),
    [
        (flowledger.track_text, Kind.CHAT),
        (flowledger.track_vision, Kind.VISION),
        (flowledger.track_image, Kind.IMAGE),
        (flowledger.track_rag, Kind.RETRIEVAL),
        (flowledger.track_custom, Kind.CUSTOM),
    ],
)
def test_each_decorator_records_calls_of_its_kind(
    calls: list[Call], decorator: Any, kind: Kind
) -> None:
    assert "done" == returning(decorator, "done")("x")
    [call] = calls
    assert ("pid_verification", "analysis", kind) == (call.feature, call.operation, call.kind)


@pytest.mark.parametrize(
    "answer", [TOLD, Told(**TOLD), ToldModel(**TOLD)], ids=["dict", "dataclass", "pydantic"]
)
def test_tokens_cost_confidence_and_model_are_read_from_an_answer_of_any_shape(
    calls: list[Call], answer: Any
) -> None:
    assert answer is returning(flowledger.track_text, answer)("x")
    [call] = calls
    assert {"tokens_used": 1500, "confidence_score": 0.95} == call.metrics
    assert (0.02, "gpt-4o") == (call.cost_usd, call.model)


def test_an_sdk_object_tells_its_usage_and_its_text(calls: list[Call]) -> None:
    returning(flowledger.track_vision, COMPLETION)("x")
    [call] = calls
    assert (30, 4) == (call.usage.input_tokens, call.usage.output_tokens)
    assert ("A pump.", "gpt-4o-2024-08-06") == (call.response, call.model)
    assert {"tokens_used": 34} == call.metrics


def test_a_usage_inside_a_dict_may_be_an_sdk_object(calls: list[Call]) -> None:
    returning(flowledger.track_text, {"answer": "x", "usage": COMPLETION.usage})("x")
    assert 34 == calls[0].usage.total_tokens


def test_model_and_settings_are_read_from_the_arguments_defaults_included(
    calls: list[Call],
) -> None:
    ask = returning(flowledger.track_text, "done")
    ask("x")
    ask("x", "gpt-4o-mini", temperature=0.9)
    assert ["gpt-4o", "gpt-4o-mini"] == [call.model_asked for call in calls]
    assert [{"temperature": 0.2}, {"temperature": 0.9}] == [call.settings for call in calls]


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("https://images.example/1.png", 1),
        (["a.png", "b.png"], 2),
        ({"images": ["a", "b", "c"]}, 3),
        ({"image_url": "a.png"}, 1),
        (ImagesResponse.model_validate({"created": 1, "data": [{"url": "a"}, {"url": "b"}]}), 2),
        ({"error": "none"}, None),
        (None, None),
    ],
)
def test_images_are_counted(calls: list[Call], answer: Any, count: int | None) -> None:
    returning(flowledger.track_image, answer)("x")
    assert count == calls[0].usage.images


@dataclass
class Passage:
    text: str
    score: float


@pytest.mark.parametrize(
    "answer",
    [
        [{"text": "a", "similarity": 0.9}, {"text": "b", "similarity": 0.5}],
        [Passage("a", 0.9), Passage("b", 0.5)],
        [("a", 0.9), ("b", 0.5)],
        {"documents": ["a", "b"], "scores": [0.9, 0.5]},
        {"matches": [{"metadata": {"score": 0.9}}, {"metadata": {"score": 0.5}}]},
    ],
    ids=["dicts", "dataclasses", "pairs", "lists", "metadata"],
)
def test_retrieved_documents_and_their_similarity_are_counted(
    calls: list[Call], answer: Any
) -> None:
    returning(flowledger.track_rag, answer)("x")
    assert {
        "documents_count": 2,
        "similarity_max": 0.9,
        "similarity_avg": 0.7,
    } == calls[0].metrics


def test_no_document_is_a_count_of_zero_without_similarity(calls: list[Call]) -> None:
    returning(flowledger.track_rag, [])("x")
    assert {"documents_count": 0} == calls[0].metrics


def test_every_number_of_a_custom_answer_is_a_metric(calls: list[Call]) -> None:
    answer = {"valid": True, "score": 0.95, "issues": 3, "name": "P-101", "none": None}
    returning(flowledger.track_custom, answer)("x")
    assert {"valid": 1.0, "score": 0.95, "issues": 3.0} == calls[0].metrics


def test_an_inner_call_with_usage_of_its_own_leaves_tokens_and_cost_to_itself(
    calls: list[Call],
) -> None:
    @flowledger.track_text("specs")
    def specify() -> dict[str, Any]:
        flowledger.record(model="gpt-4o", input_tokens=30, output_tokens=4)
        return TOLD

    specify()
    inner, outer = calls
    assert (34, None, None) == (inner.usage.total_tokens, outer.usage.total_tokens, outer.cost_usd)
    assert 0.95 == outer.metrics["confidence_score"]


def test_a_decorator_takes_a_function_alone(calls: list[Call]) -> None:
    @flowledger.track_custom
    def score() -> dict[str, float]:
        return {"score": 1.0}

    score()
    assert ("score", {"score": 1.0}) == (calls[0].operation, calls[0].metrics)


class Hostile:
    @property
    def usage(self) -> Any:
        raise RuntimeError("not for you")


@pytest.mark.parametrize(
    "answer", [Hostile(), {"cost": "much", "confidence": float("nan")}, {"usage": 7}, object()]
)
def test_an_answer_that_cannot_be_read_reaches_the_caller_and_the_call_is_kept(
    calls: list[Call], answer: Any
) -> None:
    for decorator in (flowledger.track_text, flowledger.track_rag, flowledger.track_custom):
        assert answer is returning(decorator, answer)("x")
    assert [(None, "analysis")] * 3 == [(call.cost_usd, call.operation) for call in calls]


def test_a_decorator_returns_the_function_where_recording_is_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLED", "false")

    def ask() -> None:
        """Do nothing."""

    assert ask is flowledger.track_text("f", "o")(ask)
    assert ask is flowledger.track_rag(ask)


async def _answer() -> dict[str, Any]:
    return TOLD


def test_coroutines_and_generators_are_measured_too(calls: list[Call]) -> None:
    import asyncio

    asyncio.run(flowledger.track_text("f")(_answer)())

    @flowledger.track_rag("f")
    def found() -> Iterator[dict[str, float]]:
        yield {"score": 0.5}
        yield {"score": 0.7}

    list(found())
    assert 0.95 == calls[0].metrics["confidence_score"]
    assert 2 == calls[1].metrics["documents_count"]
