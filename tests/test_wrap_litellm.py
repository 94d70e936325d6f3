"""LiteLLM's functions are recorded, once each, and do what they did."""

import asyncio
import gc
import importlib
import os
import threading
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import flowledger
from flowledger.integrations import litellm as ours
from flowledger.records import Call, to_json
from flowledger.testing import capture_calls
from flowledger.testing.llm import StubLLM
from tests.openai_clients import make

# Else the import asks the network for a price list; and it takes seconds, so it is done once.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "true"

pytestmark = pytest.mark.filterwarnings("ignore")
ASK: Any = [{"role": "user", "content": "Hi"}]
LEFT = ["closed by the caller before its end"]
NAMES = [name for plain in ours.FUNCTIONS for name in (plain, f"a{plain}")]


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server
    # LiteLLM keeps clients open; not every test may stumble over their sockets.
    module = importlib.import_module("litellm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.in_memory_llm_clients_cache.flush_cache()
        gc.collect()


@pytest.fixture
def calls() -> Iterator[list[Call]]:
    with capture_calls() as recorded:
        yield recorded


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, wrapped for one test."""
    module = importlib.import_module("litellm")
    monkeypatch.setattr(module, "suppress_debug_info", True)
    for name in NAMES:
        monkeypatch.setattr(module, name, getattr(module, name))
    assert flowledger.wrap(flowledger.wrap(module)) is module
    return module


@pytest.fixture
def asked(stub: StubLLM) -> dict[str, Any]:
    return {
        "model": "openai/gpt-4o-mini",
        "messages": ASK,
        "api_base": stub.url,
        "api_key": "sk-very-secret",
    }


def said(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_a_completion_is_recorded_and_its_key_is_not(
    litellm: Any, asked: dict[str, Any], calls: list[Call]
) -> None:
    answer = litellm.completion(asked.pop("model"), temperature=0.2, **asked)
    [call] = calls
    assert type(answer) is litellm.ModelResponse
    assert [call.operation, call.provider] == ["chat.completions", "openai"]
    assert [call.model_asked, call.model] == ["openai/gpt-4o-mini", "gpt-4o-mini"]
    assert call.function == f"{__name__}.test_a_completion_is_recorded_and_its_key_is_not"
    assert [call.prompt, call.settings["temperature"]] == [ASK, 0.2]
    assert call.usage.total_tokens == answer.usage.total_tokens
    assert b"secret" not in to_json(call)


def test_a_stream_is_recorded_however_it_ends(
    litellm: Any, asked: dict[str, Any], calls: list[Call]
) -> None:
    plain = litellm.completion.__wrapped__(**asked, stream=True)
    stream = litellm.completion(**asked, stream=True)
    assert type(stream) is type(plain)
    chunks = list(stream)
    assert said(chunks) == said(list(plain))
    left = litellm.completion(**asked, stream=True)
    first = next(left)
    gone = threading.Event()
    weakref.finalize(left, gone.set)
    del left
    # LiteLLM's own threads may hold it a little longer.
    while not gone.wait(0.01):
        gc.collect()
    whole, cut = calls
    assert [whole.response, whole.notes, whole.provider] == [said(chunks), [], "openai"]
    assert whole.first_token_ns is not None
    assert [cut.response or "", cut.notes] == [said([first]), LEFT]


def test_a_stream_of_anthropic_is_recorded_with_its_tokens(
    litellm: Any, stub: StubLLM, calls: list[Call]
) -> None:
    model = "anthropic/claude-sonnet-4-5"
    asked = {"model": model, "messages": ASK, "api_base": stub.root, "api_key": "stub"}
    plain = litellm.completion(**asked)
    list(litellm.completion(**asked, stream=True))
    assert [call.provider for call in calls] == ["anthropic"] * 2
    assert [call.usage.total_tokens for call in calls] == [plain.usage.total_tokens] * 2


def test_asynchronous_functions_are_recorded(
    litellm: Any, asked: dict[str, Any], stub: StubLLM, calls: list[Call]
) -> None:
    async def ask() -> None:
        with flowledger.context(user_id="ana"):
            await litellm.acompletion(**asked)
            async for _ in await litellm.acompletion(**asked, stream=True):
                pass
            model = "openai/text-embedding-3-small"
            place = {"api_base": stub.url, "api_key": "stub"}
            await litellm.aembedding(model=model, input=["a"], **place)

    asyncio.run(ask())
    assert [call.operation for call in calls] == ["chat.completions"] * 2 + ["embeddings"]
    assert [call.actor.user_id for call in calls] == ["ana"] * 3
    assert calls[0].response == calls[1].response


@pytest.mark.parametrize(
    ("status", "error"), [(401, "AuthenticationError"), (500, "InternalServerError")]
)
def test_a_failure_is_recorded_and_is_litellms_own(
    litellm: Any, asked: dict[str, Any], calls: list[Call], status: int, error: str
) -> None:
    asked["model"] += f"?status={status}"
    with pytest.raises(getattr(litellm, error)):
        litellm.completion(**asked, max_retries=0)
    [call] = calls
    assert [call.outcome.error_type, call.params] == [error, {"error_status": status}]
    assert b"secret" not in to_json(call)


def test_a_retried_call_and_one_through_a_wrapped_client_count_once(
    litellm: Any, asked: dict[str, Any], stub: StubLLM, calls: list[Call]
) -> None:
    from openai import OpenAI

    with make(OpenAI, stub.url) as client:
        litellm.completion(**asked, client=flowledger.wrap(client))
    before = len(stub.requests)
    asked["model"] += "?status=500&fail-times=1&key=litellm"
    litellm.completion(**asked, max_retries=0, num_retries=1)
    assert len(stub.requests) - before == 2
    assert [call.outcome.success for call in calls] == [True, True]


def test_an_answer_from_the_cache_costs_nothing(litellm: Any) -> None:
    # LiteLLM's cache wants packages that are not installed here.
    answer = litellm.ModelResponse()
    answer._hidden_params = {"cache_hit": True, "custom_llm_provider": "groq"}
    fields = ours._endpoint("chat/completions").read(answer)
    assert [fields["cost_usd"], fields["provider"]] == [0.0, "groq"]
    assert fields["params"]["cache_hit"] is True
