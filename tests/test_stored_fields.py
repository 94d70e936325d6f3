"""Every field of a call is stored, so its cost can be computed from the record alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from mlflow import MlflowClient

from flowledger.config import Destination
from flowledger.pricing import price
from flowledger.questions import Ledger, StoredCall
from flowledger.records import (
    Actor,
    Call,
    Cost,
    Kind,
    Outcome,
    Prompt,
    Usage,
    encode,
    fixed_id,
)
from flowledger.store import open_sink
from tests.calls import NOW_NS, a_call

# Where a column of `llm_calls` is not named as its field.
COLUMNS: dict[tuple[type, str], str] = {
    (Usage, "seconds"): "audio_seconds",
    (Usage, "characters"): "input_characters",
    (Usage, "source"): "usage_source",
    (Cost, "total"): "cost_usd",
    (Cost, "input"): "input_cost_usd",
    (Cost, "output"): "output_cost_usd",
    (Cost, "source"): "cost_source",
    (Outcome, "message"): "error_message",
    (Prompt, "name"): "prompt_name",
    (Prompt, "version"): "prompt_version",
    (Prompt, "hash"): "prompt_hash",
}
# Where the name in MLflow (param, metric or tag) is not that of the column.
NAMES = {
    "error_message": "error",
}
NO_COLUMN: dict[tuple[type, str], str] = {
    (Outcome, "stack"): "content: the trace keeps it, or the column `content` without a trace",
}
NOT_IN_MLFLOW: dict[tuple[type, str], str] = {
    (Usage, "source"): "a judgement of flowledger's, in the ledger only",
    (Cost, "input"): "the trace has it: `mlflow.llm.cost`",
    (Cost, "output"): "the trace has it: `mlflow.llm.cost`",
    (Cost, "source"): "in the ledger only, as the source of a usage",
    (Outcome, "stack"): "the trace has it: the exception event of its span",
    (Prompt, "name"): "the trace has it: `mlflow.linkedPrompts`",
    (Prompt, "hash"): "the tag `prompt_version` where a prompt has no version",
}
PARTS: dict[type, Any] = {
    Actor: Actor(
        user_id="ana",
        session_id="s-1",
        persona_id="helper",
        user_role="nurse",
        audit_reason="a complaint",
        environment="staging",
    ),
    Usage: Usage(
        input_tokens=1_000_000,
        output_tokens=50_000,
        cached_input_tokens=2_000,
        cache_write_tokens=400_000,
        cache_write_1h_tokens=300_000,
        reasoning_tokens=4_000,
        input_audio_tokens=5_000,
        output_audio_tokens=6_000,
        input_image_tokens=7_000,
        images=8,
        seconds=9.5,
        characters=70,
        source="reported",
    ),
    Outcome: Outcome(success=True, error_type="Warned", message="late", stack="line 1"),
    Prompt: Prompt(name="triage", version="7", hash="abc"),
}
FIELDS = [
    (part, field)
    for part in (Actor, Usage, Outcome, Prompt, Cost)
    for field in part.__struct_fields__
]
WHOLE = a_call(
    id=fixed_id("whole", NOW_NS),
    model="claude-sonnet-4-20250514",
    provider="anthropic",
    first_token_ns=12_345_678,
    actor=PARTS[Actor],
    usage=PARTS[Usage],
    outcome=PARTS[Outcome],
    prompt_version=PARTS[Prompt],
)
# Each has a price that rests on something else.
PRICED: dict[str, Call] = {
    "tokens": a_call(),
    "cache writes for an hour": a_call(
        provider="anthropic",
        model="claude-sonnet-4-20250514",
        usage=Usage(
            input_tokens=10_000,
            output_tokens=10,
            cached_input_tokens=100,
            cache_write_tokens=9_000,
            cache_write_1h_tokens=4_000,
        ),
    ),
    "pictures to look at": a_call(
        kind=Kind.IMAGE,
        model="gpt-image-1",
        usage=Usage(input_tokens=400, input_image_tokens=323, output_tokens=4160, images=1),
    ),
    "speech": a_call(
        model="gpt-audio",
        usage=Usage(
            input_tokens=900, input_audio_tokens=800, output_tokens=500, output_audio_tokens=450
        ),
    ),
    "seconds": a_call(model="whisper-1", kind=Kind.SPEECH, usage=Usage(seconds=60.0)),
    "characters": a_call(
        model="tts-1", model_asked="tts-1", kind=Kind.SPEECH, prompt="Good morning.", usage=Usage()
    ),
    "pictures by the piece": a_call(
        model="dall-e-3",
        kind=Kind.IMAGE,
        settings={"size": "1024x1024", "quality": "hd"},
        usage=Usage(images=2),
    ),
    "a cost that was given": a_call(cost_usd=0.5),
    "a batch": a_call(settings={"processing": "batch"}),
    "thoughts": a_call(
        provider="perplexity",
        model="sonar-deep-research",
        usage=Usage(input_tokens=10, output_tokens=2000, reasoning_tokens=1500),
    ),
}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with these calls in it."""
    folder: Path = tmp_path_factory.mktemp("fields")
    uri = f"sqlite:///{folder}/mlflow.db"
    root = f"{folder}/artifacts"
    calls = [
        msgspec.structs.replace(call, id=fixed_id(name, NOW_NS), seq=seq)
        for seq, (name, call) in enumerate({"whole": WHOLE, **PRICED}.items(), 1)
    ]
    sink = open_sink(Destination(tracking_uri=uri, artifact_root=root, store_as="run+trace"))
    assert [] == sink.write([encode(call) for call in calls])
    sink.close()
    return uri


@pytest.fixture(scope="module")
def row(uri: str) -> dict[str, Any]:
    """The columns of the call that has a value in every field."""
    engine = sa.create_engine(uri)
    with engine.connect() as connection:
        question = sa.text("SELECT * FROM llm_calls WHERE id = :id")
        found = connection.execute(question, {"id": WHOLE.id}).one()
    engine.dispose()
    return dict(found._mapping)


@pytest.fixture(scope="module")
def in_mlflow(uri: str) -> dict[str, Any]:
    """The same call's params, metrics and tags in MLflow."""
    run = MlflowClient(tracking_uri=uri).get_run(WHOLE.id)
    return {**run.data.params, **run.data.tags, **run.data.metrics}


@pytest.fixture
def ledger(uri: str) -> Iterator[Ledger]:
    with Ledger(uri) as opened:
        yield opened


def part_of(kind: type) -> Any:
    return price(WHOLE) if kind is Cost else PARTS[kind]


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_every_field_has_a_column_or_a_reason_to_have_none(
    row: dict[str, Any], kind: type, field: str
) -> None:
    if (kind, field) in NO_COLUMN:
        return
    assert getattr(part_of(kind), field) == row[COLUMNS.get((kind, field), field)]


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_every_field_has_a_name_in_mlflow_or_a_reason_to_have_none(
    in_mlflow: dict[str, Any], kind: type, field: str
) -> None:
    if (kind, field) in NOT_IN_MLFLOW:
        return
    column = COLUMNS.get((kind, field), field)
    assert getattr(part_of(kind), field) == in_mlflow[NAMES.get(column, column)]


def test_only_fields_that_there_are_have_a_reason_to_be_nowhere() -> None:
    assert set(FIELDS) >= NO_COLUMN.keys() | NOT_IN_MLFLOW.keys() | COLUMNS.keys()


def test_the_time_to_the_first_token_is_stored_in_milliseconds_where_there_was_one(
    row: dict[str, Any], in_mlflow: dict[str, Any], ledger: Ledger
) -> None:
    assert 12.345678 == row["time_to_first_token_ms"] == in_mlflow["time_to_first_token_ms"]
    assert ledger.call(fixed_id("tokens", NOW_NS)).time_to_first_token_ms is None


@pytest.mark.parametrize("name", PRICED)
def test_the_cost_of_a_call_can_be_computed_from_the_stored_record(
    ledger: Ledger, name: str
) -> None:
    call = ledger.call(fixed_id(name, NOW_NS))
    assert call.cost_usd is not None
    assert call.cost_source is not None
    stored = Cost(
        total=call.cost_usd,
        input=call.input_cost_usd,
        output=call.output_cost_usd,
        source=call.cost_source,
    )
    assert stored == price(as_call(call))


def as_call(stored: StoredCall) -> Call:
    """What the record says of a call's price."""
    usage = Usage(
        **{
            field: getattr(stored, COLUMNS.get((Usage, field), field))
            for field in Usage.__struct_fields__
        }
    )
    return Call(
        id=stored.id,
        start_ns=stored.start_ms * 1_000_000,
        kind=stored.kind,
        provider=stored.provider,
        model=stored.model,
        model_asked=stored.model_asked,
        settings=stored.settings,
        usage=usage,
        outcome=Outcome(success=stored.success),
        cost_usd=stored.cost_usd if stored.cost_source == "given" else None,
    )
