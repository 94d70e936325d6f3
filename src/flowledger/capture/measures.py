"""What a function's answer measures: tokens, cost, confidence, similarity, how many documents.

An answer may be an SDK's object, a dict, a dataclass or a pydantic model. It is read by the names
people give these things; what it does not name is not made up.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from flowledger.capture.reading import Reading, field, read_answer, read_usage
from flowledger.records import Kind, Usage

__all__ = ["SETTINGS", "measure"]

SETTINGS = ("temperature", "max_tokens", "top_p", "seed", "size", "quality", "style", "n")
USAGE = ("usage", "token_usage", "usage_metadata")
TOKENS = ("tokens_used", "total_tokens", "tokens")
COST = ("cost_usd", "total_cost", "api_cost", "cost")
CONFIDENCE = ("confidence_score", "confidence", "overall_confidence")
MODEL = ("model", "model_id", "model_name")
DOCUMENTS = ("documents", "source_documents", "docs", "chunks", "results", "matches", "sources")
COUNTS = ("documents_count", "document_count", "num_documents", "retrieved_docs")
SIMILARITY = ("similarity", "similarity_score", "score", "relevance_score")
SIMILARITIES = ("similarities", "similarity_scores", "scores")
IMAGES = ("data", "images", "image_urls", "urls")
IMAGE = ("url", "image_url", "b64_json", "image", "image_path")
PLAIN = (str, bytes, int, float)


def measure(answer: Any, kind: Kind) -> Reading:
    """What the answer says and measures, for a call of this kind.

    Metrics: `tokens_used` and `confidence_score` of any kind; `documents_count`, `similarity_max`
    and `similarity_avg` of a retrieval; every number at the top of a custom answer by its own
    name. An image call's pictures are counted in its usage.
    """
    reading = read_answer(answer)
    if answer is None or isinstance(answer, PLAIN):
        told = Reading(response=answer)
    else:
        usage = reading.usage or _usage(answer)
        model = field(answer, *MODEL)
        told = msgspec.structs.replace(
            reading,
            model=reading.model or (model if isinstance(model, str) else None),
            usage=usage,
            cost_usd=_number(field(answer, *COST)),
            metrics=_measures(answer, usage, kind),
        )
    if kind == Kind.IMAGE and reading.usage is None:
        return msgspec.structs.replace(told, usage=Usage(images=len(_images(answer)) or None))
    return told


def _usage(answer: Any) -> Usage | None:
    """The answer's usage, under a name of its own or flat among the rest."""
    for holder in (field(answer, *USAGE), answer):
        usage = read_usage(holder) if holder is not None else None
        if usage is not None:
            return usage
    return None


def _measures(answer: Any, usage: Usage | None, kind: Kind) -> dict[str, float]:
    custom = _numbers(answer) if kind == Kind.CUSTOM else {}
    found = {
        "tokens_used": usage.total_tokens if usage else _number(field(answer, *TOKENS)),
        "confidence_score": _number(field(answer, *CONFIDENCE)),
        **(_retrieved(answer) if kind == Kind.RETRIEVAL else {}),
    }
    return {**custom, **{name: value for name, value in found.items() if value is not None}}


def _retrieved(answer: Any) -> dict[str, float | None]:
    documents = _documents(answer)
    told = None if isinstance(answer, list | tuple) else field(answer, *COUNTS)
    similarities = _similarities(answer, documents)
    return {
        "documents_count": len(documents) if documents is not None else _number(told),
        "similarity_max": max(similarities, default=None),
        "similarity_avg": sum(similarities) / len(similarities) if similarities else None,
    }


def _documents(answer: Any) -> list[Any] | None:
    found = answer if isinstance(answer, list | tuple) else field(answer, *DOCUMENTS)
    return list(found) if isinstance(found, list | tuple) else None


def _similarities(answer: Any, documents: list[Any] | None) -> list[float]:
    """Scores given as a list beside the documents, in each of them, or paired with each."""
    listed = None if isinstance(answer, list | tuple) else field(answer, *SIMILARITIES)
    values: Iterable[Any] = listed if isinstance(listed, list | tuple) else ()
    if not values:
        values = [_similarity(one) for one in documents or ()]
    if not any(value is not None for value in values) and not isinstance(answer, list | tuple):
        values = [field(answer, *SIMILARITY)]
    return [number for value in values if (number := _number(value)) is not None]


def _similarity(document: Any) -> Any:
    if isinstance(document, tuple):  # as LangChain pairs them: (document, score)
        return document[-1] if document else None
    found = field(document, *SIMILARITY)
    return field(field(document, "metadata"), *SIMILARITY) if found is None else found


def _images(answer: Any) -> list[Any]:
    if isinstance(answer, str | bytes):
        return [answer]
    if isinstance(answer, list | tuple):
        return list(answer)
    found = field(answer, *IMAGES) if answer is not None else None
    if isinstance(found, list | tuple):
        return list(found)
    return [] if answer is None or field(answer, *IMAGE) is None else [answer]


def _numbers(answer: Any) -> dict[str, float]:
    """Every number at the top of the answer; true is 1 and false is 0."""
    top = answer if isinstance(answer, Mapping) else getattr(answer, "__dict__", None) or {}
    pairs = ((str(name), _number(value)) for name, value in dict(top).items())
    return {name: n for name, n in pairs if n is not None and not name.startswith("_")}


def _number(value: Any) -> float | None:
    if isinstance(value, str) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
