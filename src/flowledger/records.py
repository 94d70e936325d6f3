"""The records a journal carries: frozen, keyword-only, without I/O.

A record travels as one MessagePack map whose `type` field names the struct. Fields that hold their
default are left out. Fields that this version does not know are kept in `unknown` and written again
by `encode`, so a newer application may ship through an older collector.
"""

import hashlib
import os
import random
import time
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

from flowledger.errors import RecordError

__all__ = [
    "NOBODY",
    "NO_PROMPT",
    "Actor",
    "Artifact",
    "Call",
    "Cost",
    "Gap",
    "Gone",
    "Job",
    "Kind",
    "Logged",
    "Metric",
    "Outcome",
    "Place",
    "Producer",
    "Prompt",
    "Record",
    "Span",
    "ToolCall",
    "Usage",
    "decode",
    "encode",
    "encode_fields",
    "fixed_id",
    "new_id",
    "number_of",
    "to_json",
    "unix_ns",
]


class Kind(StrEnum):
    """What a call asked of a model; the values follow OpenTelemetry's `gen_ai.operation.name`."""

    CHAT = "chat"
    COMPLETION = "completion"
    VISION = "vision"
    IMAGE = "image"
    EMBEDDING = "embedding"
    SPEECH = "speech"
    RETRIEVAL = "retrieval"
    CUSTOM = "custom"


class _Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every part of a record shares."""


class Actor(_Struct, frozen=True):
    """Who asked, and why.

    `environment` is where the application runs (`production`, `staging`, ...).
    """

    user_id: str | None = None
    session_id: str | None = None
    persona_id: str | None = None
    user_role: str | None = None
    audit_reason: str | None = None
    environment: str | None = None


class Usage(_Struct, frozen=True):
    """What a call consumed, in the provider's own numbers where it gave them.

    `input_tokens` includes `cached_input_tokens`, `cache_write_tokens`, `input_audio_tokens` and
    `input_image_tokens`; `cache_write_tokens` includes `cache_write_1h_tokens`, those kept for an
    hour rather than minutes. `output_tokens` includes `reasoning_tokens` and
    `output_audio_tokens`, as OpenAI counts. `seconds` is audio length, `characters` the
    length of a text that was to be spoken. `source` says where the
    numbers come from: `reported` by the provider, `counted` with the model's own tokenizer, or
    `estimated` with another one.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None
    input_image_tokens: int | None = None
    images: int | None = None
    seconds: float | None = None
    characters: int | None = None
    source: str = "reported"

    @property
    def total_tokens(self) -> int | None:
        """Input plus output tokens, or None when neither is known."""
        if self.input_tokens is None and self.output_tokens is None:
            return None
        return (self.input_tokens or 0) + (self.output_tokens or 0)


class Cost(_Struct, frozen=True):
    """What a call cost in US dollars; `total` may be known where its parts are not.

    `source` is `listed` where it follows from a price list, and `given` where the caller said it.
    """

    total: float
    input: float | None = None
    output: float | None = None
    source: str = "listed"


class Outcome(_Struct, frozen=True):
    """Whether a call worked, and if not, what was raised."""

    success: bool = True
    error_type: str | None = None
    message: str | None = None
    stack: str | None = None


class Place(_Struct, frozen=True):
    """Where in a trace something happened.

    `root_id` is the job (or the call, or the lone span) whose trace it is, and `parent_id` the
    span, call, stage or job directly around. `experiment` is the job's, so that what is stored
    before its job can still be put there.
    """

    root_id: str
    parent_id: str
    experiment: str | None = None


class Metric(_Struct, frozen=True):
    """One value of a metric, at a step and a time: its history is made of them."""

    key: str
    value: float
    timestamp_ms: int
    step: int = 0


class Prompt(_Struct, frozen=True):
    """Which prompt was used: its name and version in a registry, and the hash of its text."""

    name: str | None = None
    version: str | None = None
    hash: str | None = None


class ToolCall(_Struct, frozen=True):
    """A function the model called; `arguments` and `result` are as they were sent, as text.

    One without a result is what the answer asks for. One with a result ran before the call, whose
    prompt told the model what came of it.
    """

    name: str
    id: str | None = None
    arguments: str | None = None
    result: str | None = None


NOBODY = Actor()
_NO_USAGE = Usage()
_WORKED = Outcome()
NO_PROMPT = Prompt()


class _Base(_Struct, frozen=True, tag_field="type"):
    """What every record carries.

    `id` is a UUIDv7 in hex, made when the thing began. `producer` names the process that saw it and
    `seq` is that process's own count of its records, from 1 without holes.
    """

    id: str
    producer: str = ""
    seq: int = 0
    start_ns: int = 0
    unknown: dict[str, Any] = msgspec.field(default_factory=dict)


class Call(_Base, frozen=True, tag="call"):
    """One call of a model, or of a function that was tracked.

    `start_ns` is Unix time in nanoseconds; `duration_ns` and `first_token_ns` count from it.
    `model_asked` is the name the caller gave, `model` the one that answered. `settings` holds the
    request's own parameters (`temperature`, `max_tokens`, ...). `prompt` and `response` are text or
    plain JSON values. `inner_calls` says how many calls were made inside this one: those asked a
    model, this one only groups them. `params`, `metrics` and `tags` are the caller's own, written
    beside ours. `cost_usd` is set only when the caller knows the price better than the price list.
    `place` is where it stands in the trace of a job around it, None when there is none.
    `also_as` has second names of our params and metrics, under which they are written too.
    `notes` say in plain words what was changed on the way in (cut, replaced).
    """

    duration_ns: int = 0
    first_token_ns: int | None = None
    operation: str = ""
    feature: str | None = None
    function: str | None = None
    experiment: str | None = None
    kind: str = Kind.CUSTOM
    provider: str | None = None
    model_asked: str | None = None
    model: str | None = None
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    prompt: Any = None
    response: Any = None
    tool_calls: list[ToolCall] = msgspec.field(default_factory=list)
    actor: Actor = NOBODY
    usage: Usage = _NO_USAGE
    outcome: Outcome = _WORKED
    prompt_version: Prompt = NO_PROMPT
    parent_id: str | None = None
    inner_calls: int = 0
    cost_usd: float | None = None
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)
    tags: dict[str, Any] = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)
    place: Place | None = None
    also_as: dict[str, str] = msgspec.field(default_factory=dict)


class Job(_Base, frozen=True, tag="job"):
    """A piece of work that groups calls, or a stage of one: a run in MLflow.

    Recorded twice under one id: when it begins (`running`), so that a killed process does not lose
    it, and whole again when it ends. `parent_id` is the run it is nested in. `place` is where it
    stands in the trace of the job around it; without one it has a trace of its own.
    """

    running: bool = False
    duration_ns: int = 0
    name: str = ""
    feature: str | None = None
    experiment: str | None = None
    actor: Actor = NOBODY
    outcome: Outcome = _WORKED
    parent_id: str | None = None
    place: Place | None = None
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    tags: dict[str, Any] = msgspec.field(default_factory=dict)


class Logged(_Base, frozen=True, tag="logged"):
    """Params, metrics and tags that were logged on a run while it was under way.

    `experiment` is the run's, where that is known.
    """

    run_id: str = ""
    experiment: str | None = None
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    metrics: list[Metric] = msgspec.field(default_factory=list)
    tags: dict[str, Any] = msgspec.field(default_factory=dict)


class Span(_Base, frozen=True, tag="span"):
    """A step inside a job or a call, with its inputs and outputs; recorded when it ends.

    Without a `place` it stands alone, in a trace of its own in `experiment`.
    """

    duration_ns: int = 0
    name: str = ""
    span_type: str = "UNKNOWN"
    place: Place | None = None
    experiment: str | None = None
    actor: Actor = NOBODY
    inputs: Any = None
    outputs: Any = None
    attributes: dict[str, Any] = msgspec.field(default_factory=dict)
    outcome: Outcome = _WORKED


class Artifact(_Base, frozen=True, tag="artifact"):
    """A file to keep with a run: `path` inside the run's artifacts, `content` its bytes.

    `experiment` is the run's, where that is known.
    """

    run_id: str = ""
    experiment: str | None = None
    path: str = ""
    content: bytes = b""


class Producer(_Base, frozen=True, tag="producer"):
    """The process that wrote a journal: where it ran, as whom, and from which program."""

    host: str = ""
    pid: int = 0
    user: str = ""
    source: str = ""
    version: str = ""


class Gap(_Base, frozen=True, tag="gap"):
    """Records a process numbered but could not keep: `count` of them, between two numbers."""

    first_seq: int = 0
    last_seq: int = 0
    count: int = 0
    reason: str = ""


class Gone(_Base, frozen=True, tag="gone"):
    """A process that will record nothing more, and all it recorded was sent before this.

    `id` is the process's own, `start_ns` when it recorded the last time.
    """


Record: TypeAlias = Call | Job | Logged | Span | Artifact | Producer | Gap | Gone

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_generic = msgspec.msgpack.Decoder()
_known = {
    cls: frozenset((*cls.__struct_encode_fields__, "type"))
    for cls in (Call, Job, Logged, Span, Artifact, Producer, Gap, Gone)
}
_known_inside = {
    "actor": frozenset(Actor.__struct_encode_fields__),
    "usage": frozenset(Usage.__struct_encode_fields__),
    "outcome": frozenset(Outcome.__struct_encode_fields__),
    "prompt_version": frozenset(Prompt.__struct_encode_fields__),
    "place": frozenset(Place.__struct_encode_fields__),
}


def new_id() -> str:
    """A new UUIDv7 as 32 hex characters: 48 bits of Unix milliseconds, then randomness.

    Source: RFC 9562, section 5.7.
    """
    return _id(time.time_ns(), _random_bits(76))


def fixed_id(key: str, start_ns: int) -> str:
    """An id that is the same for the same key and start, in whichever process it is made.

    Args:
        key: names what it is the id of, such as a provider's own id.
        start_ns: Unix time in nanoseconds.
    """
    digest = hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=10).digest()
    return _id(start_ns, int.from_bytes(digest, "big"))


def _id(start_ns: int, bits: int) -> str:
    return f"{start_ns // 1_000_000 << 80 | _VERSION_7 | (bits & _RANDOM):032x}"


# The four bits of the version, the two of the variant, and where the random bits go.
_VERSION_7 = 0x7 << 76 | 0x2 << 62
_RANDOM = ((1 << 12) - 1) << 64 | ((1 << 62) - 1)
_source = random.Random()
_random_bits = _source.getrandbits
os.register_at_fork(after_in_child=_source.seed)


def encode(record: Record) -> bytes:
    """The record as MessagePack, with the fields a newer version gave it back in their place.

    Raises:
        RecordError: a value has no MessagePack form (a lone surrogate, a number over 64 bits, an
            object of a type of the caller's own).
    """
    try:
        payload = _encoder.encode(record)
        return payload if not record.unknown else _with_unknown_in_place(payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise RecordError(f"a value cannot be encoded: {exc}") from exc


def encode_fields(fields: dict[str, Any]) -> bytes:
    """A record given as a plain map, `type` included, as MessagePack.

    Raises:
        RecordError: a value has no MessagePack form, or the map is no record.
    """
    try:
        payload = _encoder.encode(fields)
        _decoder.decode(payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise RecordError(f"a value cannot be encoded: {exc}") from exc
    return payload


def encode_value(value: Any) -> bytes:
    """Return a field's value as MessagePack; as `msgspec.Raw`, `encode` copies it into the record.

    Raises:
        RecordError: the value, or one inside it, has no MessagePack form.
    """
    try:
        return _encoder.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise RecordError(f"a value cannot be encoded: {exc}") from exc


def decode(payload: bytes | memoryview) -> Record:
    """The record that `encode` made these bytes from.

    Raises:
        RecordError: the bytes are no record of a kind this version knows.
    """
    try:
        record = _decoder.decode(payload)
        unknown = _unknown_fields(_generic.decode(payload), _known[type(record)])
    except (msgspec.DecodeError, UnicodeError, RecursionError, TypeError) as exc:
        raise RecordError(f"not a record: {exc}") from exc
    if not unknown:
        return record
    return msgspec.structs.replace(record, unknown={**record.unknown, **unknown})


def number_of(payload: bytes | memoryview) -> tuple[str, int]:
    """Producer and number that encoded bytes tell, record or not; ("", 0) where they do not."""
    try:
        fields = _generic.decode(payload)
        producer, seq = fields["producer"], fields["seq"]
    except (msgspec.DecodeError, UnicodeError, RecursionError, LookupError, TypeError):
        return "", 0
    usable = isinstance(producer, str) and len(producer) <= 32 and "\0" not in producer
    numbered = isinstance(seq, int) and 0 < seq < 2**63
    return (producer, seq) if usable and numbered else ("", 0)


def _unknown_fields(fields: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """What `fields` holds beyond `known`; a part's own unknown fields under `part.field`."""
    unknown = {key: fields[key] for key in fields.keys() - known}
    for part, known_inside in _known_inside.items():
        inside = fields.get(part)
        if inside and not inside.keys() <= known_inside:
            unknown |= {f"{part}.{key}": inside[key] for key in inside.keys() - known_inside}
    return unknown


def _with_unknown_in_place(payload: bytes) -> bytes:
    fields = _generic.decode(payload)
    for path, value in fields.pop("unknown").items():
        part, _, key = path.partition(".")
        if part in _known_inside:
            fields.setdefault(part, {})[key] = value
        else:
            fields[path] = value
    return _encoder.encode(fields)


def unix_ns(moment: datetime | float) -> int:
    """A moment in Unix nanoseconds, to the microsecond.

    Args:
        moment: a datetime with a time zone, or Unix seconds.

    Raises:
        ValueError, OverflowError: the moment is NaN or infinite.
    """
    if isinstance(moment, datetime):
        return (moment - _EPOCH) // _MICROSECOND * 1000
    # A float of today's seconds is exact to 0.2 microseconds only, so truncating it loses time.
    return round(moment * 1e6) * 1000


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_json(record: Record) -> bytes:
    """The record as one line of JSON, for people and other tools."""
    return msgspec.json.encode(record)
