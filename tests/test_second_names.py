"""Our params and metrics are also written under the names that a system has for them."""

from typing import Any

import pytest

import flowledger
from flowledger.config import WRITTEN_NAMES, load
from flowledger.errors import ConfigError
from flowledger.records import Usage
from flowledger.store.entries import USAGE_DETAILS, entry
from flowledger.testing import capture_calls
from tests.calls import a_call

NAMES = {"input_tokens": "prompt_tokens", "latency_ms": "took", "model": "model_id"}


def test_a_param_and_a_metric_have_both_names() -> None:
    call = a_call(usage=Usage(input_tokens=7, output_tokens=2), also_as=NAMES)
    made = entry(call)
    metrics, params = dict(made.metrics), dict(made.params)
    assert (7.0, 7.0, 120.0) == (
        metrics["prompt_tokens"],
        metrics["input_tokens"],
        metrics["took"],
    )
    assert params["model"] == params["model_id"]
    assert {"model_id"} == params.keys() - dict(entry(a_call()).params).keys()


def test_what_is_not_known_has_no_second_name_either() -> None:
    call = a_call(prompt=None, response=None, usage=Usage(), also_as=NAMES)
    assert "prompt_tokens" not in dict(entry(call).metrics)


def test_the_callers_own_metric_wins_over_a_second_name() -> None:
    call = a_call(usage=Usage(input_tokens=7), metrics={"prompt_tokens": 8}, also_as=NAMES)
    assert 8.0 == dict(entry(call).metrics)["prompt_tokens"]


def test_a_second_name_takes_no_name_of_ours_away() -> None:
    call = a_call(
        usage=Usage(input_tokens=7, output_tokens=2), also_as={"input_tokens": "output_tokens"}
    )
    assert 2.0 == dict(entry(call).metrics)["output_tokens"]


def test_a_name_mlflow_does_not_take_is_changed() -> None:
    assert 120.0 == dict(entry(a_call(also_as={"latency_ms": "../took?"})).metrics)["_"]


def test_the_names_travel_with_each_call() -> None:
    with capture_calls(also_as=NAMES) as calls:
        flowledger.record(model="gpt-4o")
    assert [NAMES] == [call.also_as for call in calls]


def test_every_name_that_may_have_a_second_one_is_written() -> None:
    details: dict[str, Any] = {n: 1 for n in USAGE_DETAILS if n in Usage.__struct_fields__}
    made = entry(a_call(
        settings={"temperature": 0.5, "max_tokens": 9},
        usage=Usage(**details, seconds=1, characters=1, input_tokens=7, output_tokens=2),
        first_token_ns=1,
    ))  # fmt: skip
    written = {key for key, _ in [*made.params, *made.metrics]}
    assert set(WRITTEN_NAMES) == written & set(WRITTEN_NAMES)


def test_a_name_of_ours_that_is_none_is_told() -> None:
    with pytest.raises(ConfigError, match=r"also_as names tokens; there are: model, provider"):
        load(also_as={"tokens": "prompt_tokens"})
