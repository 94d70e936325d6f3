"""The recorder: numbers a process's calls and keeps them in its journal.

One recorder a process, made at the first call from the settings in force, forgotten in a forked
child, which makes its own. Nothing here raises into the application.
"""

import atexit
import getpass
import itertools
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

import flowledger
from flowledger import config, logs
from flowledger.asynchronous import reraise_asynchronous
from flowledger.capture import threads
from flowledger.capture.content import encode_bounded
from flowledger.capture.context import Context, Pending, current, told
from flowledger.config import Settings
from flowledger.errors import ConfigError, RecordError
from flowledger.journal import Writer
from flowledger.privacy import Redactor, privacy_of
from flowledger.records import (
    Actor,
    Artifact,
    Call,
    Job,
    Logged,
    Outcome,
    Producer,
    Record,
    Span,
    Usage,
    encode,
    new_id,
)
from flowledger.shipping import Shipper, start_shipping

__all__ = [
    "DEFAULT_EXPERIMENT",
    "Recorder",
    "active",
    "begin",
    "configure",
    "failure",
    "finish",
    "first_token",
    "flush",
    "read_fields",
    "settings",
    "use",
]

STACK_BYTES = 16 << 10
NO_USAGE = Usage()
DEFAULT_EXPERIMENT = "Default"  # MLflow's own
Keep = Callable[[int, bytes], object]


class Recorder:
    """Turns what capture saw into numbered records and hands them on.

    Args:
        settings: the settings in force.
        producer_id: names this process in every record.
        keep: takes a record's number and bytes; called on the caller's thread, must not raise.
        redactors: the application's own, run after those that the settings name.

    Raises:
        ConfigError: a redactor that the settings name cannot be found.
    """

    def __init__(
        self,
        settings: Settings,
        producer_id: str,
        keep: Keep,
        redactors: Iterable[Redactor] = (),
    ) -> None:
        self.settings = settings
        self._privacy = privacy_of(settings, redactors)
        self.producer_id = producer_id
        self._keep = keep
        self._longest_content = settings.max_content_bytes
        self._numbers = itertools.count(1)
        if settings.carry_threads:
            threads.carry_into_threads()
        self._by_feature = settings.experiment == "{feature}" and not settings.experiments

    def record(self, pending: Pending, context: Context, seen: dict[str, Any]) -> None:
        """Number a call and keep it, with what its context says wherever capture saw nothing.

        Args:
            pending: the call as it began.
            context: who asks and why.
            seen: fields of `Call`; None means not seen.
        """
        seq = next(self._numbers)
        try:
            call, payload = self._finished(seq, pending, context, seen)
            self._keep(seq, payload)
        except BaseException as exc:
            # Its number is taken, and its absence would be reported as a loss.
            self._keep(seq, encode(_interrupted(pending, self.producer_id, seq, seen, exc)))
            raise
        if context.parent is not None:
            context.parent.inner_calls += 1
            context.parent.counted |= call.usage.total_tokens is not None
        pending.recorded(lambda record: self.keep(_with_experiment(record, call.experiment)))

    def _finished(
        self, seq: int, pending: Pending, context: Context, seen: dict[str, Any]
    ) -> tuple[Call, bytes]:
        """The record of a call, and its bytes for the journal."""
        _take_logged(pending, seen)
        call = self._call(seq, pending, context, seen)
        try:
            return call, self._privacy.apply(call, encode_bounded(call, self._longest_content))
        except RecordError as exc:
            logs.warn("capture", "the content of a call cannot be kept: %s", exc)
            return call, encode(_without_content(call, f"the content was left out: {exc}"))

    def keep(self, record: Record) -> None:
        """Number any other record, and keep it."""
        seq = next(self._numbers)
        record = msgspec.structs.replace(record, producer=self.producer_id, seq=seq)
        try:
            payload = self.encoded(record)
        except RecordError as exc:
            logs.warn("capture", "the content of a record cannot be kept: %s", exc)
            payload = encode(type(record)(id=record.id, producer=self.producer_id, seq=seq))
        self._keep(seq, payload)

    def encoded(self, record: Record) -> bytes:
        """A record as it goes into the journal, its content bounded, plain and private."""
        if isinstance(record, Job | Logged | Span):
            payload = encode_bounded(record, self._longest_content)
        else:
            payload = encode(record)
        return self._privacy.apply(record, payload)

    def _call(self, seq: int, pending: Pending, context: Context, seen: dict[str, Any]) -> Call:
        for name in [name for name, value in seen.items() if value is None]:
            del seen[name]
        actor = self.placed(context.actor)
        if context.tags:
            seen["tags"] = {**context.tags, **seen.get("tags", {})}
        if context.parent is not None:
            seen.setdefault("parent_id", context.parent.id)
        feature = seen.pop("feature", context.feature)
        experiment = seen.pop("experiment", context.experiment)
        # One that tells tokens or a cost that no call inside it told has asked a model itself.
        told = "cost_usd" in seen or seen.get("usage", NO_USAGE) != NO_USAGE
        asked = told and not pending.counted
        return Call(
            id=pending.id,
            producer=self.producer_id,
            seq=seq,
            start_ns=pending.start_ns,
            first_token_ns=seen.pop("first_token_ns", pending.first_token_ns),
            inner_calls=0 if asked else pending.inner_calls,
            actor=actor,
            feature=feature,
            experiment=experiment
            or self.experiment_of(feature, actor, pending.start_ns, seen.get("operation")),
            prompt_version=seen.pop("prompt_version", context.prompt_version),
            place=context.job_place,
            also_as=self.settings.also_as,
            **seen,
        )

    def placed(self, actor: Actor) -> Actor:
        """The actor with the environment the settings name, where the context names none."""
        environment = self.settings.environment
        if environment is None or actor.environment is not None:
            return actor
        return msgspec.structs.replace(actor, environment=environment)

    def experiment_of(
        self, feature: str | None, actor: Actor, start_ns: int, operation: str | None
    ) -> str | None:
        """The MLflow experiment of a call or job that names none."""
        if self._by_feature:
            return feature
        if feature in self.settings.experiments:
            return self.settings.experiments[feature]
        return self.settings.experiment.format(
            feature=feature or "none",
            persona_id=actor.persona_id or "none",
            operation=operation or "none",
            environment=actor.environment or "none",
            user_id=actor.user_id or "none",
            date=datetime.fromtimestamp(start_ns // 10**9, UTC).date().isoformat(),
        )


def _take_logged(pending: Pending, seen: dict[str, Any]) -> None:
    """Make what was logged on the call part of it; a metric's history stays beside it."""
    logged = pending.logged()
    if not logged:
        return
    values = [metric for one in logged for metric in one.metrics]
    times = Counter(metric.key for metric in values)
    once = {one.key: one.value for one in values if times[one.key] == 1 and one.step == 0}
    tags = {key: value for one in logged for key, value in one.tags.items()}
    params = {key: value for one in reversed(logged) for key, value in one.params.items()}
    seen["tags"] = {**(seen.get("tags") or {}), **tags}
    seen["params"] = {**params, **(seen.get("params") or {})}
    seen["metrics"] = {**(seen.get("metrics") or {}), **once}
    if history := [one for one in values if one.key not in once]:
        pending.add(msgspec.structs.replace(logged[-1], params={}, tags={}, metrics=history))


def _with_experiment(record: Record, experiment: str | None) -> Record:
    """What was held back for a call that is recorded now, in that call's experiment."""
    if isinstance(record, Logged | Artifact | Span):
        return msgspec.structs.replace(record, experiment=experiment or DEFAULT_EXPERIMENT)
    return record


def begin() -> Pending:
    """A call starts now."""
    return Pending(new_id(), time.time_ns(), time.perf_counter_ns())


def first_token(pending: Pending) -> None:
    """Something of the answer is there; only the first time counts."""
    if pending.first_token_ns is None:
        pending.first_token_ns = time.perf_counter_ns() - pending.started


def finish(pending: Pending, fields: Callable[[], dict[str, Any]]) -> None:
    """A call that `begin` started ends now: record it.

    Never raises: a fault of ours is logged, and the application goes on.

    Args:
        pending: the call.
        fields: makes the fields of `Call` that capture saw; its faults count as ours.
    """
    duration = time.perf_counter_ns() - pending.started
    try:
        recorder = active()
        if recorder is not None:
            seen = read_fields(fields)
            seen.setdefault("duration_ns", duration)
            recorder.record(pending, current(), seen)
    except Exception as exc:  # noqa: BLE001 - no fault of ours may reach the application
        reraise_asynchronous(exc)
        logs.warn("capture", "a call was not recorded: %s: %s", type(exc).__name__, exc)


def read_fields(fields: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the fields capture saw, or a note in their place when they cannot be read."""
    try:
        return fields()
    except Exception as exc:  # noqa: BLE001 - the application's objects may raise anything
        reraise_asynchronous(exc)
        return {"notes": [f"what was given could not be read: {type(exc).__name__}"]}


def failure(error: BaseException) -> Outcome:
    """The outcome of a call that raised."""
    stack = "".join(traceback.format_exception(error, limit=-40))
    return Outcome(
        success=False,
        error_type=type(error).__name__,
        message=told(error)[:STACK_BYTES],
        stack=stack[-STACK_BYTES:],
    )


def _without_content(call: Call, reason: str) -> Call:
    empty = Call(
        id=call.id,
        producer=call.producer,
        seq=call.seq,
        start_ns=call.start_ns,
        duration_ns=call.duration_ns,
        notes=[reason[:STACK_BYTES]],
    )
    return msgspec.structs.replace(empty, kind=str(call.kind))


def _interrupted(
    pending: Pending, producer: str, seq: int, seen: dict[str, Any], exc: BaseException
) -> Call:
    """What is sure of a call whose recording was interrupted."""
    reason = f"{type(exc).__name__} was raised while this call was recorded"
    return Call(
        id=pending.id,
        producer=producer,
        seq=seq,
        start_ns=pending.start_ns,
        duration_ns=seen.get("duration_ns") or 0,
        notes=[reason],
    )


class _Process:
    """This process's recorder, journal and shipping, made at the first call."""

    def __init__(self, arguments: dict[str, Any], redactors: Sequence[Redactor] = ()) -> None:
        self.arguments = arguments
        self.redactors = redactors
        self._lock = threading.RLock()
        self._making = False
        self._made = False
        self.failed = False
        self.recorder: Recorder | None = None
        self.writer: Writer | None = None
        self.shipper: Shipper | None = None

    def ready(self) -> Recorder | None:
        """The recorder, or None when recording is off or cannot start."""
        if not self._made:
            with self._lock:
                # The garbage collector may end a call while this very thread is at work here.
                if not self._made and not self._making:
                    self._making = True
                    try:
                        self._make()
                        self._made = True
                    finally:
                        self._making = False
        return self.recorder

    def _make(self) -> None:
        try:
            settings = config.load(**self.arguments)
            if settings.enabled:
                self._start(settings)
        except ConfigError as exc:
            self.failed = True
            logs.warn("config", "calls are not recorded: %s", exc)
        except Exception as exc:  # noqa: BLE001 - no fault of ours may reach the application
            reraise_asynchronous(exc)
            self.failed = True
            logs.warn("config", "calls are not recorded: %s: %s", type(exc).__name__, exc)

    def _start(self, settings: Settings) -> None:
        if settings.log_level:
            logs.logger.setLevel(settings.log_level)
        producer_id = new_id()
        privacy_of(settings, self.redactors)  # before a journal is begun: it must be possible
        writer = Writer(
            settings.journal_folder,
            producer_id=producer_id,
            producer=encode(_this_process(producer_id)),
            max_bytes=settings.journal_max_bytes,
            fsync=settings.durability == "fsync",
            on_trouble=lambda reason: logs.warn("journal", "calls are not kept: %s", reason),
        )
        recorder = Recorder(settings, producer_id, writer.append, self.redactors)
        self.writer, self.shipper = writer, start_shipping(settings, writer, producer_id)
        self.recorder = recorder

    def close(self) -> None:
        """Hand over what the journal still holds, and leave."""
        if self.writer is not None and self.shipper is not None:
            self.shipper.close()
            self.writer.close()

    def forget(self) -> None:
        """In a forked child: everything here belongs to the parent."""
        if self.writer is not None:
            self.writer.forget()


def _this_process(producer_id: str) -> Producer:
    return Producer(
        id=producer_id,
        producer=producer_id,
        start_ns=time.time_ns(),
        host=_short(os.uname().nodename, 100),
        pid=os.getpid(),
        user=_short(_user_name(), 100),
        source=_short(sys.argv[0] if sys.argv else "", 300),
        version=flowledger.__version__,
    )


def _short(name: str, longest: int) -> str:
    """The end of a name, in so many bytes at most: a journal's header has room for no more."""
    return name.encode("utf-8", "replace")[-longest:].decode("utf-8", "ignore")


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in a container
        return str(os.getuid())


_process = _Process({})


def active() -> Recorder | None:
    """The recorder of this process, or None when recording is off."""
    return _process.ready() if _substitute is None else _substitute


_substitute: Recorder | None = None


def use(recorder: Recorder | None) -> Recorder | None:
    """Record through this recorder instead, for tests; returns the one used before."""
    global _substitute
    before, _substitute = _substitute, recorder
    return before


def settings() -> Settings:
    """The settings in force, whether calls are recorded or not.

    Raises:
        ConfigError: a setting is wrong.
    """
    recorder = active()
    return config.load(**_process.arguments) if recorder is None else recorder.settings


def configure(*, redactors: Sequence[Redactor] = (), **settings: Any) -> None:
    """Set what the environment does not, before the first call or at any time after.

    Calls already recorded stay where they were going. A wrong value is logged, and recording is
    off until it is put right: the application goes on.

    Args:
        redactors: functions from text to text, run on every text before it is kept; one that raises
            has the text withheld.
        settings: fields of `flowledger.config.Settings`, for example `tracking_uri=`,
            `experiment=`, `environment=`, `enabled=`.
    """
    global _process
    before, _process = _process, _Process(settings, redactors)
    before.close()


def flush(timeout: float = 10.0) -> bool:
    """Wait until the store has every call this process recorded so far.

    Args:
        timeout: longest to wait, in seconds.

    Returns:
        Whether every record since the last flush is stored; True when there were none. False when
        the time is up, when a record had no room in the journal or was refused by the store, and
        when recording could not start. `flowledger doctor` says why.
    """
    if _process.shipper is None:
        return not _process.failed
    return _process.shipper.flush(timeout)


def _after_fork() -> None:
    global _process
    before, _process = _process, _Process(_process.arguments, _process.redactors)
    before.forget()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _process.close())
