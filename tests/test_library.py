"""The library keeps and finds passages and turns alike in SQLite and in PostgreSQL."""

import itertools
import math
import os
import random
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flowledger.chat.library import Document, Found, Library, Listed, Passage, batches
from flowledger.chat.library.bits import Bits, bits_of, cosines
from flowledger.chat.library.postgres import PostgresLibrary
from flowledger.chat.library.sqlite import SqliteLibrary
from flowledger.errors import DocumentError

WAR = "The warranty covers pumps and valves for two years."
SHIP = "Parcels leave the warehouse at noon; returned goods arrive later."
RETURN = "Goods may be returned within thirty days."


def unit(numbers: Sequence[float]) -> bytes:
    length = math.sqrt(sum(number**2 for number in numbers))
    return array("f", [number / length for number in numbers]).tobytes()


def test_conversations_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        library = SqliteLibrary(tmp_path / "chat.db")
        library.add([document("a", WAR)])
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        library.close()
    finally:
        os.umask(before)
    assert {"chat.db": 0o600, "chat.db-wal": 0o600, "chat.db-shm": 0o600} == modes


def document(source: str, *texts: str, vectors: Sequence[bytes] = ()) -> Document:
    return Document(
        source=source,
        digest=f"digest of {source}",
        passages=[Passage(f"part {n}", text) for n, text in enumerate(texts, 1)],
        embedding="some-model" if vectors else "",
        vectors=vectors,
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a library may be: a file that is not there yet, or a database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'chat.db'}"
    uri: str = request.getfixturevalue("postgres_uri")
    return uri


def library_at(place: str) -> Library:
    if place.startswith("sqlite"):
        return SqliteLibrary(Path(place.removeprefix("sqlite:///")))
    return PostgresLibrary(place)


@pytest.fixture
def library(place: str) -> Iterator[Library]:
    made = library_at(place)
    yield made
    made.close()


def texts_of(library: Library, found: Sequence[tuple[int, float]]) -> list[str]:
    passages = library.passages([one for one, _ in found])
    return [passages[one].text for one, _ in found]


def test_documents_are_listed_with_their_passages(library: Library) -> None:
    assert library.is_empty()
    library.add([document("b.md", WAR), document("a.md", SHIP, RETURN)])
    assert not library.is_empty()
    assert [
        Listed("a.md", "digest of a.md", "", 2),
        Listed("b.md", "digest of b.md", "", 1),
    ] == library.listed()


def test_passages_are_found_by_any_of_the_words_best_first(library: Library) -> None:
    library.add([document("a.md", WAR, SHIP, RETURN)])
    found = library.by_words(["goods", "returned", "days"], 10)
    assert [RETURN, SHIP] == texts_of(library, found)
    assert found[0][1] > found[1][1]
    one = library.by_words(["warranty"], 10)
    assert {one[0][0]: Found(one[0][0], "a.md", "part 1", WAR)} == library.passages([one[0][0]])


def test_words_are_found_in_other_forms_and_odd_ones_find_nothing(library: Library) -> None:
    library.add([document("a.md", WAR)])
    assert [WAR] == texts_of(library, library.by_words(["pump"], 10))
    for odd in ([], ["xyzzy"], ["and"], ["or", "not"], ["near"], ["é"], ["0"]):
        assert not [text for text in texts_of(library, library.by_words(odd, 10)) if text != WAR]


def test_passages_are_found_by_the_nearest_vectors_with_their_cosine(library: Library) -> None:
    vectors = [unit([1, 0, 0, 0]), unit([1, 1, 0, 0]), unit([0, 0, 1, 0])]
    library.add([document("a.md", WAR, SHIP, RETURN, vectors=vectors)])
    found = library.by_vector(unit([1, 0.1, 0, 0]), 2)
    assert [WAR, SHIP] == texts_of(library, found)
    assert [0.995, 0.774] == pytest.approx([cosine for _, cosine in found], abs=0.002)


def test_vectors_may_come_later_and_only_for_some(library: Library) -> None:
    library.add([document("a.md", WAR)])
    assert [] == library.by_vector(unit([1, 0]), 5)
    library.add([document("b.md", SHIP, vectors=[unit([1, 0])])])
    assert [SHIP] == texts_of(library, library.by_vector(unit([1, 0]), 5))
    library.add([document("c.md", RETURN, vectors=[unit([1, 1])])])
    assert [SHIP, RETURN] == texts_of(library, library.by_vector(unit([1, 0]), 5))


def test_a_document_takes_the_place_of_an_older_one_of_its_source(library: Library) -> None:
    library.add([document("a.md", WAR, SHIP, vectors=[unit([1, 0]), unit([0, 1])])])
    library.add([document("a.md", RETURN, vectors=[unit([1, 0])])])
    assert [1] == [one.passages for one in library.listed()]
    assert [] == library.by_words(["warranty"], 5)
    assert [RETURN] == texts_of(library, library.by_words(["days"], 5))
    assert [RETURN] == texts_of(library, library.by_vector(unit([0, 1]), 5))


def test_a_document_that_is_removed_is_found_no_more(library: Library) -> None:
    library.add([document("a.md", WAR, vectors=[unit([1, 0])]), document("b.md", SHIP)])
    assert library.remove("a.md")
    assert not library.remove("a.md")
    assert ["b.md"] == [one.source for one in library.listed()]
    assert ([], []) == (library.by_words(["warranty"], 5), library.by_vector(unit([1, 0]), 5))


def test_a_batch_that_fails_leaves_nothing_behind(library: Library) -> None:
    bad = document("bad.md", SHIP, RETURN, vectors=[unit([1, 0])])
    with pytest.raises(ValueError, match="shorter"):
        library.add([document("a.md", WAR), bad])
    assert library.is_empty()
    library.add([document("a.md", WAR)])
    assert [WAR] == texts_of(library, library.by_words(["warranty"], 5))


def test_texts_of_any_characters_are_kept(library: Library) -> None:
    odd = "Größe naïve \0 漢字 \U0001f600 \\ % ' \" \t end"
    library.add([document("ö'\".md", odd)])
    [found] = texts_of(library, library.by_words(["größe"], 5))
    assert odd.replace("\0", "\ufffd") == found.replace("\0", "\ufffd")
    turn = library.begin_turn("s", odd, 1)
    library.end_turn(turn, odd)
    assert 1 == len(library.begin_turn("s", "more", 1).earlier)


def test_turns_are_numbered_from_one_and_found_in_order(library: Library) -> None:
    for number, asked in enumerate(("one", "two", "three"), 1):
        turn = library.begin_turn("s", asked, 2)
        assert number == turn.number
        if asked != "two":
            library.end_turn(turn, asked.upper())
    assert [("one", "ONE"), ("three", "THREE")] == library.begin_turn("s", "four", 2).earlier
    assert [("three", "THREE")] == library.begin_turn("s", "five", 1).earlier
    assert (1, []) == (lambda t: (t.number, t.earlier))(library.begin_turn("t", "x", 5))
    assert (5, 0) == (library.forget("s"), library.forget("s"))


def test_turns_from_before_a_time_are_deleted_and_leave_no_bytes(library: Library) -> None:
    library.begin_turn("s", "an old question", 0)
    now_ms = time.time_ns() // 1_000_000
    assert (0, 1) == (library.forget_before(now_ms - 60_000), library.forget_before(now_ms + 1))
    library.overwrite_freed()
    assert 1 == library.begin_turn("s", "a new question", 0).number


def test_turns_begun_at_once_have_numbers_of_their_own(library: Library) -> None:
    with ThreadPoolExecutor(8) as pool:
        turns = list(pool.map(lambda n: library.begin_turn("s", str(n), 0).number, range(40)))
    assert list(range(1, 41)) == sorted(turns)


ADD = """
import sys
from tests.test_library import document, library_at
library = library_at(sys.argv[1])
library.add([document(sys.argv[2] + str(n), f"text {n} of {sys.argv[2]}") for n in range(50)])
library.close()
"""


def test_many_processes_may_make_and_fill_one_library(place: str) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", ADD, place, name], stderr=subprocess.PIPE, text=True
        )
        for name in ("a", "b", "c")
    ]
    assert [""] * 3 == [child.communicate()[1] for child in children]
    library = library_at(place)
    assert 150 == len(library.listed())
    assert 50 == len(library.by_words(["b"], 200))
    library.close()


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    path = tmp_path / "chat.db"
    path.write_bytes(b"no database at all, but long enough to be looked at as one" * 100)
    with pytest.raises(DocumentError, match=r"chat\.db cannot be used"):
        SqliteLibrary(path)


def test_a_database_that_is_not_there_is_told_without_the_password() -> None:
    with pytest.raises(DocumentError) as told:
        PostgresLibrary("postgresql://ana:secret@127.0.0.1:9/none")
    assert "secret" not in str(told.value)


def test_a_connection_that_broke_is_made_again(postgres_uri: str) -> None:
    library = PostgresLibrary(postgres_uri)
    library.add([document("a.md", WAR)])
    with pytest.raises(DocumentError), library._transaction() as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert ["a.md"] == [one.source for one in library.listed()]
    library.close()


def test_bits_find_nearly_all_of_the_nearest_vectors() -> None:
    """Among 3,000 vectors around 60 points, of the ten nearest on average nine or more."""
    source = random.Random(7)
    points = [[source.gauss(0, 1) for _ in range(96)] for _ in range(60)]
    vectors = [
        unit([one + source.gauss(0, 0.6) for one in point])
        for point in itertools.islice(itertools.cycle(points), 3000)
    ]
    bits = Bits()
    bits.extend(list(enumerate(bits_of(vectors))))
    found = 0
    for asked in vectors[:20]:
        exact = cosines(asked, vectors)
        best = set(sorted(range(len(vectors)), key=lambda one: -exact[one])[:10])
        found += len(best & set(bits.nearest(bits_of([asked])[0], 100)))
    assert found >= 180


def test_documents_are_put_together_into_batches() -> None:
    documents = [document(str(n), *(["x"] * 3)) for n in range(5)]
    assert [2, 2, 1] == [len(batch) for batch in batches(iter(documents), 6)]


def test_passages_with_two_of_the_words_come_before_those_with_one(library: Library) -> None:
    one = [f"goods number{n} of many, all of them alike in what they are" for n in range(5)]
    library.add([document("a.md", *one, RETURN)])
    assert [RETURN] == texts_of(library, library.by_words(["goods", "days"], 1))
    assert 6 == len(library.by_words(["goods", "days"], 10))
    assert 6 == len(library.by_words(["goods", "days", "thirty", "returned", "unheard"], 6))
