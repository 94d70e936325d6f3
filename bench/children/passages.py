"""A library of many passages, and the floors under it: plain FTS5, and numpy over every vector."""

import itertools
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.processes import argument, serve
from flowledger.chat.library import Document, Library, Passage
from flowledger.chat.library.postgres import PostgresLibrary
from flowledger.chat.library.sqlite import SqliteLibrary

WORDS, COMMON, WORDS_A_PASSAGE, ASKED = 50_000, 100, 130, 5
PASSAGES_A_DOCUMENT, DOCUMENTS_A_BATCH = 20, 100
PASSAGES_A_POINT, SPREAD = 50, 0.8
FOUND = 10
PLAIN = "CREATE VIRTUAL TABLE plain USING fts5 (text, tokenize='porter unicode61')"

place: str = argument()["place"]
folder = Path(argument()["folder"])
source = random.Random(5)
vocabulary = [
    "".join(source.choices("abcdefghijklmnopqrstuvwxyz", k=source.randint(3, 10)))
    for _ in range(WORDS)
]
# A word is used as often as its rank says, as in any language.
weights = list(itertools.accumulate(1 / rank for rank in range(1, WORDS + 1)))
numbers = np.random.default_rng(5)
matrix: NDArray[np.float32] = np.empty((0, 0), np.float32)
texts: list[str] = []
library: Library = (
    SqliteLibrary(Path(place.removeprefix("sqlite:///")))
    if place.startswith("sqlite")
    else PostgresLibrary(place)
)
plain = sqlite3.connect(folder / "plain.db", isolation_level=None)


def make(passages: int, dimensions: int) -> None:
    """Make texts of a Zipf vocabulary, and unit vectors around some points."""
    global matrix, texts
    texts = [
        " ".join(source.choices(vocabulary, cum_weights=weights, k=WORDS_A_PASSAGE))
        for _ in range(passages)
    ]
    if dimensions:
        points = numbers.standard_normal((passages // PASSAGES_A_POINT, dimensions), np.float32)
        matrix = points[numbers.integers(0, len(points), passages)]
        matrix += SPREAD * numbers.standard_normal((passages, dimensions), np.float32)
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)


def fill(vectors: bool) -> float:
    """Seconds to add every passage."""
    started = time.perf_counter()
    documents = _documents(vectors)
    while batch := list(itertools.islice(documents, DOCUMENTS_A_BATCH)):
        library.add(batch)
    return time.perf_counter() - started


def fill_plain() -> float:
    """Seconds to put every text into plain FTS5."""
    plain.execute("PRAGMA journal_mode = WAL")
    plain.execute(PLAIN)
    started = time.perf_counter()
    plain.execute("BEGIN")
    plain.executemany("INSERT INTO plain VALUES (?)", ((text,) for text in texts))
    plain.execute("COMMIT")
    return time.perf_counter() - started


def by_words(times: int) -> list[float]:
    """Seconds of each search by words, the passages read."""
    return _timed(
        times, _some_words, lambda words: library.passages(_ids(library.by_words(words, FOUND)))
    )


def by_plain(times: int) -> list[float]:
    """Seconds of the same searches in plain FTS5."""
    statement = "SELECT rank, text FROM plain WHERE plain MATCH ? ORDER BY rank LIMIT ?"
    return _timed(
        times,
        _some_words,
        lambda words: plain.execute(statement, (" OR ".join(words), FOUND)).fetchall(),
    )


def by_vector(times: int) -> list[float]:
    """Seconds of each search by vector, the passages read."""
    library.by_vector(matrix[0].tobytes(), FOUND)
    return _timed(
        times,
        _some_vector,
        lambda asked: library.passages(_ids(library.by_vector(asked.tobytes(), FOUND))),
    )


def by_matrix(times: int) -> list[float]:
    """Seconds of the same searches by numpy over every vector, kept in memory."""
    return _timed(times, _some_vector, _nearest)


def recall(times: int) -> float:
    """The part of the nearest passages that a search by vector finds."""
    found = 0
    first = min(_ids(library.by_vector(matrix[0].tobytes(), 1)))  # that of the first text
    for _ in range(times):
        asked = _some_vector()
        ids = _ids(library.by_vector(asked.tobytes(), FOUND))
        found += len({one - first for one in ids} & {int(one) for one in _nearest(asked)})
    return found / times / FOUND


def _documents(vectors: bool) -> Iterator[Document]:
    for start in range(0, len(texts), PASSAGES_A_DOCUMENT):
        part = slice(start, start + PASSAGES_A_DOCUMENT)
        yield Document(
            source=f"document {start}",
            digest="",
            passages=[Passage("", text) for text in texts[part]],
            vectors=[vector.tobytes() for vector in matrix[part]] if vectors else [],
        )


def _some_words() -> list[str]:
    """Words of one passage, as somebody asks who has read it; common ones are left out."""
    words = [word for word in source.choice(texts).split() if word not in commonest]
    return source.sample(words, min(ASKED, len(words)))


commonest = frozenset(vocabulary[:COMMON])


def _some_vector() -> NDArray[np.float32]:
    """A vector near to one that is there."""
    near = matrix[source.randrange(len(matrix))]
    made = near + 0.3 * numbers.standard_normal(len(near), np.float32) / np.sqrt(len(near))
    vector: NDArray[np.float32] = (made / np.linalg.norm(made)).astype(np.float32)
    return vector


def _nearest(asked: NDArray[np.float32]) -> Any:
    return np.argpartition(-(matrix @ asked), FOUND)[:FOUND]


def _ids(found: Sequence[tuple[int, float]]) -> list[int]:
    return [one for one, _ in found]


def _timed(times: int, asking: Callable[[], Any], search: Callable[[Any], Any]) -> list[float]:
    seconds = []
    for _ in range(times):
        asked = asking()
        started = time.perf_counter()
        found = search(asked)
        seconds.append(time.perf_counter() - started)
        if not len(found):
            raise LookupError("nothing was found: this measures nothing")
    return seconds


serve(
    make=make,
    fill=fill,
    fill_plain=fill_plain,
    by_words=by_words,
    by_plain=by_plain,
    by_vector=by_vector,
    by_matrix=by_matrix,
    recall=recall,
)
