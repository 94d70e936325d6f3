"""DSPy itself against a stub of its provider: calls, modules, evaluations and optimisers."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import dspy  # after the integration, which keeps litellm from fetching its price list
import pytest
from dspy.utils.callback import BaseCallback
from openai import OpenAI

import flowledger
from flowledger.integrations.dspy import FlowledgerCallback, instrument, prompt_version
from flowledger.records import Call
from flowledger.testing import capture_calls
from flowledger.testing.llm import StubLLM


@pytest.fixture(scope="module")
def stub() -> Iterator[StubLLM]:
    """A server that stands in for OpenAI."""
    with StubLLM() as server:
        yield server


@pytest.fixture
def lm(stub: StubLLM) -> Any:
    """A language model without a cache."""
    return model(stub)


@pytest.fixture(autouse=True)
def recorded(lm: Any) -> Iterator[None]:
    """DSPy with our callback and this model, for one test."""
    with dspy.context(lm=lm, callbacks=[FlowledgerCallback("intents")], adapter=dspy.JSONAdapter()):
        yield


def model(stub: StubLLM, name: str = "openai/gpt-4o-mini", **options: Any) -> Any:
    options = {"cache": False, "num_retries": 0, **options}
    return dspy.LM(name, api_base=stub.url, api_key="sk-secret", **options)


def named(calls: list[Call], operation: str) -> Call:
    [found] = [call for call in calls if call.operation == operation]
    return found


def exact(example: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(example.answer == prediction.answer)


def test_an_lm_call_is_recorded_as_dspy_made_it(lm: Any) -> None:
    with capture_calls() as calls:
        [answer] = lm("Hi", temperature=0.5)
    [call] = calls
    assert ("Hi", answer) == (call.prompt, call.response)
    assert ("openai", "gpt-4o-mini", "gpt-4o-mini") == (call.provider, call.model_asked, call.model)
    assert lm.history[-1]["usage"]["completion_tokens"] == call.usage.output_tokens
    assert (0.5, "intents", "chat") == (call.settings["temperature"], call.feature, call.kind)
    assert {"dspy_version": dspy.__version__} == call.tags
    assert "sk-secret" not in str(call)


def test_a_request_of_dspys_own_kind_is_recorded_too(lm: Any) -> None:
    messages = (dspy.lm15.Message.user("Hi"),)
    with capture_calls() as calls:
        answer = lm(dspy.lm15.Request(model=lm.model, messages=messages))
    [call] = calls
    assert (answer.text, answer.usage.output_tokens) == (call.response, call.usage.output_tokens)
    assert "Hi" in str(call.prompt)


def test_a_module_groups_the_calls_inside_it() -> None:
    program = dspy.ChainOfThought("question -> answer")
    with capture_calls() as calls, flowledger.context(user_id="ana", session_id="s-1"):
        prediction = program(question="What?")
    inner, predict, outer = calls
    assert ["lm", "Predict", "ChainOfThought"] == [call.operation for call in calls]
    assert (predict.id, outer.id, None) == (inner.parent_id, predict.parent_id, outer.parent_id)
    assert [0, 1, 1] == [call.inner_calls for call in calls]
    assert [True, False, False] == [call.usage.input_tokens is not None for call in calls]
    assert {"ana"} == {call.actor.user_id for call in calls}
    assert {"question": "What?"} == outer.prompt
    assert prediction.answer == outer.response["answer"]


def test_the_prompt_version_is_that_of_the_signature_and_its_instructions() -> None:
    signature = dspy.Signature("question -> answer", "Answer in one word.")
    with capture_calls() as calls:
        dspy.Predict(signature)(question="What?")
    assert {prompt_version(signature).version} == {call.prompt_version.version for call in calls}
    other = signature.with_instructions("Answer in two words.")
    same = dspy.Signature("question -> answer", "Answer in one word.")
    assert prompt_version(signature) == prompt_version(same) != prompt_version(other)


def test_what_fails_is_recorded_as_it_was_raised(stub: StubLLM) -> None:
    failing = model(stub, "openai/gpt-4o-mini?status=500")
    with capture_calls() as calls, pytest.raises(Exception, match="500") as raised:
        failing("Hi")
    [call] = calls
    assert (False, type(raised.value).__name__) == (call.outcome.success, call.outcome.error_type)


def test_asynchronous_calls_keep_their_own_parents() -> None:
    program = dspy.Predict("question -> answer")

    async def ask_both() -> None:
        await asyncio.gather(*(program.acall(question=question) for question in ("a?", "b?")))

    with capture_calls() as calls:
        asyncio.run(ask_both())
    modules = {call.id: call for call in calls if call.operation == "Predict"}
    inner = [call for call in calls if call.operation == "lm"]
    assert {call.parent_id for call in inner} == set(modules)
    for call in inner:
        assert modules[call.parent_id or ""].prompt["question"] in str(call.prompt)


def test_a_client_that_is_wrapped_itself_is_counted_once(stub: StubLLM) -> None:
    client = flowledger.wrap(OpenAI(base_url=stub.url, api_key="x"))

    class Own(dspy.BaseLM):  # type: ignore[misc]
        def forward(self, prompt: Any = None, messages: Any = None, **kwargs: Any) -> Any:
            asked = messages or [{"role": "user", "content": prompt}]
            return client.chat.completions.create(model=self.model, messages=asked)

    with capture_calls() as calls, pytest.warns():
        Own("gpt-4o-mini")("Hi")
    counted, group = calls
    assert ("chat.completions", group.id, 1) == (
        *(counted.operation, counted.parent_id),
        group.inner_calls,
    )
    assert (True, None) == ((counted.usage.input_tokens or 0) > 0, group.usage.input_tokens)


def test_an_answer_from_the_cache_has_no_tokens_of_its_own(stub: StubLLM) -> None:
    cached = model(stub, cache=True)
    with capture_calls() as calls:
        cached("Hi, once", rollout_id=None)
        cached("Hi, once", rollout_id=None)
    first, second = calls
    assert first.response == second.response
    assert None is second.usage.input_tokens


def test_an_evaluation_groups_its_threads_and_has_the_score() -> None:
    examples = [dspy.Example(question=q, answer="x").with_inputs("question") for q in "abc"]
    evaluate = dspy.Evaluate(devset=examples, metric=exact, num_threads=2, display_progress=False)
    with capture_calls() as calls, flowledger.context(user_id="ana"):
        score = evaluate(dspy.Predict("question -> answer")).score
    group = named(calls, "evaluate")
    assert {"score": score, "examples": 3} == group.metrics
    assert {"program": "Predict", "metric": "exact"} == group.params
    modules = [call for call in calls if call.operation == "Predict"]
    assert {group.id} == {call.parent_id for call in modules}
    assert {"ana"} == {call.actor.user_id for call in calls}
    assert 3 == group.inner_calls


def test_an_optimiser_groups_its_iterations_and_has_the_scores_before_and_after() -> None:
    examples = [dspy.Example(question=q, answer="x").with_inputs("question") for q in "ab"]
    optimiser = dspy.BootstrapFewShotWithRandomSearch(
        metric=exact, num_candidate_programs=1, max_bootstrapped_demos=1, num_threads=1
    )
    with capture_calls() as calls:
        optimiser.compile(dspy.Predict("question -> answer"), trainset=examples)
    group = named(calls, "BootstrapFewShotWithRandomSearch.compile")
    tried = [call for call in calls if call.operation == "evaluate"]
    assert [*range(1, len(tried) + 1)] == [call.metrics["iteration"] for call in tried]
    assert {group.id} == {call.parent_id for call in tried}
    assert {"iterations": len(tried), "score_before": 0.0, "score_after": 0.0} == group.metrics
    assert group.prompt_version.version == group.tags["optimized_prompt_version"]


@pytest.fixture
def configured() -> Iterator[Callable[[], list[Any]]]:
    """What DSPy is configured with, which is put back."""
    yield lambda: dspy.settings.get("callbacks", [])
    dspy.configure(callbacks=[])


def test_instrument_adds_our_callback_once(
    configured: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with dspy.context(callbacks=[]):
        assert instrument()
        assert instrument()
    ours = [one for one in dspy.settings.config["callbacks"] if isinstance(one, FlowledgerCallback)]
    assert 1 == len(ours)
    monkeypatch.setenv("FLOWLEDGER_ENABLED", "false")
    assert not instrument()


@pytest.mark.filterwarnings("ignore:Passing OpenAI-style message:DeprecationWarning")
def test_the_prompt_is_what_was_asked_also_when_a_program_changes_its_inputs(lm: Any) -> None:
    messages = [{"role": "user", "content": "Hi"}]

    class Changing(BaseCallback):  # type: ignore[misc]
        def on_lm_end(self, *given: Any, **more: Any) -> None:
            messages.append({"role": "assistant", "content": "Hello"})

    class Program(dspy.Module):  # type: ignore[misc]
        def forward(self, facts: list[str]) -> Any:
            facts.clear()
            return dspy.Prediction(answer="none")

    with capture_calls() as calls, dspy.context(callbacks=[Changing(), FlowledgerCallback()]):
        lm(messages=messages)
        Program()(facts=["one"])
    assert [{"role": "user", "content": "Hi"}] == calls[0].prompt
    assert {"facts": ["one"]} == calls[1].prompt
