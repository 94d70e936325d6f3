"""`track_vision`, `track_text`, `track_image`, `track_rag`, `track_custom`: `track` for one kind.

Beside what `track` keeps, they read model and settings from the function's arguments, and tokens,
cost, confidence, similarity and counts from what it returns.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar, Unpack, overload

from flowledger.asynchronous import reraise_asynchronous
from flowledger.capture.measures import SETTINGS, measure
from flowledger.capture.reading import Reading
from flowledger.capture.tracking import Reader, tracking
from flowledger.records import Kind

__all__ = ["track_custom", "track_image", "track_rag", "track_text", "track_vision"]

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[F], F]


class _More(TypedDict, total=False):
    """What else may be said of every call; see `flowledger.track`."""

    provider: str | None
    model: str | None
    experiment: str | None
    params: Mapping[str, Any] | None
    tags: Mapping[str, Any] | None
    content: bool


class _Kind:
    """A decorator for functions of one kind, used as `@it`, `@it("feature", "operation")`."""

    def __init__(self, kind: Kind, doc: str) -> None:
        self._kind = kind
        self.__doc__ = doc

    @overload
    def __call__(self, feature: F, /) -> F: ...
    @overload
    def __call__(
        self,
        feature: str | None = None,
        operation: str | None = None,
        **more: Unpack[_More],
    ) -> Decorator[Any]: ...
    def __call__(
        self, feature: Any = None, operation: str | None = None, **more: Unpack[_More]
    ) -> Any:
        reader = Reader(self._asked, self._answered)
        if callable(feature):
            return tracking(feature, reader, kind=self._kind)
        return lambda function: tracking(
            function, reader, kind=self._kind, feature=feature, operation=operation, **more
        )

    def _asked(self, named: Mapping[str, Any]) -> dict[str, Any]:
        if self._kind == Kind.CUSTOM:
            return {}
        model = named.get("model")
        settings = {name: named[name] for name in SETTINGS if named.get(name) is not None}
        told = {"settings": settings} if settings else {}
        return {**told, "model_asked": model} if isinstance(model, str) else told

    def _answered(self, answer: Any) -> Reading:
        try:
            return measure(answer, self._kind)
        except Exception as exc:  # noqa: BLE001 - the application's objects may raise anything
            reraise_asynchronous(exc)
            return Reading(response=answer)


track_text = _Kind(Kind.CHAT, "Record a function that asks a model for text.")
track_vision = _Kind(Kind.VISION, "Record a function that shows a model an image.")
track_image = _Kind(Kind.IMAGE, "Record a function that has a model draw: its images are counted.")
track_rag = _Kind(Kind.RETRIEVAL, "Record a function that looks documents up: count, similarity.")
track_custom = _Kind(Kind.CUSTOM, "Record a function: every number it returns is a metric.")
