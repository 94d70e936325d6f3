"""`track`: record what a function was asked, what it answered, and how long it took."""

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast, overload

from flowledger import config
from flowledger.capture import recorder
from flowledger.capture.context import Context, Pending, carried, within
from flowledger.capture.freezing import freeze_fields
from flowledger.capture.prompts import signature
from flowledger.capture.reading import Reading, read_answer
from flowledger.records import NO_PROMPT, Kind, Prompt

__all__ = ["Reader", "inside", "track", "tracking"]

P = ParamSpec("P")
R = TypeVar("R")

MAX_KEPT_ITEMS = 10_000
NOTHING: Mapping[str, str | None] = {}


@overload
def track(function: Callable[P, R], /) -> Callable[P, R]: ...
@overload
def track(
    *,
    feature: str | None = None,
    operation: str | None = None,
    kind: str = Kind.CUSTOM,
    provider: str | None = None,
    model: str | None = None,
    experiment: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    content: bool = True,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def track(
    function: Callable[..., Any] | None = None,
    /,
    *,
    feature: str | None = None,
    operation: str | None = None,
    kind: str = Kind.CUSTOM,
    provider: str | None = None,
    model: str | None = None,
    experiment: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    content: bool = True,
) -> Callable[..., Any]:
    """Record every call of a function, coroutine, generator or async generator.

    The function's arguments are the prompt, what it returns or yields is the response; tokens and
    the model are read from an answer that carries them. What it raises is recorded and raised
    again. With recording switched off in the environment, the function itself comes back.

    Args:
        feature: the part of the product that asks; also the MLflow experiment by default.
        operation: what is done; default the function's name.
        kind: one of `flowledger.records.Kind`.
        provider, model: who answers, when the answer does not say.
        experiment: MLflow experiment, when not the feature's.
        params, tags: written on every call.
        content: False keeps arguments and answers out of the record.
    """
    if function is None:
        return cast(
            Callable[..., Any],
            functools.partial(
                track,
                feature=feature,
                operation=operation,
                kind=kind,
                provider=provider,
                model=model,
                experiment=experiment,
                params=params,
                tags=tags,
                content=content,
            ),
        )
    return tracking(
        function,
        PLAINLY,
        feature=feature,
        operation=operation,
        kind=kind,
        provider=provider,
        model=model,
        experiment=experiment,
        params=params,
        tags=tags,
        content=content,
    )


class Reader(NamedTuple):
    """How what a function was asked and answers is read.

    `asked` makes fields of `Call` of the arguments by name, defaults included.
    """

    asked: Callable[[Mapping[str, Any]], dict[str, Any]] | None
    answered: Callable[[Any], Reading]


PLAINLY = Reader(None, read_answer)


def tracking(
    function: Callable[..., Any],
    reader: Reader,
    *,
    feature: str | None = None,
    operation: str | None = None,
    kind: str = Kind.CUSTOM,
    provider: str | None = None,
    model: str | None = None,
    experiment: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    content: bool = True,
) -> Callable[..., Any]:
    """The function, recorded as `track` says, its arguments and answers read by this reader."""
    if not config.switched_on():
        return function
    fields = {
        "feature": feature,
        "operation": operation or getattr(function, "__name__", "call"),
        "function": _qualified_name(function),
        "kind": str(kind),
        "provider": provider,
        "model_asked": model,
        "experiment": experiment,
        "params": dict(params or {}),
        "tags": dict(tags or {}),
    }
    return _wrapped(function, _Tracked(function, fields, reader, content))


class _Tracked:
    """How one function is recorded: what is the same for all its calls."""

    def __init__(
        self,
        function: Callable[..., Any],
        fields: dict[str, Any],
        reader: Reader,
        content: bool,
    ) -> None:
        self._fields = fields
        self._names = _parameter_names(function)
        self._defaults = _defaults(function) if reader.asked else {}
        self._reader = reader
        self._content = content
        self._version = Prompt(hash=signature(function))
        self._version_field = {"prompt_version": self._version}
        inherited = {name: fields[name] for name in ("feature", "experiment")}
        self._inherited = {name: value for name, value in inherited.items() if value is not None}

    def under(self, pending: Pending) -> "_Under":
        """While the function's own code runs, calls made there belong to this one."""
        return _Under(pending, self._inherited, self._version)

    def read_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of `Call` that the arguments tell, before the function changes them."""

        def fields() -> dict[str, Any]:
            named = self._named(args, kwargs)
            asked = self._reader.asked({**self._defaults, **named}) if self._reader.asked else {}
            prompt = {"prompt": named} if self._content else {}
            notes: list[str] = []
            return {**freeze_fields({**asked, **prompt}, notes), "notes": notes}

        return recorder.read_fields(fields)

    def failed(self, pending: Pending, error: BaseException, asked: dict[str, Any]) -> None:
        """The function raised."""
        self._finish(pending, asked, lambda: {"outcome": recorder.failure(error)})

    def answered(self, pending: Pending, answer: Any, asked: dict[str, Any]) -> None:
        """The function returned, or its generator ended."""
        self._finish(pending, asked, lambda: self._read(pending, answer))

    def cut_off(self, pending: Pending, answer: Any, asked: dict[str, Any]) -> None:
        """The caller closed the generator before its end: that is no failure of the function."""
        note = {"notes": ["closed by the caller before its end"]}
        self._finish(pending, asked, lambda: self._read(pending, answer) | note)

    def _read(self, pending: Pending, answer: Any) -> dict[str, Any]:
        reading = self._reader.answered(answer)
        fields: dict[str, Any] = {"tool_calls": reading.tool_calls, "metrics": reading.metrics}
        if not pending.counted:
            fields |= {"usage": reading.usage, "model": reading.model, "cost_usd": reading.cost_usd}
        if self._content:
            fields["response"] = reading.response
        return fields

    def _finish(
        self, pending: Pending, asked: dict[str, Any], read: Callable[[], dict[str, Any]]
    ) -> None:
        def fields() -> dict[str, Any]:
            answered = read()
            notes = [*asked["notes"], *answered.get("notes", [])]
            # What a function's signature guesses gives way to a prompt that somebody named.
            version = {} if _is_named(carried.get().prompt_version) else self._version_field
            return {**self._fields, **version, **asked, **answered, "notes": notes}

        recorder.finish(pending, fields)

    def _named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by name; the object a method is called on is no part of what was asked."""
        named = dict(zip(self._names, args, strict=False))
        named.pop("self", None)
        named.pop("cls", None)
        if len(args) > len(self._names):
            named["args"] = list(args[len(self._names) :])
        return {**named, **kwargs}


def inside(pending: Pending, inherited: Mapping[str, str | None] = NOTHING) -> "_Under":
    """While this is entered, calls made here belong to the pending one.

    Args:
        pending: the call under way.
        inherited: `feature` and `experiment` of calls made here that name none.
    """
    return _Under(pending, {k: v for k, v in inherited.items() if v is not None}, NO_PROMPT)


class _Under:
    """Makes a pending call the parent of calls made inside it, which inherit its feature."""

    __slots__ = ("_inherited", "_pending", "_token", "_version")

    def __init__(self, pending: Pending, inherited: dict[str, str], version: Prompt) -> None:
        self._pending = pending
        self._inherited = inherited
        self._version = version

    def __enter__(self) -> None:
        outer = carried.get()
        named = _is_named(outer.prompt_version)
        place = outer.job_place
        inside = Context(
            actor=outer.actor,
            feature=self._inherited.get("feature", outer.feature),
            experiment=self._inherited.get("experiment", outer.experiment),
            prompt_version=outer.prompt_version if named else self._version,
            tags=outer.tags,
            parent=self._pending,
            run=outer.run,
            place=None if place is None else within(place, self._pending.id),
        )
        self._token = carried.set(inside)

    def __exit__(self, *exc_info: object) -> None:
        carried.reset(self._token)


def _wrapped(function: Callable[..., Any], tracked: _Tracked) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):
        wrapper: Callable[..., Any] = _async_generator(function, tracked)
    elif inspect.iscoroutinefunction(function):
        wrapper = _coroutine(function, tracked)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(function, tracked)
    else:
        wrapper = _plain(function, tracked)
    return functools.wraps(function)(wrapper)


def _plain(function: Callable[..., Any], tracked: _Tracked) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if recorder.active() is None:
            return function(*args, **kwargs)
        asked = tracked.read_arguments(args, kwargs)
        pending = recorder.begin()
        outer = carried.get()
        try:
            with tracked.under(pending):
                answer = function(*args, **kwargs)
        except BaseException as exc:
            carried.set(outer)  # a signal handler may raise before the block above is left
            tracked.failed(pending, exc, asked)
            raise
        tracked.answered(pending, answer, asked)
        return answer

    return wrapper


def _coroutine(function: Callable[..., Any], tracked: _Tracked) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        if recorder.active() is None:
            return await function(*args, **kwargs)
        asked = tracked.read_arguments(args, kwargs)
        pending = recorder.begin()
        outer = carried.get()
        try:
            with tracked.under(pending):
                answer = await function(*args, **kwargs)
        except BaseException as exc:
            carried.set(outer)  # a signal handler may raise before the block above is left
            tracked.failed(pending, exc, asked)
            raise
        tracked.answered(pending, answer, asked)
        return answer

    return wrapper


class _Stream:
    """What a generator yields, until it ends, fails or is closed by its caller."""

    def __init__(self, tracked: _Tracked, asked: dict[str, Any]) -> None:
        self._tracked = tracked
        self._asked = asked
        self._items: list[Any] = []
        self._pending = recorder.begin()

    def running(self) -> _Under:
        """Makes this call the parent only while the generator's own code runs."""
        return self._tracked.under(self._pending)

    def saw(self, item: Any) -> None:
        recorder.first_token(self._pending)
        if len(self._items) < MAX_KEPT_ITEMS:
            self._items.append(item)

    def ended(self, error: BaseException | None) -> None:
        if isinstance(error, StopIteration | StopAsyncIteration | None):
            self._tracked.answered(self._pending, self._answer(), self._asked)
        elif isinstance(error, GeneratorExit):
            self._tracked.cut_off(self._pending, self._answer(), self._asked)
        else:
            self._tracked.failed(self._pending, error, self._asked)

    def _answer(self) -> Any:
        if self._items and all(isinstance(item, str) for item in self._items):
            return "".join(self._items)
        return self._items


def _generator(function: Callable[..., Any], tracked: _Tracked) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner = function(*args, **kwargs)
        if recorder.active() is None:
            return (yield from inner)
        stream = _Stream(tracked, tracked.read_arguments(args, kwargs))
        advance: Callable[[], Any] = functools.partial(next, inner)
        try:
            while True:
                with stream.running():
                    item = advance()
                stream.saw(item)
                try:
                    sent = yield item
                    advance = functools.partial(inner.send, sent)
                except GeneratorExit:
                    with stream.running():
                        inner.close()
                    raise
                except BaseException as exc:  # noqa: BLE001 - the generator's own to handle
                    advance = functools.partial(inner.throw, exc)
        except StopIteration as stop:
            stream.ended(stop)
            return stop.value
        except BaseException as exc:
            stream.ended(exc)
            raise

    return wrapper


def _async_generator(function: Callable[..., Any], tracked: _Tracked) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner = function(*args, **kwargs)
        stream = _Stream(tracked, tracked.read_arguments(args, kwargs))
        advance: Callable[[], Any] = functools.partial(anext, inner)
        try:
            while True:
                with stream.running():
                    item = await advance()
                stream.saw(item)
                try:
                    sent = yield item
                    advance = functools.partial(inner.asend, sent)
                except GeneratorExit:
                    with stream.running():
                        await inner.aclose()
                    raise
                except BaseException as exc:  # noqa: BLE001 - the generator's own to handle
                    advance = functools.partial(inner.athrow, exc)
        except StopAsyncIteration as stop:
            stream.ended(stop)
        except BaseException as exc:
            stream.ended(exc)
            raise

    return wrapper


def _parameter_names(function: Callable[..., Any]) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return tuple(parameter.name for parameter in parameters if parameter.kind in positional)


def _is_named(prompt: Prompt) -> bool:
    """Whether somebody said which prompt this is; a function's signature only guesses."""
    return prompt.name is not None or prompt.version is not None


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _qualified_name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}"
