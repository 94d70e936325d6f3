"""What can go wrong in a chat: a clear exception or a dictionary that says so, and a record."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flowledger
from flowledger import logs
from flowledger.chat import aclose
from flowledger.errors import (
    ChatError,
    ChatInputError,
    ConfigError,
    DocumentError,
    NoDocumentsError,
    ProviderError,
    ProviderKeyError,
    ProviderLimitError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from flowledger.records import Call
from flowledger.testing import capture_calls
from flowledger.testing.llm import StubLLM
from tests.chat_providers import anthropic_server


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server


@pytest.fixture
def calls(home: Path, stub: StubLLM, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Call]]:
    monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
    with capture_calls(chat_retries=0, chat_timeout=0.5) as captured:
        yield captured


def asynchronous(*args: Any, **kwargs: Any) -> Any:
    async def run() -> Any:
        try:
            answer = await flowledger.achat(*args, **kwargs)
            return [piece async for piece in answer] if kwargs.get("stream") else answer
        finally:
            await aclose()

    return asyncio.run(run())


def synchronous(*args: Any, **kwargs: Any) -> Any:
    answer = flowledger.chat(*args, **kwargs)
    return list(answer) if kwargs.get("stream") else answer


@pytest.fixture(params=[synchronous, asynchronous], ids=["chat", "achat"])
def ask(request: pytest.FixtureRequest, calls: list[Call]) -> Callable[..., Any]:
    function: Callable[..., Any] = request.param
    return function


FAULTS = [
    ("status=401", ProviderKeyError, 401),
    ("status=429", ProviderLimitError, 429),
    ("status=500", ProviderUnavailableError, 500),
    ("status=404", ProviderError, 404),
    ("mode=hang", ProviderTimeoutError, None),
    ("mode=cut", ProviderUnavailableError, None),
    ("mode=malformed", ProviderError, None),
]


@pytest.mark.parametrize(("fault", "error", "status"), FAULTS)
def test_a_providers_fault_is_raised_as_what_it_is_and_recorded_once(
    ask: Callable[..., Any], calls: list[Call], fault: str, error: type[Exception], status: Any
) -> None:
    with pytest.raises(error) as raised:
        ask("Hi", model=f"gpt-4o?{fault}", user_id="ana")
    assert isinstance(raised.value, ProviderError)
    assert (status, "gpt-4o") == (raised.value.status, str(raised.value).partition("?")[0][-6:])
    [call] = calls
    assert (False, "ana") == (call.outcome.success, call.actor.user_id)


@pytest.mark.parametrize(("fault", "error", "status"), FAULTS)
def test_with_reasoning_the_dictionary_says_what_went_wrong(
    calls: list[Call], fault: str, error: type[Exception], status: Any
) -> None:
    result = flowledger.chat("Hi", model=f"gpt-4o?{fault}", reasoning=True, audit_reason="why")
    trail = result["audit_trail"]
    assert (False, "why", "") == (trail["success"], trail["audit_reason"], result["content"])
    assert trail["error"].startswith(error.__name__)
    assert [False] == [call.outcome.success for call in calls]


@pytest.mark.parametrize("fault", ["mode=cut", "mode=malformed", "status=500", "mode=hang"])
def test_a_stream_that_breaks_is_raised_and_recorded_with_what_came(
    ask: Callable[..., Any], calls: list[Call], fault: str
) -> None:
    with pytest.raises(ProviderError):
        ask("Hi", model=f"gpt-4o?{fault}", stream=True, fallbacks=[])
    assert [False] == [call.outcome.success for call in calls]


def test_a_stream_that_has_begun_does_not_fall_back(calls: list[Call]) -> None:
    stream = flowledger.chat("Hi", model="gpt-4o?mode=cut", stream=True, fallbacks=["gpt-4o"])
    with pytest.raises(ProviderError) as raised:
        list(stream)
    assert raised.value.begun
    assert ["gpt-4o?mode=cut", None] == [call.model_asked for call in calls]


def test_where_every_model_fails_the_last_fault_is_raised(calls: list[Call]) -> None:
    with pytest.raises(ProviderUnavailableError):
        flowledger.chat("Hi", model="gpt-4o?status=401", fallbacks=["gpt-4o?status=500"])
    assert [False] * 3 == [call.outcome.success for call in calls]


def test_a_server_that_is_not_there_is_unavailable(
    ask: Callable[..., Any], calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOWHERE_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(ProviderUnavailableError, match="cannot be reached"):
        ask("Hi", model="nowhere/gpt-4o")
    assert 1 == len(calls)


@pytest.mark.parametrize("prefix", ["openai", "anthropic"])
def test_a_missing_key_is_named_before_anything_is_sent(
    ask: Callable[..., Any], calls: list[Call], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(ProviderKeyError, match=f"{prefix.upper()}_API_KEY is not set"):
        ask("Hi", model=f"{prefix}/some-model")
    [call] = calls
    assert ("ProviderKeyError", 0) == (call.outcome.error_type, call.inner_calls)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"chat_type": "telepathy"}, "use one of direct, dspy, rag, hybrid"),
        ({"model": "nobody/gpt"}, "set NOBODY_BASE_URL"),
        ({"model": 7}, "names of models"),
        ({"message": " \n"}, "not empty"),
        ({"message": None}, "must be text"),
        ({"message": "x" * (1 << 20)}, "add it as a document"),
        ({"temperature": 3}, "a number from 0 to 2"),
        ({"temperature": "hot"}, "a number from 0 to 2"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"top_k": 1000}, "top_k=1000"),
        ({"history": True}, "give its session_id"),
        ({"history": ["hello"]}, "messages with role and content"),
        ({"system": 1}, "system must be text"),
    ],
)
@pytest.mark.parametrize("reasoning", [False, True])
def test_what_cannot_be_asked_is_refused_with_a_hint_and_recorded(
    ask: Callable[..., Any], calls: list[Call], wrong: Any, told: str, reasoning: bool
) -> None:
    with pytest.raises(ChatInputError, match=told):
        ask(**{"message": "Hi", "reasoning": reasoning, **wrong})
    [call] = calls
    assert ("chat", False, "ChatInputError") == (
        call.operation,
        call.outcome.success,
        call.outcome.error_type,
    )


def test_rag_without_documents_says_how_to_add_some(
    ask: Callable[..., Any], calls: list[Call]
) -> None:
    with pytest.raises(NoDocumentsError, match="flowledger docs add"):
        ask("What?", "rag")
    assert "NoDocumentsError" in ask("What?", "rag", reasoning=True)["audit_trail"]["error"]
    assert [False, False] == [call.outcome.success for call in calls]


def test_a_store_that_cannot_be_used_stops_what_needs_it_and_nothing_else(
    home: Path, stub: StubLLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
    (home.parent / "taken").write_text("no folder")
    monkeypatch.setattr(logs, "_last", {})
    with capture_calls(chat_store=f"sqlite:///{home.parent}/taken/chat.db") as calls:
        assert flowledger.chat("Hi", session_id="s")
        for needs in ({"chat_type": "rag"}, {"session_id": "s", "history": True}):
            with pytest.raises(DocumentError, match="chat store"):
                flowledger.chat("Hi", **needs)
    assert [True, False, False] == [call.outcome.success for call in calls]
    assert "the turns of a session are not kept" in caplog.text


def test_a_setting_that_is_wrong_is_told_by_chat_too(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWLEDGER_CHAT_RETRIES", "-1")
    flowledger.configure()
    with pytest.raises(ConfigError, match="chat_retries"):
        flowledger.chat("Hi", reasoning=True)
    monkeypatch.undo()
    flowledger.configure()


@pytest.mark.parametrize(
    ("model", "error"),
    [("claude-broken", ProviderUnavailableError), ("claude-cut", ProviderError)],
)
def test_anthropics_faults_are_raised_and_recorded(
    ask: Callable[..., Any],
    calls: list[Call],
    model: str,
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with anthropic_server() as (url, _):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        with pytest.raises(error):
            ask("Hi", model=model, stream=True)
    assert not calls[-1].outcome.success


def test_an_answer_without_a_message_is_an_error_and_recorded_as_one(
    ask: Callable[..., Any], calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    with anthropic_server() as (url, _):
        monkeypatch.setenv("ODD_BASE_URL", url)
        with pytest.raises(ProviderError, match="holds no message"):
            ask("Hi", model="odd/claude")
    assert [("chat.completions", True), ("chat", False)] == [
        (call.operation, call.outcome.success) for call in calls
    ]


def test_a_key_that_a_server_quotes_is_in_no_record_and_no_dictionary(
    calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-very-secret")
    with anthropic_server() as (url, _):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        result = flowledger.chat("Hi", model="claude-broken", fallbacks=["foo"], reasoning=True)
        single = flowledger.chat("Hi", model="claude-broken", reasoning=True)
    assert "very-secret" not in repr((calls, result, single))
    assert "busy, ***" in single["audit_trail"]["error"]


def test_a_failed_chat_is_a_chat_error_whatever_failed() -> None:
    kinds = [ChatInputError, NoDocumentsError, ProviderError, ProviderTimeoutError]
    assert all(issubclass(kind, ChatError) for kind in kinds)
