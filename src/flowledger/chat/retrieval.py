"""Looking passages up: by words, by vectors where there are any, and both ranked together."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from flowledger.capture import recorder, track_rag
from flowledger.chat.embedding import embedded
from flowledger.chat.library import Document, Library, opened
from flowledger.chat.library.files import read_document
from flowledger.chat.steps import Source

__all__ = ["as_document", "evidence", "is_empty", "look_up", "words_of"]

MOST_WORDS = 32
# How many of each list are ranked together, and how much the first places count.
# Source: Cormack, Clarke, Büttcher, "Reciprocal rank fusion", SIGIR 2009.
DEPTH = 100
RANK_CONSTANT = 60
HALF = 0.5
NEAR = 0.5
# So common that they say nothing of what is looked for.
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a about all an and any are as at be been but by can could did do does for from had has have
        he her his how i if in into is it its me my no not of on or our she should so some than that
        the their them then there these they this those to us was we were what when where which who
        why will with would you your
        """,
    )
)

_word = re.compile(r"\w+")


def is_empty() -> bool:
    """Whether there is no document to look anything up in."""
    return opened().is_empty()


@track_rag(operation="retrieve")
def look_up(query: str, limit: int) -> list[Source]:
    """The passages that say most about the query, best first, numbered from 1.

    Raises:
        DocumentError: the library cannot be read.
        ProviderError: the endpoint of the embedding model failed.
    """
    settings = recorder.settings()
    library = opened()
    depth = DEPTH if settings.embedding_model else limit
    rankings = [library.by_words(words_of(query), depth)]
    near: dict[int, float] = {}
    if settings.embedding_model:
        near = dict(library.by_vector(embedded([query], settings)[0], depth))
        rankings.append(list(near.items()))
    return _sources(library, _best(rankings)[:limit], near)


def words_of(query: str) -> list[str]:
    """The query's words to look for, each once; all of them when they are all common."""
    words = dict.fromkeys(_word.findall(query.lower()))
    telling = [word for word in words if word not in STOP_WORDS]
    return (telling or list(words))[:MOST_WORDS]


def evidence(question: str, sources: Sequence[Source]) -> str:
    """Why these passages may hold the answer, or nothing when they do not look like it."""
    words = words_of(question)
    for source in sources:
        text = set(_word.findall(source.text.lower()))
        held = [word for word in words if _is_in(word, text)]
        if len(held) >= max(2, HALF * len(words)):
            return f"{_short(source.source)} holds {len(held)} of the question's {len(words)} words"
        if source.similarity is not None and source.similarity >= NEAR:
            return f"{_short(source.source)} is near to the question ({source.similarity:.2f})"
    return ""


def as_document(path: Path, known: dict[str, tuple[str, str]]) -> Document | None:
    """A file as a document with its vectors, or None when the library has it already.

    Args:
        path: the file.
        known: digest and embedding model of each document in the library, by source.

    Raises:
        DocumentError, ConfigError, ProviderError: it cannot be read, or has no vectors.
    """
    settings = recorder.settings()
    document = read_document(path)
    if known.get(document.source) == (document.digest, settings.embedding_model):
        return None
    if not settings.embedding_model:
        return document
    vectors = embedded([passage.text for passage in document.passages], settings)
    return msgspec.structs.replace(document, embedding=settings.embedding_model, vectors=vectors)


def _best(rankings: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[int, float]]:
    """One list alone as it is; more of them by reciprocal rank fusion."""
    if len(rankings) == 1:
        return list(rankings[0])
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, (one, _) in enumerate(ranking, 1):
            scores[one] = scores.get(one, 0.0) + 1 / (RANK_CONSTANT + rank)
    return sorted(scores.items(), key=lambda pair: -pair[1])


def _sources(
    library: Library, best: Sequence[tuple[int, float]], near: dict[int, float]
) -> list[Source]:
    found = library.passages([one for one, _ in best])
    there = [(found[one], score) for one, score in best if one in found]
    return [
        Source(
            number=number,
            source=passage.source,
            place=passage.place,
            text=passage.text,
            score=score,
            similarity=near.get(passage.id),
        )
        for number, (passage, score) in enumerate(there, 1)
    ]


def _is_in(word: str, text: set[str]) -> bool:
    """Whether a text holds the word, or one that differs in its ending."""
    stem = word[: max(4, len(word) - 3)]
    return word in text or (len(word) > 4 and any(one.startswith(stem) for one in text))


def _short(source: str) -> str:
    return Path(source).name
