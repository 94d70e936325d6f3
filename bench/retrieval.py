"""Finding passages for chat: by words beside plain FTS5, by vectors beside numpy over all."""

from statistics import median
from typing import NamedTuple

from bench.places import postgresql, temporary_folder
from bench.processes import Child
from bench.table import Goal, Row, at_least, at_most

__all__ = ["measure"]


class Size(NamedTuple):
    """How many passages, numbers a vector, and searches."""

    passages: int
    dimensions: int
    times: int


# PostgreSQL takes minutes to index vectors, so there are fewer of them.
SQLITE, WORDS, VECTORS = Size(100_000, 1536, 100), Size(100_000, 0, 100), Size(20_000, 384, 100)
QUICK_SQLITE, QUICK_WORDS, QUICK_VECTORS = (
    Size(5_000, 1536, 20),
    Size(2_000, 0, 20),
    Size(2_000, 384, 20),
)
WORDS_MS, VECTORS_MS, ADDED, RECALL = 50, 20, 5_000, 0.9
PATIENCE = 1800


def measure(quick: bool) -> list[Row]:
    """Milliseconds of a search, passages added a second, and what the vectors miss."""
    with temporary_folder() as folder:
        place = f"sqlite:///{folder}/chat.db"
        with Child("passages", place=place, folder=str(folder)) as child:
            rows = _sqlite(child, QUICK_SQLITE if quick else SQLITE)
    with postgresql() as databases:
        for part, size in (
            (_postgresql_words, QUICK_WORDS if quick else WORDS),
            (_postgresql_vectors, QUICK_VECTORS if quick else VECTORS),
        ):
            with (
                temporary_folder() as folder,
                Child("passages", place=databases.bare(), folder=str(folder)) as child,
            ):
                child.ask("make", PATIENCE, passages=size.passages, dimensions=size.dimensions)
                rows += part(child, size)
    return rows


def _sqlite(child: Child, size: Size) -> list[Row]:
    child.ask("make", PATIENCE, passages=size.passages, dimensions=size.dimensions)
    added = _added(child, size, "fill", vectors=False), _added(child, size, "fill_plain")
    words = _searched(child, size, "by_words", "by_plain")
    child.ask("fill", PATIENCE, vectors=True)
    vectors = _searched(child, size, "by_vector", "by_matrix")
    recall: float = child.ask("recall", PATIENCE, times=size.times)
    what = f"SQLite: by vector of {size.dimensions}"
    nearest = f"{what}: of the 10 nearest it finds"
    return [
        _row(size, "SQLite: added", added, "passages/s", at_least(ADDED), "plain FTS5"),
        _row(size, "SQLite: by words", words, "ms", at_most(WORDS_MS), "plain FTS5"),
        _row(size, what, vectors, "ms", at_most(VECTORS_MS), "numpy over all"),
        _row(size, nearest, (recall, None), "of 1", at_least(RECALL)),
    ]


def _postgresql_words(child: Child, size: Size) -> list[Row]:
    added = _added(child, size, "fill", vectors=False)
    words = _median(child, size, "by_words")
    return [
        _row(size, "PostgreSQL: added", (added, None), "passages/s", None),
        _row(size, "PostgreSQL: by words", (words, None), "ms", at_most(WORDS_MS)),
    ]


def _postgresql_vectors(child: Child, size: Size) -> list[Row]:
    added = _added(child, size, "fill", vectors=True)
    vectors = _searched(child, size, "by_vector", "by_matrix")
    what = f"PostgreSQL: by vector of {size.dimensions}"
    return [
        _row(size, "PostgreSQL: added with vectors", (added, None), "passages/s", None),
        _row(size, what, vectors, "ms", at_most(VECTORS_MS), "numpy over all"),
    ]


def _added(child: Child, size: Size, command: str, **arguments: bool) -> float:
    """Passages a second."""
    seconds: float = child.ask(command, PATIENCE, **arguments)
    return size.passages / seconds


def _searched(child: Child, size: Size, ours: str, peer: str) -> tuple[float, float]:
    return _median(child, size, ours), _median(child, size, peer)


def _median(child: Child, size: Size, command: str) -> float:
    """Milliseconds."""
    seconds: list[float] = child.ask(command, PATIENCE, times=size.times)
    return 1e3 * median(seconds)


def _row(
    size: Size,
    what: str,
    values: tuple[float, float | None],
    unit: str,
    goal: Goal | None,
    peer: str = "",
) -> Row:
    return Row(
        subject="retrieval",
        what=f"{what}, {size.passages:,} passages",
        value=values[0],
        unit=unit,
        peer=peer,
        peer_value=values[1],
        goal=goal,
        more_is_better=unit != "ms",
    )
