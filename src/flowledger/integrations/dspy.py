"""Recording DSPy programs: each LM call as a call, each module, evaluation and optimiser around it.

`instrument()` is all it takes. What DSPy calls inside something else becomes its inner call, as
with tracked functions; a module never carries the tokens of the calls inside it.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

# litellm, which DSPy may use, otherwise fetches a price list when it is loaded.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

import dspy
import msgspec
from dspy.utils.callback import ACTIVE_CALL_ID, BaseCallback

from flowledger import config, logs
from flowledger.asynchronous import reraise_asynchronous
from flowledger.capture import recorder
from flowledger.capture.context import Context, carried
from flowledger.capture.freezing import freeze_fields
from flowledger.capture.reading import read_reply
from flowledger.integrations.sdk_endpoints import SECRET_FIELDS
from flowledger.records import NO_PROMPT, Kind, Prompt

__all__ = ["FlowledgerCallback", "instrument", "prompt_version"]

Fields = dict[str, Any]

KINDS = {"chat": Kind.CHAT, "responses": Kind.CHAT, "text": Kind.COMPLETION}
VERSION_LENGTH = 16
NEWEST = 1000  # how far back a call's own entry is looked for among those of other threads


def instrument(feature: str | None = None) -> bool:
    """Record everything that DSPy does from now on, once however often this is called.

    Args:
        feature: of the calls that no context names one for.

    Returns:
        Whether it is recorded: not when recording is off, or where DSPy lets only another thread
        configure it.
    """
    if not config.switched_on():
        return False
    callbacks = dspy.settings.get("callbacks", [])
    if any(isinstance(one, FlowledgerCallback) for one in callbacks):
        return True
    try:
        dspy.configure(callbacks=[*callbacks, FlowledgerCallback(feature)])
    except RuntimeError as exc:
        logs.warn("dspy", "DSPy is not recorded: %s", exc)
        return False
    return True


def prompt_version(signature: Any) -> Prompt:
    """The version of a signature: a hash of its instructions and its fields, demos apart."""
    fields = [
        (name, str(field.annotation), (field.json_schema_extra or {}).get("desc"))
        for part in (signature.input_fields, signature.output_fields)
        for name, field in part.items()
    ]
    digest = hashlib.sha256(repr((signature.instructions, fields)).encode("utf-8", "replace"))
    return _version(signature.__name__, digest.hexdigest())


class FlowledgerCallback(BaseCallback):  # type: ignore[misc]
    """What `dspy.configure(callbacks=[...])` takes; `instrument()` does that for you.

    Args:
        feature: of the calls that no context names one for.
    """

    def __init__(self, feature: str | None = None) -> None:
        self._feature = feature
        self._open: dict[str, _Open] = {}

    def on_lm_start(self, call_id: str, instance: Any, inputs: Fields) -> None:
        """A model is about to be asked."""
        self._begin(call_id, instance, inputs, NO_PROMPT, _lm_asked(instance, inputs))

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """A model answered or failed."""
        self._end(call_id, exception, lambda opened: _lm_fields(opened, outputs))

    def on_module_start(self, call_id: str, instance: Any, inputs: Fields) -> None:
        """A module begins; the calls inside it use its prompt."""
        self._begin(call_id, instance, inputs, _prompt_of(instance), _module_asked(inputs))

    def on_module_end(
        self, call_id: str, outputs: Any, exception: BaseException | None = None
    ) -> None:
        """A module ended."""
        self._end(call_id, exception, lambda opened: _module_fields(opened, outputs))

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: Fields) -> None:
        """A program is about to be tried on examples."""
        self._begin(call_id, instance, inputs, _prompt_of(inputs.get("program")))

    def on_evaluate_end(
        self, call_id: str, outputs: Any, exception: BaseException | None = None
    ) -> None:
        """A program was tried; inside an optimiser that is one of its iterations."""
        self._end(call_id, exception, lambda opened: _evaluate_fields(opened, outputs))

    def on_compile_start(self, call_id: str, instance: Any, inputs: Fields) -> None:
        """An optimiser begins with its student."""
        self._begin(call_id, instance, inputs, _prompt_of(inputs.get("student")))

    def on_compile_end(
        self, call_id: str, outputs: Any, exception: BaseException | None = None
    ) -> None:
        """An optimiser has its program."""
        self._end(call_id, exception, lambda opened: _compile_fields(opened, outputs))

    def _begin(
        self,
        call_id: str,
        instance: Any,
        inputs: Fields,
        prompt: Prompt,
        asked: Fields | None = None,
    ) -> None:
        if recorder.active() is None:
            return
        parent = self._open.get(ACTIVE_CALL_ID.get() or "")
        outer = carried.get()
        # DSPy's own threads know their parent even where our context did not reach them.
        if parent is not None and outer.parent is None:
            outer = parent.inside
        if outer.feature is None and self._feature is not None:
            outer = msgspec.structs.replace(outer, feature=self._feature)
        if prompt is not NO_PROMPT:
            outer = msgspec.structs.replace(outer, prompt_version=prompt)
        self._open[call_id] = opened = _Open(instance, inputs, outer, parent, asked)
        carried.set(opened.inside)

    def _end(
        self,
        call_id: str,
        exception: BaseException | None,
        read: Callable[["_Open"], Fields],
    ) -> None:
        opened = self._open.pop(call_id, None)
        if opened is None:
            return
        carried.set(opened.outer)
        try:
            recorder.finish(opened.pending, lambda: _ended(opened, read(opened), exception))
        finally:
            carried.set(opened.before)


class _Open:
    """Something of DSPy's under way: `inside` is the context of what it calls."""

    def __init__(
        self,
        instance: Any,
        inputs: Fields,
        outer: Context,
        parent: "_Open | None",
        asked: Fields | None,
    ) -> None:
        self.instance = instance
        self.notes: list[str] = []
        self.asked = freeze_fields(asked or {}, self.notes)
        self.inputs = inputs
        self.parent = parent
        self.before = carried.get()
        self.outer = outer
        self.pending = recorder.begin()
        self.inside = msgspec.structs.replace(outer, parent=self.pending)
        self.scores: list[float] = []


def _ended(opened: _Open, fields: Fields, exception: BaseException | None) -> Fields:
    kind = type(opened.instance)
    fields["function"] = f"{kind.__module__}.{kind.__qualname__}"
    fields["notes"] = opened.notes
    fields["tags"] = {"dspy_version": dspy.__version__, **fields.get("tags", {})}
    if opened.pending.counted:  # a client inside, recorded itself, has told the tokens already
        fields |= {"usage": None, "model": None}
    if exception is not None:
        fields["outcome"] = recorder.failure(exception)
    return fields


def _lm_fields(opened: _Open, outputs: Any) -> Fields:
    lm = opened.instance
    entry = _history_entry(lm, outputs)
    provider, _, model = lm.model.rpartition("/")
    answers = outputs if isinstance(outputs, list) else [] if outputs is None else [outputs]
    reading = read_reply({"choices": [{"message": _message(answer)} for answer in answers]})
    told = read_reply({"usage": entry.get("usage"), "model": entry.get("response_model")})
    return {
        "operation": "lm",
        "kind": str(KINDS.get(lm.model_type, Kind.CHAT)),
        "provider": provider.partition("/")[0] or None,
        "model_asked": model,
        "model": told.model,
        **opened.asked,
        **_own_messages(opened, entry),
        "response": reading.response if answers else None,
        "tool_calls": reading.tool_calls,
        "usage": told.usage,
    }


def _history_entry(lm: Any, outputs: Any) -> Fields:
    """What DSPy noted of this very call: other threads may have called the same LM meanwhile."""
    if outputs is None:
        return {}
    newest = reversed(lm.history[-NEWEST:])
    ours = (e for e in newest if outputs is e.get("outputs") or outputs is e.get("response"))
    return next(ours, {})


def _message(answer: Any) -> Fields:
    """One answer of an LM: its text, or a map where it has more than text."""
    if isinstance(answer, Mapping):
        return {"content": answer.get("text"), "tool_calls": answer.get("tool_calls")}
    text = answer if isinstance(answer, str) else getattr(answer, "text", None)
    return {"content": text if isinstance(text, str) else str(answer)}


def _own_messages(opened: _Open, entry: Fields) -> Fields:
    """The messages of a request of DSPy's own kind, which only its history has as plain values."""
    asked = opened.inputs.get("messages") or opened.inputs.get("prompt")
    plain = isinstance(asked, dspy.lm15.Request) and "messages" in entry
    return {"prompt": entry["messages"]} if plain else {}


def _lm_asked(lm: Any, inputs: Fields) -> Fields:
    settings = _settings({**lm.kwargs, **(inputs.get("kwargs") or {})})
    return {"prompt": inputs.get("messages") or inputs.get("prompt"), "settings": settings}


def _module_asked(inputs: Fields) -> Fields:
    args, kwargs = inputs.get("args") or (), inputs.get("kwargs") or {}
    return {"prompt": {**kwargs, **({"args": list(args)} if args else {})}}


def _settings(given: Fields) -> Fields:
    return {
        name: value.__name__ if isinstance(value, type) else value
        for name, value in given.items()
        if value is not None and not any(word in name.lower() for word in (*SECRET_FIELDS, "api_"))
    }


def _module_fields(opened: _Open, outputs: Any) -> Fields:
    return {
        **opened.asked,
        "operation": type(opened.instance).__name__,
        "response": outputs.toDict() if hasattr(outputs, "toDict") else outputs,
    }


def _evaluate_fields(opened: _Open, outputs: Any) -> Fields:
    inputs, evaluate = opened.inputs, opened.instance
    metric = inputs.get("metric") or evaluate.metric
    score = _score(outputs)
    metrics: Fields = {"examples": len(inputs.get("devset") or evaluate.devset)}
    if score is not None:
        metrics["score"] = score
    if opened.parent is not None:
        if score is not None:
            opened.parent.scores.append(score)
        metrics["iteration"] = len(opened.parent.scores)
    return {
        "operation": "evaluate",
        "params": {
            "program": type(inputs.get("program")).__name__,
            "metric": getattr(metric, "__name__", type(metric).__name__),
            **(inputs.get("callback_metadata") or {}),
        },
        "metrics": metrics,
    }


def _compile_fields(opened: _Open, outputs: Any) -> Fields:
    scores, metrics = opened.scores, {}
    after = _score(outputs)
    if scores:
        metrics = {"iterations": len(scores), "score_before": scores[0]}
        metrics["score_after"] = max(scores) if after is None else after
    return {
        "operation": f"{type(opened.instance).__name__}.compile",
        "params": {
            "student": type(opened.inputs.get("student")).__name__,
            "trainset": len(opened.inputs.get("trainset") or ()),
        },
        "metrics": metrics,
        "tags": {"optimized_prompt_version": _prompt_of(outputs).version} if outputs else {},
    }


def _score(outputs: Any) -> float | None:
    score = getattr(outputs, "score", None)
    return float(score) if isinstance(score, int | float) else None


def _prompt_of(program: Any) -> Prompt:
    """The version of a program's prompt: of its one signature, or of all of them together."""
    try:
        versions = [prompt_version(each.signature) for each in program.predictors()]
    except Exception as exc:  # noqa: BLE001 - a program is the application's own code
        reraise_asynchronous(exc)
        return NO_PROMPT
    if len(versions) < 2:
        return versions[0] if versions else NO_PROMPT
    together = hashlib.sha256("".join(one.hash or "" for one in versions).encode())
    return _version(type(program).__name__, together.hexdigest())


def _version(name: str, digest: str) -> Prompt:
    return Prompt(name=name, version=digest[:VERSION_LENGTH], hash=digest)
