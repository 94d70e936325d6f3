"""Jobs and their stages: a run with runs nested in it, and one trace for all of it."""

import functools
import inspect
import os
import time
from collections.abc import Callable, Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

import msgspec

from flowledger import config, logs, records
from flowledger.capture import recorder
from flowledger.capture.context import Context, Pending, carried, leave, within
from flowledger.capture.recorder import DEFAULT_EXPERIMENT, Recorder
from flowledger.capture.runs import Run, guarded
from flowledger.records import Outcome, Place, new_id

__all__ = ["Job", "job"]

P = ParamSpec("P")
R = TypeVar("R")


def job(
    name: str,
    *,
    feature: str | None = None,
    experiment: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
) -> "Job":
    """A piece of work: one run in MLflow, with the calls made inside nested in it, and one trace.

    Use it as `with flowledger.job("name") as job:`, or as a decorator of a function or coroutine,
    each call of which is then a job. A job inside another is nested in it. What is raised inside
    marks the run FAILED and is raised again. Who asks is said by `flowledger.context`.

    Args:
        name: of the run.
        feature: feature of the job, and of calls inside that name none.
        experiment: MLflow experiment, when not the feature's; calls inside go there too.
        params, tags: written when the job begins.
    """
    return Job(name, feature=feature, experiment=experiment, params=params, tags=tags)


class Job(Run):
    """A job or stage; its run is there, as RUNNING, from its beginning on.

    `id` is the MLflow run id. Made by `flowledger.job` and `Job.stage`.
    """

    def __init__(
        self,
        name: str,
        *,
        feature: str | None = None,
        experiment: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        outer: "Job | None" = None,
    ) -> None:
        super().__init__(new_id())
        self._given = {"name": name, "feature": feature, "experiment": experiment}
        self._params = params
        self._tags = tags
        self._outer = outer
        self._inside: Context | None = None
        self._begun: records.Job | None = None
        self._token: Token[Context] | None = None
        self._started = 0
        self._pid = 0

    def stage(
        self,
        name: str,
        *,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
    ) -> "Job":
        """A step of this job: a run nested in the job's, with `latency_seconds`, and a span.

        Args:
            name: of the run.
            params, tags: written when the stage begins.
        """
        return Job(name, params=params, tags=tags, outer=self)

    def __enter__(self) -> Self:
        if self._started:
            self.id = new_id()  # begun once more: another run
        self._started = time.perf_counter_ns()
        guarded(self._begin)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        duration = time.perf_counter_ns() - self._started
        if self._token is not None:
            leave(self._token)
            self._token = None
        if self._begun is not None and self._pid == os.getpid():
            begun = self._begun
            guarded(lambda active: _end(active, begun, duration, error))

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Make every call of a function or coroutine a job of its own."""
        if not config.switched_on():
            return function
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            logs.warn("capture", "%r is no job: use `with` inside a generator", function)
            return cast(Callable[P, R], function)
        wrapper = self._coroutine if inspect.iscoroutinefunction(function) else self._function
        return cast(Callable[P, R], functools.wraps(function)(wrapper(function)))

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return function(*args, **kwargs)

        return run

    def _coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def run(*args: Any, **kwargs: Any) -> Any:
            with self._again():
                return await function(*args, **kwargs)

        return run

    def _again(self) -> "Job":
        name = str(self._given["name"])
        own = {key: value for key, value in self._given.items() if key != "name"}
        return Job(name, params=self._params, tags=self._tags, outer=self._outer, **own)

    def _begin(self, active: Recorder) -> None:
        self._begun, self._pid = None, os.getpid()
        outer = self._around()
        begun = self._record(active, outer)
        self._experiment = begun.experiment
        place = begun.place
        if place is None:
            root = Place(root_id=self.id, parent_id=self.id, experiment=begun.experiment)
        else:
            root = within(place, self.id)
        self._inside = msgspec.structs.replace(
            outer,
            feature=begun.feature,
            experiment=self._inherited(outer, begun),
            parent=Pending(self.id, begun.start_ns, self._started),
            run=self,
            place=root,
            late=None,
        )
        self._token = carried.set(self._inside)
        self._begun = begun
        active.keep(begun)

    def _around(self) -> Context:
        """The context around: a stage has its job's wherever it begins."""
        here, job = carried.get(), self._outer
        if job is None or job._inside is None:
            return here
        base = job._inside if here.run is None else here
        inside = job._inside
        return msgspec.structs.replace(
            base,
            feature=inside.feature,
            experiment=inside.experiment,
            parent=inside.parent,
            place=inside.place,
            late=None,
        )

    def _record(self, active: Recorder, outer: Context) -> records.Job:
        now, given = time.time_ns(), self._given
        actor = active.placed(outer.actor)
        feature = given["feature"] or outer.feature
        around = self._outer._experiment if self._outer else None
        experiment = (
            given["experiment"]
            or around
            or outer.experiment
            or active.experiment_of(feature, actor, now, given["name"])
        )
        return records.Job(
            id=self.id,
            start_ns=now,
            running=True,
            name=str(given["name"]),
            feature=feature,
            experiment=experiment or DEFAULT_EXPERIMENT,
            actor=actor,
            parent_id=None if outer.parent is None else outer.parent.id,
            place=outer.job_place,
            params=dict(self._params or {}),
            tags={**outer.tags, **(self._tags or {})},
        )

    def _inherited(self, outer: Context, begun: records.Job) -> str | None:
        """Calls inside go to the job's experiment, unless nobody named any."""
        named = self._given["experiment"] or outer.experiment or begun.feature
        return begun.experiment if named else None


def _end(
    active: Recorder, begun: records.Job, duration_ns: int, error: BaseException | None
) -> None:
    outcome = Outcome() if error is None else recorder.failure(error)
    ended = msgspec.structs.replace(begun, running=False, duration_ns=duration_ns, outcome=outcome)
    active.keep(ended)
