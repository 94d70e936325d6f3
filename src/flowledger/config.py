"""Settings: arguments, then the environment, then `flowledger.yaml`, read once.

Every setting has one name: the field below is `FLOWLEDGER_<NAME>` in the environment and the same
word in lower case in `flowledger.yaml`. MLflow's own variables are honoured where they mean the
same (`ALIASES`). An argument wins over the environment, the environment over the file.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec

from flowledger.errors import ConfigError

__all__ = ["Destination", "Provider", "Settings", "load", "switched_on", "without_password"]

SWITCHES = (
    "FLOWLEDGER_ENABLED",
    "MLFLOW_ENABLED",
    "MLFLOW_ENABLE_TRACKING",
    "MLFLOW_ENABLE_TRACING",
)
ON = ("1", "true", "yes", "on")
OFF = ("0", "false", "no", "off")
ALIASES = {"tracking_uri": "MLFLOW_TRACKING_URI"}
STORE_AS = ("run+trace", "run", "trace", "ledger")
DURABILITY = ("process", "fsync")
PROTOCOLS = ("openai", "anthropic")
COLLECTOR = ("auto", "off")
PARTITION_CALLS = ("", "month", "none")
CAPTURE_CONTENT = ("full", "hashed", "none")
# Our params and metrics in MLflow, each of which may be written under a second name.
WRITTEN_NAMES = (
    *("model", "provider", "feature", "operation", "function", "temperature", "max_tokens"),
    *("prompt", "response", "persona_id", "user_id", "session_id", "audit_reason"),
    *("input_tokens", "output_tokens", "total_tokens", "cached_input_tokens", "cache_write_tokens"),
    *("cache_write_1h_tokens", "reasoning_tokens", "input_audio_tokens", "output_audio_tokens"),
    *("input_image_tokens", "images", "audio_seconds", "input_characters"),
    *("cost_usd", "latency_ms", "time_to_first_token_ms", "success"),
)
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
# In the file or as an argument only.
IN_THE_FILE = ("experiments", "also_as", "providers", "capture_content_of", "evidence")
# What names something to run is not taken from a file that merely lies in the working directory.
RUNS = ("collector_python", "redact")
SCHEMES = ("sqlite", "postgresql", "http", "https", "file", "")
LONGEST_SECONDS = 86_400
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class Provider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a provider's models are: its address, the variable with its key, its protocol."""

    base_url: str = ""
    api_key_env: str = ""
    protocol: str = "openai"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set, with its default.

    enabled: False makes every decorator return the function it was given.
    tracking_uri: where calls go, as MLflow writes it; default `sqlite:///mlflow.db`.
    artifact_root: folder of new experiments' artifacts on a database; default `./mlruns`.
    home: folder of journals and state.
    experiment: MLflow experiment of a call, a template over `feature`, `persona_id`, `operation`,
        `environment`, `user_id` and `date` (UTC day of the call's start).
    experiments: display name of an experiment by feature; wins over the template.
    also_as: a second name for some of our params and metrics, under which they are written too.
    environment: where the application runs, when the context does not say.
    store_as: what a call becomes in MLflow: `run+trace`, `run`, `trace`, or `ledger` (only our
        row).
    max_content_bytes: longest prompt or response kept whole, in bytes.
    max_artifact_bytes: largest file kept with a run, in bytes.
    journal_max_bytes: most that may wait on this host for one destination, in bytes.
    durability: `process` survives a killed process, `fsync` also a power cut.
    collector: `auto` starts a collector process when one is needed, `off` leaves that to you.
    collector_python: the interpreter that runs the collector, when not the application's own.
    carry_threads: threads and tasks of thread pools start with the context of who started them;
        this replaces `threading.Thread.start` and `ThreadPoolExecutor.submit`.
    exit_timeout: seconds a leaving process may spend on sending what its journal still holds to a
        flowledger server; what is left stays in the journal for the next process.
    token: bearer key for a flowledger server.
    log_level: level of the `flowledger` logger; unset leaves logging alone.
    partition_calls: how `flowledger migrate` keeps the table of calls on PostgreSQL: `month` by
        month, `none` in one table, empty as it is; a server that owns its tables heeds `month`.
    connect_seconds: seconds a PostgreSQL database may take to be reached.
    statement_seconds: seconds PostgreSQL may take for one statement of a batch or a question; then
        it is ended, and the batch is delivered again.
    chat_model: the model of `chat` when none is named.
    chat_fallbacks: models to ask in turn when that one fails, separated by commas.
    chat_timeout: seconds one attempt at a provider may take.
    chat_retries: how often a provider is asked again before it counts as failed.
    chat_store: database of documents and conversations; default a SQLite file in `home`.
    embedding_model: model that makes vectors of documents; none means words only.
    providers: providers by the prefix of their models.
    capture_content: what is kept of prompts, answers, tools and errors: `full`, `hashed` (SHA-256
        and length) or `none`.
    capture_content_of: the same by feature; wins over `capture_content`.
    redact: what is taken out of every text before it is kept, in this order: `keys`, `email`,
        `phone`, `card`, `iban`, or `module:function` of your own, separated by commas.
    evidence: the policy that `flowledger evidence check` holds calls to.
    signing_key: file with the private key that signs exported evidence; default in `home`.
    """

    enabled: bool = True
    tracking_uri: str = "sqlite:///mlflow.db"
    artifact_root: str = ""
    home: str = ""
    experiment: str = "{feature}"
    experiments: dict[str, str] = msgspec.field(default_factory=dict)
    also_as: dict[str, str] = msgspec.field(default_factory=dict)
    environment: str | None = None
    store_as: str = "run+trace"
    max_content_bytes: int = 256 * KIB
    max_artifact_bytes: int = 8 * MIB
    journal_max_bytes: int = GIB
    durability: str = "process"
    collector: str = "auto"
    collector_python: str = ""
    carry_threads: bool = False
    exit_timeout: float = 2.0
    token: str = ""
    log_level: str = ""
    partition_calls: str = ""
    connect_seconds: float = 10.0
    statement_seconds: float = 40.0
    chat_model: str = "openai/gpt-4o-mini"
    chat_fallbacks: str = ""
    chat_timeout: float = 120.0
    chat_retries: int = 2
    chat_store: str = ""
    embedding_model: str = ""
    providers: dict[str, Provider] = msgspec.field(default_factory=dict)
    capture_content: str = "full"
    capture_content_of: dict[str, str] = msgspec.field(default_factory=dict)
    redact: str = ""
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)
    signing_key: str = ""

    @property
    def destination(self) -> "Destination":
        """Where journals of these settings go."""
        return Destination(
            tracking_uri=self.tracking_uri,
            artifact_root=self.artifact_root,
            store_as=self.store_as,
            connect_seconds=self.connect_seconds,
            statement_seconds=self.statement_seconds,
        )

    @property
    def journal_folder(self) -> Path:
        """The folder that holds the journals for this destination."""
        return Path(self.home, "journal", self.destination.key)


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A store and how to write to it; `key` names its journal folder.

    Two processes with the same database share a journal folder whatever their working directory
    and password. A password never reaches the folder.
    """

    tracking_uri: str
    artifact_root: str
    store_as: str
    connect_seconds: float = 10.0
    statement_seconds: float = 40.0

    @property
    def key(self) -> str:
        """A short name of this destination, the same in every process that means it."""
        text = f"{without_password(self.tracking_uri)}\n{self.store_as}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def redacted(self) -> "Destination":
        """The same, without the password."""
        return msgspec.structs.replace(self, tracking_uri=without_password(self.tracking_uri))


def load(environ: Mapping[str, str] = os.environ, **arguments: Any) -> Settings:
    """The settings in force: arguments over environment over `flowledger.yaml`.

    Args:
        environ: the environment to read.
        arguments: fields of `Settings`; None means not given.

    Raises:
        ConfigError: a name or a value is not one that can be set.
    """
    try:
        return _load(environ, arguments)
    except (ValueError, TypeError, RuntimeError, OSError) as exc:
        raise ConfigError(f"the settings cannot be used: {_one_line(exc)}") from exc


def _load(environ: Mapping[str, str], arguments: dict[str, Any]) -> Settings:
    given = {key: value for key, value in arguments.items() if value is not None}
    values = {**_from_file(environ), **_from_environment(environ), **given}
    unknown = sorted(map(str, values.keys() - set(Settings.__struct_fields__)))
    if unknown:
        names = ", ".join(Settings.__struct_fields__)
        raise ConfigError(f"unknown setting {', '.join(unknown)}; there are: {names}")
    if not values.get("experiment") and (name := environ.get("MLFLOW_EXPERIMENT_NAME")):
        values["experiment"] = name.replace("{", "{{").replace("}", "}}")
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"a setting has the wrong type: {exc}") from exc
    _check(settings)
    return msgspec.structs.replace(
        settings,
        home=str(Path(settings.home or _state_home(environ)).expanduser().absolute()),
        tracking_uri=_absolute(settings.tracking_uri),
        artifact_root=_absolute_folder(settings.artifact_root or "mlruns"),
        signing_key=str(Path(settings.signing_key).expanduser().absolute())
        if settings.signing_key
        else "",
        chat_store=_absolute(settings.chat_store) if settings.chat_store else "",
    )


def switched_on(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment leaves recording on; a switch that cannot be read does."""
    words = (environ.get(name, "").strip().lower() for name in SWITCHES)
    return not any(word in OFF for word in words)


def without_password(uri: str) -> str:
    """The URI with its password taken out."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}@{host}"))


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {
        field: environ[name]
        for field in Settings.__struct_fields__
        for name in (f"FLOWLEDGER_{field.upper()}", ALIASES.get(field, ""))
        if environ.get(name) and field not in ("enabled", *IN_THE_FILE)
    }
    for field, name in ALIASES.items():
        values[field] = environ.get(f"FLOWLEDGER_{field.upper()}") or environ.get(name)
    states = [_boolean(name, environ[name]) for name in SWITCHES if environ.get(name)]
    if states:
        values["enabled"] = all(states)
    return {key: value for key, value in values.items() if value is not None}


def _one_line(exc: Exception) -> str:
    return " ".join(str(exc).split())


def _boolean(name: str, text: str) -> bool:
    word = text.strip().lower()
    if word in ON:
        return True
    if word in OFF:
        return False
    raise ConfigError(f"{name}={text!r}: use true or false")


def _from_file(environ: Mapping[str, str]) -> dict[str, Any]:
    path = Path(environ.get("FLOWLEDGER_CONFIG") or "flowledger.yaml")
    if not path.is_file():
        if environ.get("FLOWLEDGER_CONFIG"):
            raise ConfigError(f"FLOWLEDGER_CONFIG names {path}, and there is no such file")
        return {}
    try:
        values = msgspec.yaml.decode(path.read_bytes())
    except ImportError as exc:
        raise ConfigError(f"{path} needs PyYAML: pip install pyyaml") from exc
    except (msgspec.DecodeError, OSError) as exc:
        raise ConfigError(f"{path} cannot be read: {_one_line(exc)}") from exc
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold settings as `name: value` lines")
    if not environ.get("FLOWLEDGER_CONFIG"):
        _refuse_programs(path, values)
    return values


def _refuse_programs(path: Path, values: Mapping[str, Any]) -> None:
    """Whoever can put a file into a directory must not choose what a program started there runs."""
    for name in RUNS:
        value = str(values.get(name) or "")
        if value and (name != "redact" or ":" in value):
            raise ConfigError(
                f"{path} sets {name}, which names code to run: set FLOWLEDGER_{name.upper()}, or "
                f"name this file with FLOWLEDGER_CONFIG={path.absolute()}"
            )


def _check(settings: Settings) -> None:
    for field, allowed in (
        ("store_as", STORE_AS),
        ("durability", DURABILITY),
        ("collector", COLLECTOR),
        ("partition_calls", PARTITION_CALLS),
        ("log_level", ("", *LOG_LEVELS)),
        ("capture_content", CAPTURE_CONTENT),
    ):
        value = getattr(settings, field)
        if value not in allowed:
            raise ConfigError(f"{field}={value!r}: use one of {', '.join(filter(None, allowed))}")
    for feature, mode in settings.capture_content_of.items():
        if mode not in CAPTURE_CONTENT:
            modes = ", ".join(CAPTURE_CONTENT)
            raise ConfigError(f"capture_content_of.{feature}={mode!r}: use one of {modes}")
    for field, least, most in (
        ("max_content_bytes", KIB, 4 * MIB),
        ("max_artifact_bytes", 0, 32 * MIB),
        ("journal_max_bytes", MIB, 1 << 50),
    ):
        if not least <= getattr(settings, field) <= most:
            raise ConfigError(f"{field} must be from {least} to {most} bytes")
    for field in ("connect_seconds", "statement_seconds"):
        if not 0.1 <= getattr(settings, field) <= LONGEST_SECONDS:
            raise ConfigError(f"{field} must be from 0.1 to {LONGEST_SECONDS} seconds")
    if settings.chat_timeout <= 0 or settings.chat_retries < 0:
        raise ConfigError("chat_timeout must be more than 0, and chat_retries 0 or more")
    for prefix, provider in settings.providers.items():
        if provider.protocol not in PROTOCOLS:
            raise ConfigError(f"providers.{prefix}.protocol: use one of {', '.join(PROTOCOLS)}")
    odd = sorted(settings.also_as.keys() - set(WRITTEN_NAMES))
    if odd:
        raise ConfigError(f"also_as names {', '.join(odd)}; there are: {', '.join(WRITTEN_NAMES)}")
    try:
        scheme = urlsplit(settings.tracking_uri).scheme.partition("+")[0]
    except ValueError as exc:
        raise ConfigError(f"tracking_uri is no address: {exc}") from exc
    if scheme not in SCHEMES:
        raise ConfigError(
            f"tracking_uri has the unknown scheme {scheme!r}; use sqlite:///, postgresql://, "
            "http://, https:// or a folder"
        )
    try:
        settings.experiment.format_map(_AnyField())
    except (ValueError, IndexError, AttributeError) as exc:
        raise ConfigError(f"experiment={settings.experiment!r} is no template: {exc}") from exc


class _AnyField(dict[str, str]):
    """Stands for any value a template may ask for."""

    FIELDS = ("feature", "persona_id", "operation", "environment", "user_id", "date")

    def __missing__(self, key: str) -> str:
        if key not in self.FIELDS:
            raise ValueError(f"there is no {key}; use {', '.join(self.FIELDS)}")
        return ""


def _absolute_folder(folder: str) -> str:
    return folder if "://" in folder else str(Path(folder).absolute())


def _absolute(uri: str) -> str:
    """A local database or folder by its full path, so that every process means the same one."""
    parts = urlsplit(uri)
    if parts.scheme.partition("+")[0] == "sqlite":
        prefix, _, path = uri.partition(":///")
        return uri if path in ("", ":memory:") else f"{prefix}:///{Path(path).absolute()}"
    if parts.scheme in ("", "file"):
        return Path(parts.path).absolute().as_uri()
    return uri


def _state_home(environ: Mapping[str, str]) -> Path:
    """The user's state folder, where the platform keeps it.

    Sources: XDG Base Directory Specification; Apple's File System Programming Guide; Windows known
    folders.
    """
    if sys.platform == "darwin":
        return Path("~/Library/Application Support/flowledger").expanduser()
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or "~/AppData/Local", "flowledger").expanduser()
    return Path(environ.get("XDG_STATE_HOME") or "~/.local/state", "flowledger").expanduser()
