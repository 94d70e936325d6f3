"""Chat: what comes back, what is sent, and what is recorded, over real clients and HTTP."""

import asyncio
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import flowledger
from flowledger.chat import ChatStream, aclose, forget
from flowledger.chat.library import Document, Passage, opened
from flowledger.chat.methods import chosen
from flowledger.chat.steps import Source
from flowledger.cli import main
from flowledger.questions import Ledger
from flowledger.records import Call, Kind
from flowledger.testing import capture_calls
from flowledger.testing.llm import StubLLM
from tests.chat_providers import ANTHROPIC_TEXT, anthropic_server
from tests.test_evidence_proof import store

AUDIT = {
    "timestamp",
    "user_id",
    "session_id",
    "audit_reason",
    "model_id",
    "temperature",
    "max_tokens",
    "processing_time_ms",
    "success",
    "error",
}
RESULT = {
    "content",
    "reasoning",
    "method",
    "sources",
    "audit_trail",
    "token_usage",
    "cost_usd",
}
RETURNS = Passage("Returns", "Goods may be returned within thirty days of the order.")
SHIPPING = Passage("Shipping", "Parcels leave the warehouse at noon.")


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    with StubLLM() as server:
        yield server


@pytest.fixture
def calls(home: Path, stub: StubLLM, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Call]]:
    """A place where nothing but the stub's address is set, and what is recorded there."""
    monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
    with capture_calls() as captured:
        yield captured
        opened().close()


def asynchronous(*args: Any, **kwargs: Any) -> Any:
    """`achat` as if it were `chat`, its stream read to the end."""

    async def run() -> Any:
        try:
            answer = await flowledger.achat(*args, **kwargs)
            if kwargs.get("stream"):
                return [piece async for piece in answer], answer.result
            return answer
        finally:
            await aclose()

    return asyncio.run(run())


def synchronous(*args: Any, **kwargs: Any) -> Any:
    """`chat`, its stream read to the end."""
    answer = flowledger.chat(*args, **kwargs)
    return (list(answer), answer.result) if kwargs.get("stream") else answer


@pytest.fixture(params=[synchronous, asynchronous], ids=["chat", "achat"])
def ask(request: pytest.FixtureRequest, calls: list[Call]) -> Callable[..., Any]:
    """Both ways to chat: the same holds for each."""
    function: Callable[..., Any] = request.param
    return function


def add_documents() -> None:
    opened().add([Document(source="handbook.md", digest="1", passages=[RETURNS, SHIPPING])])


def test_text_comes_back_and_one_call_is_recorded_with_who_asked_and_why(
    ask: Callable[..., Any], calls: list[Call]
) -> None:
    text = ask("Hi", user_id="ana", audit_reason="learning", persona_id="tutor")
    [call] = calls
    assert (text, "gpt-4o-mini") == (call.response, call.model)
    assert ("ana", "learning", "tutor") == (
        call.actor.user_id,
        call.actor.audit_reason,
        call.actor.persona_id,
    )
    assert {"temperature": 0.7, "max_tokens": 4000} == call.settings
    assert ("chat", None, 0) == (call.feature, call.parent_id, call.inner_calls)


def test_reasoning_brings_the_dictionary_with_the_audit_trail(
    ask: Callable[..., Any], calls: list[Call]
) -> None:
    result = ask("Hi", reasoning=True, user_id="ana", session_id="s", temperature=0.1)
    [call] = calls
    assert RESULT == result.keys()
    trail = result["audit_trail"]
    assert AUDIT == trail.keys()
    assert ("ana", "s", 0.1, 4000, True, None) == (
        trail["user_id"],
        trail["session_id"],
        trail["temperature"],
        trail["max_tokens"],
        trail["success"],
        trail["error"],
    )
    assert trail["processing_time_ms"] > 0
    usage = call.usage
    assert {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "total": usage.total_tokens,
    } == result["token_usage"]
    assert ("direct", True) == (result["method"], result["cost_usd"] > 0)


def test_a_stream_brings_pieces_and_then_the_dictionary(
    ask: Callable[..., Any], calls: list[Call]
) -> None:
    pieces, result = ask("Hi", stream=True)
    [call] = calls
    assert len(pieces) > 1
    assert "".join(pieces) == call.response == result["content"]
    assert call.usage.total_tokens == result["token_usage"]["total"]
    assert call.first_token_ns


def test_a_stream_that_is_left_is_recorded_as_far_as_it_went(calls: list[Call]) -> None:
    stream = flowledger.chat("Hi", stream=True, fallbacks=["gpt-4o"])
    first = next(stream)
    stream.close()
    inner, outer = calls
    assert (first, first) == (inner.response, outer.response)
    assert "closed by the caller before its end" in inner.notes + outer.notes
    assert stream.result is None


def test_the_context_around_says_who_asks_where_the_arguments_do_not(calls: list[Call]) -> None:
    with flowledger.context(user_id="ben", feature="help", tags={"team": "a"}):
        trail = flowledger.chat("Hi", reasoning=True, session_id="s")["audit_trail"]
    assert ("ben", "s") == (trail["user_id"], trail["session_id"])
    [call] = calls
    assert ("ben", "help", "a") == (call.actor.user_id, call.feature, call.tags["team"])


def test_dspy_brings_the_reasoning_and_one_call_with_usage_is_recorded(
    ask: Callable[..., Any], calls: list[Call]
) -> None:
    result = ask(
        "Why is the sky blue?",
        "dspy",
        reasoning=True,
        history=[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}],
    )
    inner, outer = calls
    assert result["content"]
    assert result["reasoning"]
    assert "dspy" == result["method"]
    assert inner.usage.total_tokens == result["token_usage"]["total"]
    assert (outer.id, 1) == (inner.parent_id, outer.inner_calls)
    assert "assistant: Hi" in inner.prompt[-1]["content"]


def test_dspy_asks_in_words_where_the_server_refuses_a_schema(
    calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = "gpt-4o-mini?status=400&fail-times=1&key=schema"
    result = flowledger.chat("Why?", "dspy", refusing, reasoning=True)
    first, *others, outer = calls
    assert not first.outcome.success
    assert "response_format" in first.settings
    assert others
    assert not any("response_format" in call.settings for call in others)
    assert "dspy cannot use the answer" in result["audit_trail"]["error"]
    assert "ProviderError" == outer.outcome.error_type


def test_rag_answers_from_numbered_passages_and_returns_them(
    ask: Callable[..., Any], calls: list[Call]
) -> None:
    add_documents()
    result = ask("When can goods be returned?", "rag", reasoning=True)
    looked_up, asked, outer = calls
    [source] = result["sources"]
    assert (1, "handbook.md", "Returns", RETURNS.text) == (
        source["number"],
        source["source"],
        source["place"],
        source["text"],
    )
    assert ("rag", Kind.RETRIEVAL) == (result["method"], looked_up.kind)
    assert 1 == looked_up.metrics["documents_count"]
    assert f"[1] (handbook.md, Returns)\n{RETURNS.text}" in asked.prompt[-1]["content"]
    assert {outer.id} == {looked_up.parent_id, asked.parent_id}
    assert (2, "When can goods be returned?") == (outer.inner_calls, outer.prompt)
    assert (None, {"model": "openai/gpt-4o-mini"}) == (outer.model_asked, outer.params)


def test_rag_streams(ask: Callable[..., Any], calls: list[Call]) -> None:
    add_documents()
    pieces, result = ask("When can goods be returned?", "rag", stream=True)
    assert "".join(pieces) == result["content"]
    assert 1 == len(result["sources"])


def test_rag_finds_by_meaning_where_an_embedding_model_is_set(
    home: Path, stub: StubLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowledger.chat.retrieval import as_document

    monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
    path = home.parent / "returns.txt"
    path.write_text(RETURNS.text)
    with capture_calls(embedding_model="openai/text-embedding-3-small") as calls:
        document = as_document(path, {})
        assert document is not None
        opened().add([document])
        assert as_document(path, {document.source: (document.digest, document.embedding)}) is None
        result = flowledger.chat("goods returned thirty days", "rag", reasoning=True)
        opened().close()
    kinds = [call.kind for call in calls]
    assert [Kind.EMBEDDING, Kind.EMBEDDING, Kind.RETRIEVAL, Kind.CHAT, Kind.CHAT] == kinds
    assert 0 < result["sources"][0]["similarity"] == calls[2].metrics["similarity_max"]


def test_documents_and_turns_may_be_in_postgresql(
    home: Path, stub: StubLLM, postgres_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
    with capture_calls(chat_store=postgres_uri) as calls:
        add_documents()
        result = flowledger.chat("When can goods be returned?", "rag", reasoning=True, session_id=7)
        opened().close()
    assert ["Returns"] == [source["place"] for source in result["sources"]]
    assert (1, "7") == (calls[-1].tags["chat_turn"], calls[-1].actor.session_id)


@pytest.mark.parametrize(
    ("question", "method", "why"),
    [
        ("Within how many days can goods be returned?", "rag", "handbook.md holds 4 of"),
        ("Why is the sky blue?", "dspy", "the question asks for steps: 'why'"),
        ("What is 17 * 23", "dspy", "the question holds a sum"),
        ("Hello there", "direct", "the question needs no steps"),
    ],
)
def test_hybrid_says_what_it_chose_and_why_in_method_and_tags(
    calls: list[Call], question: str, method: str, why: str
) -> None:
    add_documents()
    result = flowledger.chat(question, "hybrid", reasoning=True)
    assert result["method"].startswith(f"hybrid: {method}, ")
    assert why in result["method"]
    tags = calls[-1].tags
    assert ("hybrid", method) == (tags["chat_type"], tags["chat_method"])
    assert why in tags["chat_why"]


def test_hybrid_needs_no_documents(calls: list[Call]) -> None:
    assert "hybrid: direct" in flowledger.chat("Hello", "hybrid", reasoning=True)["method"]


def test_a_near_vector_is_evidence_without_a_word_in_common() -> None:
    near = Source(number=1, source="a", place="", text="x", score=1.0, similarity=0.6)
    assert "rag" == chosen("canine companions", [near])[0]


def test_the_turns_of_a_session_are_numbered_and_found_when_asked_for(
    ask: Callable[..., Any], calls: list[Call]
) -> None:
    first = ask("One", session_id="s")
    ask("Other", session_id="t")
    ask("Two", session_id="s", history=True)
    ask("Three", session_id="s")
    assert [1, 1, 2, 3] == [call.tags["chat_turn"] for call in calls]
    assert [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Two"},
    ] == calls[2].prompt
    assert [{"role": "user", "content": "Three"}] == calls[3].prompt
    assert 3 == forget("s")
    ask("Four", session_id="s", history=True)
    assert [{"role": "user", "content": "Four"}] == calls[4].prompt


def test_given_messages_and_instructions_go_before_the_question(calls: list[Call]) -> None:
    history = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    flowledger.chat("C", history=history, system="Be brief.")
    assert [
        {"role": "system", "content": "Be brief."},
        *history,
        {"role": "user", "content": "C"},
    ] == calls[0].prompt


def test_a_fallback_answers_where_the_model_fails_and_both_are_recorded(
    ask: Callable[..., Any], calls: list[Call]
) -> None:
    result = ask("Hi", model="gpt-4o?status=401", fallbacks=["gpt-4o-mini"], reasoning=True)
    failed, answered, outer = calls
    assert [False, True, True] == [c.outcome.success for c in (failed, answered, outer)]
    assert "gpt-4o-mini" == result["audit_trail"]["model_id"]
    assert {outer.id} == {failed.parent_id, answered.parent_id}


def test_a_provider_is_asked_again_before_it_counts_as_failed(calls: list[Call]) -> None:
    result = flowledger.chat("Again", model="gpt-4o-mini?status=503&fail-times=1", reasoning=True)
    assert result["audit_trail"]["success"]
    assert 1 == len(calls)


def test_any_prefix_with_an_address_is_a_provider(
    calls: list[Call], stub: StubLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_BASE_URL", stub.url)
    flowledger.chat("Hi", model="vllm/meta-llama/Llama-3-8B")
    assert "meta-llama/Llama-3-8B" == calls[0].model_asked


def test_providers_may_stand_in_the_file(
    calls: list[Call], stub: StubLLM, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"providers:\n  ours:\n    base_url: {stub.url}\n    api_key_env: OUR_KEY\n"
    (home.parent / "flowledger.yaml").write_text(text)
    monkeypatch.setenv("OUR_KEY", "secret-of-ours")
    with capture_calls() as inner:
        flowledger.chat("Hi", model="ours/gpt-4o")
    assert "gpt-4o" == inner[0].model
    assert "***" == stub.requests[-1].headers["authorization"]


def test_a_thinking_model_is_not_sent_what_it_refuses(calls: list[Call]) -> None:
    flowledger.chat("Hi", model="openai/gpt-5-mini")
    assert {"max_completion_tokens": 4000} == calls[0].settings


@pytest.fixture
def anthropic(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    with anthropic_server() as (url, asked):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        yield asked


def test_anthropic_answers_and_streams(
    ask: Callable[..., Any], calls: list[Call], anthropic: list[dict[str, Any]]
) -> None:
    model = "anthropic/claude-sonnet-4-5"
    result = ask("Why?", model=model, system="Be brief.", reasoning=True, temperature=1.5)
    pieces, streamed = ask("Why?", model=model, stream=True)
    assert [ANTHROPIC_TEXT] * 3 == [result["content"], "".join(pieces), streamed["content"]]
    assert {"input": 15, "output": 7, "total": 22} == result["token_usage"]
    assert result["token_usage"] == streamed["token_usage"]
    assert ("Be brief.", 1.0) == (anthropic[0]["system"], anthropic[0]["temperature"])
    assert [22, 22] == [call.usage.total_tokens for call in calls]
    assert {("anthropic", ANTHROPIC_TEXT)} == {(call.provider, call.response) for call in calls}


def test_anthropic_gives_dspy_its_answer_or_a_clear_error(
    calls: list[Call], anthropic: list[dict[str, Any]]
) -> None:
    result = flowledger.chat("Why?", "dspy", "claude-sonnet-4-5", reasoning=True)
    assert "dspy cannot use the answer" in result["audit_trail"]["error"]


def test_anthropic_is_asked_for_the_form_that_dspy_needs(
    calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    with StubLLM() as stub:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", stub.root)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "stub")
        result = flowledger.chat("Why?", "dspy", "claude-sonnet-4-5", reasoning=True)
        refused = "claude-3-haiku?status=400&fail-times=1&key=form"
        flowledger.chat("Why?", "dspy", refused, reasoning=True)
    assert (True, True) == (result["audit_trail"]["success"], bool(result["reasoning"]))
    asked = [call for call in calls if call.inner_calls == 0]
    assert [True, True, False] == ["output_config" in call.settings for call in asked]


def test_chat_may_be_imported_and_called_in_any_order(calls: list[Call]) -> None:
    package: Any = importlib.import_module("flowledger.chat")
    assert vars(flowledger)["chat"] is package
    assert isinstance(package("Hi", stream=True), ChatStream)
    assert inspect.signature(flowledger.chat) == inspect.signature(package.chat)
    assert inspect.signature(flowledger.achat) == inspect.signature(package.chat)


def test_chat_works_with_recording_switched_off(
    home: Path, stub: StubLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
    flowledger.configure(enabled=False)
    assert flowledger.chat("Hi", reasoning=True)["audit_trail"]["success"]
    flowledger.configure()
    assert not home.exists()


def test_a_chat_that_is_shown_tells_the_passages_it_was_given(
    home: Path, stub: StubLLM, database_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
    with capture_calls() as calls:
        add_documents()
        flowledger.chat("When can goods be returned?", "rag", model="openai/gpt-4o-mini")
        opened().close()
    _, asked, outer = calls
    store(database_uri, calls)

    for call_id in (outer.id, asked.id):
        told = CliRunner().invoke(
            main, ["show", call_id], env={"FLOWLEDGER_TRACKING_URI": database_uri}
        )
        assert f"SOURCES:\n  [1] handbook.md, Returns: {RETURNS.text}\n" in told.stdout
    with Ledger(database_uri) as ledger:
        around = ledger.around(ledger.call(outer.id))
    [[passage]] = around.sources
    assert ("handbook.md", RETURNS.text) == (passage["source"], passage["text"])
