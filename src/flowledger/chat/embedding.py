"""Vectors of texts, from the endpoint that OpenAI-compatible servers share."""

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from flowledger.chat.failures import translated
from flowledger.chat.providers import find
from flowledger.config import Settings

__all__ = ["embedded"]

TEXTS_A_REQUEST = 128


def embedded(texts: Sequence[str], settings: Settings) -> list[bytes]:
    """A unit vector for each text, as 32-bit floats, of the model the settings name.

    Raises:
        ProviderError: the endpoint failed.
        ChatInputError: no provider is known for the model.
    """
    provider = find(settings.embedding_model, settings)
    create = provider.client().embeddings.create
    vectors: list[bytes] = []
    for batch in _batches(texts):
        try:
            answer = create(model=provider.model, input=batch)
            vectors += [_unit(item.embedding) for item in _in_order(answer)]
        except Exception as exc:  # noqa: BLE001 - a client may raise anything
            # What the endpoint said may quote the key, and this is recorded with its causes.
            raise translated(exc, provider) from None
    return vectors


def _in_order(answer: Any) -> list[Any]:
    return sorted(answer.data, key=lambda item: item.index)


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), TEXTS_A_REQUEST):
        yield list(texts[start : start + TEXTS_A_REQUEST])


def _unit(numbers: Sequence[float]) -> bytes:
    length = math.sqrt(math.fsum(number * number for number in numbers)) or 1.0
    return array("f", [number / length for number in numbers]).tobytes()
