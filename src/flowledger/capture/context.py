"""Who asks and why: carried along with the code that runs, across tasks and threads."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import Any

import msgspec

from flowledger import logs
from flowledger.asynchronous import reraise_asynchronous
from flowledger.records import NO_PROMPT, NOBODY, Actor, Logged, Place, Prompt, Record

__all__ = [
    "EMPTY",
    "Context",
    "Pending",
    "carried",
    "context",
    "current",
    "leave",
    "told",
    "within",
]

MOST_LATE = 10_000


class Pending:
    """A call under way: made when it starts, read when it ends.

    `inner_calls` counts the calls made inside it, and `counted` becomes true when one of them
    reported its own usage, so that the outer call does not report the same tokens again.
    """

    __slots__ = (
        "_keep",
        "_late",
        "counted",
        "first_token_ns",
        "id",
        "inner_calls",
        "start_ns",
        "started",
    )

    def __init__(self, call_id: str, start_ns: int, started: int) -> None:
        self.id = call_id
        self.start_ns = start_ns
        self.started = started
        self.first_token_ns: int | None = None
        self.inner_calls = 0
        self.counted = False
        self._late: list[Record] = []
        self._keep: Callable[[Record], None] | None = None

    def add(self, record: Record) -> None:
        """Keep a record that must be stored after this call: when the call is recorded.

        What comes later still, from a thread that outlives the call, is kept at once.
        """
        if len(self._late) >= MOST_LATE:
            logs.warn("capture", "more than %d records inside one call: left out", MOST_LATE)
            return
        self._late.append(record)
        if self._keep is not None:
            self.recorded(self._keep)

    def logged(self) -> list[Logged]:
        """Take back what was logged on this call so far, to become part of it."""
        own = [one for one in self._late if isinstance(one, Logged) and one.run_id == self.id]
        for one in own:
            self._late.remove(one)
        return own

    def recorded(self, keep: Callable[[Record], None]) -> None:
        """The call itself is recorded: hand on what waits for it."""
        self._keep = keep
        with suppress(IndexError):
            while self._late:
                keep(self._late.pop(0))


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What every call made from here on inherits.

    `parent` is the call, stage or job around, `run` the stage or job. `place` is where in a trace
    things happen here; in the trace of a call that is still under way, `late` takes them.
    """

    actor: Actor = NOBODY
    feature: str | None = None
    experiment: str | None = None
    prompt_version: Prompt = NO_PROMPT
    tags: dict[str, Any] = msgspec.field(default_factory=dict)
    parent: Pending | None = None
    run: Any = None
    place: Place | None = None
    late: Pending | None = None

    @property
    def job_place(self) -> Place | None:
        """The place in the trace of a job, whose beginning the journal has already."""
        return self.place if self.late is None else None


EMPTY = Context()
carried: ContextVar[Context] = ContextVar("flowledger_context", default=EMPTY)


def within(place: Place, parent_id: str) -> Place:
    """Inside of what stands at this place."""
    return Place(root_id=place.root_id, parent_id=parent_id, experiment=place.experiment)


def current() -> Context:
    """The context in force here."""
    return carried.get()


@contextmanager
def context(
    *,
    user_id: object = None,
    session_id: object = None,
    persona_id: object = None,
    user_role: object = None,
    audit_reason: object = None,
    environment: object = None,
    feature: str | None = None,
    experiment: str | None = None,
    prompt_name: str | None = None,
    prompt_version: object = None,
    tags: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """Say who asks and why for every call inside, in this task and in tasks started from it.

    `flowledger.carry` takes it to a thread, and the setting `carry_threads` to all of them.

    Contexts nest: an inner one adds to the outer one and wins where both say something. Usable as
    `with flowledger.context(user_id="ana"):` and as a decorator of a plain function.

    Args:
        user_id, session_id, persona_id, user_role, audit_reason, environment: the actor's fields;
            anything but text is turned into text.
        feature: feature of the calls inside that name none.
        experiment: MLflow experiment of the calls inside.
        prompt_name, prompt_version: the prompt used by the calls inside.
        tags: written on every call inside.
    """
    outer = carried.get()
    actor = _given(
        user_id=user_id,
        session_id=session_id,
        persona_id=persona_id,
        user_role=user_role,
        audit_reason=audit_reason,
        environment=environment,
    )
    prompt = _given(name=prompt_name, version=prompt_version)
    own = {"feature": feature, "experiment": experiment}
    token = carried.set(
        msgspec.structs.replace(
            outer,
            actor=msgspec.structs.replace(outer.actor, **actor),
            prompt_version=msgspec.structs.replace(outer.prompt_version, **prompt),
            tags={**outer.tags, **(tags or {})},
            **{key: value for key, value in own.items() if value is not None},
        )
    )
    try:
        yield
    finally:
        leave(token)


def leave(token: "Token[Context]") -> None:
    """Take back what `carried.set` gave this token for.

    A generator may be closed from another task, where the token means nothing.
    """
    with suppress(ValueError):
        carried.reset(token)


def _given(**fields: object) -> dict[str, str]:
    return {key: told(value) for key, value in fields.items() if value is not None}


def told(value: object) -> str:
    """The object as text, whatever its own code does."""
    try:
        return str(value)
    except Exception as exc:  # noqa: BLE001 - the object's own code may raise anything
        reraise_asynchronous(exc)
        return f"<{type(value).__name__} whose text raises {type(exc).__name__}>"
