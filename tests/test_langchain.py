"""What LangChain's models are asked is recorded by a callback handler."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from openai import OpenAI

import flowledger
from flowledger.integrations.langchain import CallbackHandler
from flowledger.records import Call, ToolCall, Usage
from flowledger.testing import capture_calls
from flowledger.testing.llm import StubLLM
from tests.openai_clients import make

COUNTED: Any = {
    "input_tokens": 7,
    "output_tokens": 3,
    "total_tokens": 10,
    "input_token_details": {"cache_read": 2},
    "output_token_details": {"reasoning": 1},
}
ASKING = {"name": "get_weather", "args": {"city": "Bern"}, "id": "c1"}


class Model(BaseChatModel):
    """A chat model whose answer is known, or that asks through a client of `openai`."""

    client: Any = None
    error: Any = None
    calls_tool: bool = False

    @property
    def _llm_type(self) -> str:
        return "known"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini", "ls_model_type": "chat"}

    def _generate(
        self,
        messages: Any,
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.error is not None:
            raise self.error
        if self.client is not None:
            return ChatResult(generations=[ChatGeneration(message=self._asked())])
        about = {"model_name": "gpt-4o-mini-2024", "finish_reason": "stop"}
        message = AIMessage("Yes.", usage_metadata=COUNTED, response_metadata=about)
        if self.calls_tool:
            message.tool_calls = [{**ASKING, "type": "tool_call"}]  # type: ignore[typeddict-item]
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _asked(self) -> AIMessage:
        ask: Any = [{"role": "user", "content": "Hi"}]
        answer = self.client.chat.completions.create(model="gpt-4o-mini", messages=ask)
        return AIMessage(answer.choices[0].message.content, response_metadata={"id": answer.id})

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        for piece in ("Y", "es", "."):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=COUNTED))


@pytest.fixture
def calls() -> Iterator[list[Call]]:
    with capture_calls() as recorded:
        yield recorded


@pytest.fixture
def config() -> Any:
    return {"callbacks": [CallbackHandler()]}


def test_a_chain_is_recorded_with_its_question_answer_and_tokens(
    calls: list[Call], config: Any
) -> None:
    chain = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{q}")]) | Model()
    with flowledger.context(user_id="ana", feature="search"):
        chain.invoke({"q": "Well?"}, config=config)
    [call] = calls
    assert [call.operation, call.kind, call.provider] == ["langchain", "chat", "openai"]
    assert [call.model_asked, call.model] == ["gpt-4o-mini", "gpt-4o-mini-2024"]
    assert [call.actor.user_id, call.feature] == ["ana", "search"]
    assert [message["content"] for message in call.prompt] == ["Be brief.", "Well?"]
    assert [call.response, call.params] == ["Yes.", {"finish_reason": "stop"}]
    assert call.usage == Usage(
        input_tokens=7, output_tokens=3, cached_input_tokens=2, reasoning_tokens=1
    )


def test_tools_and_their_results_are_recorded(calls: list[Call], config: Any) -> None:
    asked = Model(calls_tool=True).invoke("Weather?", config=config)
    Model().invoke([HumanMessage("Weather?"), asked, ToolMessage("18", tool_call_id="c1")], config)
    tool = ToolCall(name="get_weather", id="c1", arguments='{"city": "Bern"}')
    assert calls[0].tool_calls == [tool]
    assert calls[1].tool_calls == [
        ToolCall(name="get_weather", id="c1", arguments='{"city": "Bern"}', result="18")
    ]


def test_a_stream_is_recorded_with_its_first_token(calls: list[Call], config: Any) -> None:
    assert "".join(str(chunk.content) for chunk in Model().stream("Hi", config=config)) == "Yes."
    [call] = calls
    assert [call.response, call.usage.total_tokens] == ["Yes.", 10]
    assert call.first_token_ns is not None


def test_a_stream_that_is_left_is_no_failure(calls: list[Call], config: Any) -> None:
    stream: Any = Model().stream("Hi", config=config)
    next(stream)
    stream.close()
    [call] = calls
    assert [call.outcome.success, call.response] == [True, "Y"]
    assert call.notes == ["closed by the caller before its end"]


def test_asynchronous_chains_are_recorded(calls: list[Call], config: Any) -> None:
    async def ask() -> None:
        with flowledger.context(user_id="ana"):
            await Model().ainvoke("Hi", config=config)
            answer: AsyncIterator[Any] = Model().astream("Hi", config=config)
            assert [chunk async for chunk in answer]

    asyncio.run(ask())
    assert [call.actor.user_id for call in calls] == ["ana"] * 2
    assert [call.response for call in calls] == ["Yes."] * 2


def test_an_error_is_recorded_and_raised(calls: list[Call], config: Any) -> None:
    with pytest.raises(ValueError, match="no"):
        Model(error=ValueError("no")).invoke("Hi", config=config)
    [call] = calls
    assert [call.outcome.error_type, call.outcome.message] == ["ValueError", "no"]
    assert call.prompt == [{"role": "user", "content": "Hi"}]


def test_a_model_that_continues_text_is_recorded(calls: list[Call], config: Any) -> None:
    FakeListLLM(responses=["there"]).invoke("Hi", config=config)
    [call] = calls
    assert [call.kind, call.prompt, call.response] == ["completion", "Hi", "there"]


def test_what_a_wrapped_client_recorded_is_not_recorded_again(
    calls: list[Call], config: Any
) -> None:
    with StubLLM() as stub, make(OpenAI, stub.url) as client:
        model = Model(client=flowledger.wrap(client))
        model.invoke("Hi", config=config)
        client.api_key = "\n"
        with pytest.raises(Exception, match=r"\w"):
            model.invoke("Hi", config=config)
    assert [(call.operation, call.outcome.success) for call in calls] == [
        ("chat.completions", True),
        ("chat.completions", False),
    ]


def test_switched_off_nothing_is_recorded(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWLEDGER_ENABLED", "false")
    assert Model().invoke("Hi", config=config).content == "Yes."
