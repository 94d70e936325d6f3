"""`call`: a call under way whose parts become known one after another."""

from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import msgspec

from flowledger.capture import recorder
from flowledger.capture.context import Pending
from flowledger.capture.explicit import given_outcome, given_usage
from flowledger.capture.freezing import freeze_fields
from flowledger.capture.runs import Run
from flowledger.capture.tracking import inside
from flowledger.records import Kind, Usage

__all__ = ["OpenCall", "call"]


def call(
    operation: str,
    *,
    feature: str | None = None,
    kind: str = Kind.CHAT,
    provider: str | None = None,
    model: str | None = None,
    prompt: Any = None,
    settings: Mapping[str, Any] | None = None,
    experiment: str | None = None,
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
) -> "OpenCall":
    """A call that is recorded when its block ends: `with flowledger.call("classify") as call:`.

    For code that no decorator fits, because model, answer or scores become known step by step. What
    is logged on it, or with `flowledger.log_metric` and its like inside, is part of the call. What
    is raised inside makes it a failure and is raised again.

    Args:
        operation, feature, kind, provider, model, prompt: what is asked of whom.
        settings: request settings such as `temperature` and `max_tokens`.
        experiment: MLflow experiment, when not the feature's.
        params, tags: your own, written beside ours.
    """
    fields = {
        "operation": operation,
        "feature": feature,
        "kind": kind,
        "provider": provider,
        "model_asked": model,
        "prompt": prompt,
        "settings": settings,
        "experiment": experiment,
        "params": params,
        "tags": tags,
    }
    return OpenCall(fields)


class OpenCall(Run):
    """A call under way; `id` is its MLflow run id. Made by `flowledger.call`, for one use."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self._pending = recorder.begin()
        super().__init__(self._pending.id, late=self._pending)
        asked = {"prompt": fields["prompt"]}
        if type(fields["settings"]) is dict:
            asked["settings"] = fields["settings"]
        self._notes: list[str] = []
        self._fields = {**fields, **freeze_fields(asked, self._notes), "notes": self._notes}
        self._under = inside(
            self._pending, {name: fields[name] for name in ("feature", "experiment")}
        )

    def answered(
        self,
        response: Any = None,
        *,
        model: str | None = None,
        usage: Usage | Mapping[str, Any] | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """Say what came back.

        Args:
            response: text or plain JSON values.
            model: the one that answered.
            usage: the provider's numbers, a `Usage` or a map of its fields.
            input_tokens, output_tokens: short for a `usage` of these two.
            cost_usd: what it cost, when you know better than the price list.
        """
        notes = [*self._notes]
        read = given_usage(usage, input_tokens, output_tokens, notes)
        self._fields |= {"response": response, "usage": read, "cost_usd": cost_usd, "notes": notes}
        if model is not None:
            self._fields["model"] = model

    def failed(self, error: BaseException) -> None:
        """Say that it failed, where what went wrong is not raised through the block.

        Args:
            error: what was raised.
        """
        self._fields["outcome"] = given_outcome(False, error)

    def __enter__(self) -> Self:
        self._under.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(ValueError):  # begun in another task
            self._under.__exit__()
        if error is not None:
            self.failed(error)
        recorder.finish(self._pending, lambda: _told(self._fields, self._pending))


def _told(fields: dict[str, Any], pending: Pending) -> dict[str, Any]:
    """What is known of the call; tokens that calls inside have told are not told again."""
    maps = {name: dict(fields[name] or {}) for name in ("params", "tags")}
    settings = fields["settings"]
    if not isinstance(settings, msgspec.Raw):
        maps["settings"] = dict(settings or {})
    known = {**fields, **maps, "kind": str(fields["kind"])}
    return known | ({"usage": None, "cost_usd": None} if pending.counted else {})
