"""Settings of the server alone: `FLOWLEDGER_SERVER_<NAME>` in the environment of its workers."""

import os
from collections.abc import Mapping

import msgspec

from flowledger.errors import ConfigError

__all__ = ["ServerSettings", "load"]

PREFIX = "FLOWLEDGER_SERVER_"
AUTH = ("", "basic")
SHORTEST_TOKEN = 16
MIB = 1 << 20


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one worker of the server behaves, with its defaults.

    auth: `basic` puts MLflow's users in front of everything of ours; empty asks nobody.
    sinks: batches stored at the same time on PostgreSQL; SQLite takes one at a time.
    batches_in_flight: batches being stored or waiting for it; the next one gets 429.
    max_body_bytes: longest body of ingest and of `/v1/traces`, as it is sent.
    max_batch_bytes: longest batch of frames or of spans as protobuf, inflated.
    max_json_bytes: longest batch of JSON, calls or spans, inflated.
    max_waiting_bytes: most of all bodies that a worker holds at once; beyond it 429.
    max_records: most records in one batch.
    body_seconds: how long a client may take to send a body.
    store_seconds: how long the database may take for a batch before the client gets 503.
    question_seconds: how long the database may take to answer a question of ours.
    label_values: values of each label in `/metrics` that keep their name; the rest is `other`.
    metrics_token: bearer token that opens `/metrics` and nothing else, with `auth`.
    """

    auth: str = ""
    sinks: int = 2
    batches_in_flight: int = 8
    max_body_bytes: int = 16 * MIB
    max_batch_bytes: int = 64 * MIB
    max_json_bytes: int = 16 * MIB
    max_waiting_bytes: int = 128 * MIB
    max_records: int = 10_000
    body_seconds: float = 30.0
    store_seconds: float = 45.0
    question_seconds: float = 5.0
    label_values: int = 20
    metrics_token: str = ""


def load(environ: Mapping[str, str] = os.environ) -> ServerSettings:
    """The settings of this worker.

    Raises:
        ConfigError: a value is not one that can be set.
    """
    given = {
        field: environ[name]
        for field in ServerSettings.__struct_fields__
        if environ.get(name := f"{PREFIX}{field.upper()}")
    }
    try:
        settings = msgspec.convert(given, ServerSettings, strict=False)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"a {PREFIX}... setting has the wrong type: {exc}") from exc
    _check(settings)
    return settings


def _check(settings: ServerSettings) -> None:
    if settings.auth not in AUTH:
        raise ConfigError(f"{PREFIX}AUTH={settings.auth!r}: use basic, or leave it out")
    if 0 < len(settings.metrics_token) < SHORTEST_TOKEN:
        raise ConfigError(
            f"{PREFIX}METRICS_TOKEN is too short: give {SHORTEST_TOKEN} random characters or more"
        )
    for field, value in msgspec.structs.asdict(settings).items():
        if not isinstance(value, str) and not value > 0:
            raise ConfigError(f"{PREFIX}{field.upper()} must be more than 0")
