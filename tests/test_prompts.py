"""Prompts travel with the calls that use them, and are linked in MLflow's registry."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import flowledger
from flowledger.capture.prompts import signature
from flowledger.config import Destination
from flowledger.errors import PromptError
from flowledger.records import Call, Prompt, encode
from flowledger.store import open_sink
from flowledger.store.entries import entry
from flowledger.testing import capture_calls
from tests.calls import a_call

GREET = flowledger.prompt("greet", "Greet {{ name }} in {{language}}.", version=2)


@pytest.fixture
def calls(home: Path) -> Iterator[list[Call]]:
    with capture_calls() as captured:
        yield captured


def test_calls_made_while_a_prompt_is_used_carry_its_name_version_hash_and_text(
    calls: list[Call],
) -> None:
    with GREET.use(name="Ana", language="French") as text:
        flowledger.record(model="gpt-4o", prompt=text)
    flowledger.record(model="gpt-4o", prompt="Hi")
    assert "Greet Ana in French." == calls[0].prompt
    assert Prompt(name="greet", version="2", hash=GREET.hash) == calls[0].prompt_version
    assert GREET.template == calls[0].tags["prompt_template"]
    assert (Prompt(), {}) == (calls[1].prompt_version, calls[1].tags)


def test_a_prompt_without_a_version_has_the_hash_of_its_text() -> None:
    one, same, other = (flowledger.prompt("p", text) for text in ("a", "a", "b"))
    assert (one.hash, None) == (same.hash, one.version)
    assert one.hash != other.hash


def test_a_variable_without_a_value_is_named() -> None:
    with pytest.raises(PromptError, match="needs language, name"):
        GREET.format()


def asking(text: str) -> Callable[[str], str]:
    """A function like any other, but for what it asks."""
    scope: dict[str, Any] = {}
    exec(f"def ask(question):\n    return {text!r} + question", scope)
    function: Callable[[str], str] = scope["ask"]
    return function


def test_a_function_has_a_signature_that_changes_with_what_it_asks() -> None:
    assert signature(asking("Be brief. ")) == signature(asking("Be brief. "))
    assert signature(asking("Be brief. ")) != signature(asking("Be kind. "))


class Endless:
    """A callable that says it wraps itself."""

    @property
    def __wrapped__(self) -> "Endless":
        return self

    def __call__(self) -> str:
        return "done"


def test_a_callable_of_any_kind_has_a_signature(calls: list[Call]) -> None:
    assert len(signature(Endless())) == len(signature(print)) == 16


def test_a_tracked_function_versions_itself_and_the_calls_made_inside(calls: list[Call]) -> None:
    @flowledger.track
    def answer() -> str:
        flowledger.record(model="gpt-4o", prompt="inside")
        return "You are helpful."

    answer()
    expected = Prompt(hash=signature(answer))
    assert [expected, expected] == [call.prompt_version for call in calls]


def test_a_prompt_that_is_named_wins_over_the_functions_signature(calls: list[Call]) -> None:
    @flowledger.track
    def answer() -> None:
        flowledger.record(model="gpt-4o")

    with GREET.use(name="Ana", language="French"):
        answer()
    assert ["2", "2"] == [call.prompt_version.version for call in calls]


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        {"messages": [{"role": "user", "content": "Hi"}], "system": "Be brief."},
        {"input": "Hi", "instructions": "Be brief."},
    ],
)
def test_a_call_with_instructions_has_their_hash_for_a_version(prompt: Any) -> None:
    made, same, other = (
        entry(a_call(prompt=one)) for one in (prompt, prompt, [{"role": "system", "content": "x"}])
    )
    version = dict(made.tags)["prompt_version"]
    assert version == dict(same.tags)["prompt_version"]
    assert version != dict(other.tags)["prompt_version"]
    assert "prompt_version" not in dict(entry(a_call()).tags)
    named = entry(a_call(prompt=prompt, prompt_version=Prompt(version="3")))
    assert "3" == dict(named.tags)["prompt_version"]


def test_a_call_is_linked_to_its_prompt_in_mlflows_registry(
    database_uri: str, tmp_path: Path
) -> None:
    client = MlflowClient(database_uri, database_uri)
    client.register_prompt("greet", "Greet {{name}}.")
    version = client.register_prompt("greet", GREET.template).version
    where = Destination(
        tracking_uri=database_uri, artifact_root=str(tmp_path), store_as="run+trace"
    )
    linked = a_call(prompt_version=Prompt(name="greet", version=str(version)))
    unlinked = a_call(prompt_version=Prompt(name="greet", version="draft"))
    sink = open_sink(where)
    assert [] == sink.write([encode(linked), encode(unlinked)])
    sink.close()
    experiment = client.get_experiment_by_name("support")
    assert experiment is not None
    found = client.search_traces(
        locations=[experiment.experiment_id], filter_string=f"prompt = 'greet/{version}'"
    )
    assert [f"tr-{linked.id}"] == [trace.info.trace_id for trace in found]
    assert '[{"name":"greet","version":"2"}]' == found[0].info.tags["mlflow.linkedPrompts"]
    assert "draft" == client.get_run(unlinked.id).data.tags["prompt_version"]
