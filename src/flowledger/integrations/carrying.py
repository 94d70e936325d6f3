"""What comes with a request or a message from outside and says who asks and why: checked first."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from flowledger import logs
from flowledger.asynchronous import reraise_asynchronous
from flowledger.capture.context import Context, told

__all__ = ["ACTOR", "checked", "extracted", "fields_of", "packed", "unpacked"]

S = TypeVar("S")

ACTOR = ("user_id", "session_id", "persona_id", "user_role", "audit_reason", "environment")
NAMES = (*ACTOR, "feature", "experiment", "prompt_name", "prompt_version")
LONGEST = {"audit_reason": 1000}
LONGEST_VALUE = 256
MOST_TAGS = 20


def checked(name: str, value: object) -> str | None:
    """The value as text for this field, or None when it is empty, too long, or not printable."""
    if value is None:
        return None
    text = told(value).strip()
    if not text:
        return None
    if len(text) > LONGEST.get(name, LONGEST_VALUE) or not text.isprintable():
        logs.warn("context", "a value given for %s is left out: too long, or not printable", name)
        return None
    return text


def fields_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `flowledger.context` out of these names: what it does not know becomes a tag."""
    tags = given.get("tags")
    rest = {str(k): v for k, v in given.items() if k not in (*NAMES, "tags")}
    labels = {**(tags if isinstance(tags, Mapping) else {}), **rest}
    fields: dict[str, Any] = {
        name: text for name in NAMES if (text := checked(name, given.get(name))) is not None
    }
    kept = {
        key: text
        for key, value in list(labels.items())[:MOST_TAGS]
        if checked("a tag's name", key) == key and (text := checked(key, value)) is not None
    }
    return {**fields, "tags": kept}


def extracted(
    extractors: Iterable[Callable[[S], Mapping[str, Any] | None]], source: S
) -> dict[str, Any]:
    """What these extractors say together, later ones winning; one that raises says nothing."""
    given: dict[str, Any] = {}
    for extractor in extractors:
        try:
            given.update({k: v for k, v in (extractor(source) or {}).items() if v is not None})
        except Exception as exc:  # noqa: BLE001 - the application's own code may raise anything
            reraise_asynchronous(exc)
            logs.warn("context", "an extractor raised %s and is left out", type(exc).__name__)
    return fields_of(given)


def packed(context: Context) -> dict[str, Any]:
    """The context as plain texts, for a message to another process."""
    actor, prompt = context.actor, context.prompt_version
    given = {
        **{name: getattr(actor, name) for name in ACTOR},
        "feature": context.feature,
        "experiment": context.experiment,
        "prompt_name": prompt.name,
        "prompt_version": prompt.version,
        "tags": context.tags,
    }
    fields = fields_of(given)
    return fields if fields["tags"] else {k: v for k, v in fields.items() if k != "tags"}


def unpacked(message: object) -> dict[str, Any]:
    """Arguments of `flowledger.context` from what `packed` made, or somebody else sent."""
    return fields_of(message) if isinstance(message, Mapping) else {}
