"""What the commands take out leaves no bytes behind: not in the database, nor beside it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

import flowledger
from flowledger import config
from flowledger.audit.proof import verify
from flowledger.chat import library
from flowledger.cli import main
from flowledger.config import Destination
from flowledger.journal import Writer
from flowledger.records import (
    Actor,
    Artifact,
    Job,
    Place,
    Producer,
    Record,
    Span,
    decode,
    encode,
    new_id,
)
from flowledger.shipping.drain import Drain
from flowledger.store import Refusal, open_sink
from flowledger.store.keys import open_keys
from tests.calls import NOW_NS, a_call
from tests.test_erasure import (
    DAY_NS,
    TEXT,
    USER,
    data_folder,
    fill,
    forget_the_log,
    scalar,
    told_everywhere,
    traces_in,
)
from tests.test_evidence_proof import execute, numbers

__all__ = ["data_folder"]
OLD_NS = NOW_NS - 200 * DAY_NS
WRITER = "2" * 32


class Refusing:
    """A store that refuses for good whatever is recorded."""

    batch_bytes = 1 << 20

    def write(self, records: Sequence[bytes], *, redelivered: bool = True) -> list[Refusal]:
        return [
            Refusal(place, f"it cannot be read: {record!r}")
            for place, record in enumerate(records)
            if not isinstance(decode(record), Producer)
        ]

    def close(self) -> None:
        pass


class Host:
    """A host that records into a database: its journal, its chat store, its settings."""

    def __init__(self, uri: str, home: Path, tmp_path: Path) -> None:
        self.uri, self.root = uri, tmp_path / "artifacts"
        self.folder = config.load().journal_folder
        producer = Producer(id=WRITER, producer=WRITER, host="h", user="someone")
        self._writer = Writer(
            self.folder, producer_id=WRITER, producer=encode(producer), max_bytes=1 << 24
        )

    def append(self, records: Sequence[Record]) -> None:
        """Records in the journal of a process that lives."""
        for record in records:
            seq = next(numbers)
            record = msgspec.structs.replace(record, producer=WRITER, seq=seq)
            self._writer.append(seq, encode(record))

    def reject(self, records: Sequence[Record]) -> None:
        """The same, and a store that refuses them."""
        self.append(records)
        drain = Drain(self.folder, Refusing())
        while drain.step():
            pass
        drain.close()

    def ship(self) -> None:
        """All that waits, into the database."""
        place = Destination(
            tracking_uri=self.uri, artifact_root=str(self.root), store_as="run+trace"
        )
        sink = open_sink(place)
        drain = Drain(self.folder, sink)
        while drain.step():
            pass
        drain.close()
        sink.close()

    def talk(self, session: str, text: str) -> None:
        """A turn of a conversation."""
        kept = library.opened()
        kept.end_turn(kept.begin_turn(session, text, 0), f"an answer: {text}")
        kept.close()

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
def here(
    database_uri: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    monkeypatch.setenv("FLOWLEDGER_TRACKING_URI", database_uri)
    if database_uri.startswith("postgresql"):
        monkeypatch.setenv("FLOWLEDGER_CHAT_STORE", database_uri)
    flowledger.configure()
    made = Host(database_uri, home, tmp_path)
    yield made
    made.close()


def run(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(main, [*words, "--yes", "--json"])
    assert 0 == done.exit_code, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def left(here: Host, data_folder: Path, tmp_path: Path, *texts: str) -> list[str]:
    if here.uri.startswith("postgresql"):
        forget_the_log(here.uri)
    return sorted({*traces_in(data_folder, *texts), *traces_in(tmp_path, *texts)})


def test_erasing_a_user_leaves_no_bytes_in_the_database_or_beside_it(
    here: Host, data_folder: Path, tmp_path: Path
) -> None:
    actor = Actor(user_id=USER, session_id=f"session of {USER}")
    job = Job(id=new_id(), start_ns=NOW_NS, name="n", actor=actor, experiment="e", params={"q": 1})
    mine = Place(root_id=job.id, parent_id=job.id)
    theirs: list[Record] = [
        a_call(actor=actor, prompt=TEXT),
        Span(id=new_id(), start_ns=NOW_NS, place=mine, inputs=TEXT),
        Artifact(id=new_id(), run_id=job.id, path="n.txt", content=TEXT.encode()),
    ]
    fill(here.uri, here.root, told_everywhere(USER, TEXT))
    here.append([job])
    here.ship()
    here.reject([*theirs, a_call(actor=Actor(user_id="bob"))])
    here.append([a_call(actor=actor, prompt=TEXT)])
    here.ship()  # and stays in the file of a process that lives
    here.append([a_call(actor=actor, response=TEXT)])  # waits, for no collector runs
    here.talk(f"session of {USER}", TEXT)
    here.talk("session of bob", "other")
    with open_keys(here.uri, make=True) as keys:
        keys.create(f"{USER}-laptop")
    fill(here.uri, here.root, [Producer(id="3" * 32, producer="3" * 32, host="here", user=USER)])

    done = run("erase", "--user", USER)

    assert {"calls": 3, "turns": 1, "rejected": 3, "waiting": 0, "vacuumed": True} == {
        name: done[name] for name in ("calls", "turns", "rejected", "waiting", "vacuumed")
    }
    assert [] == left(here, data_folder, tmp_path, TEXT, USER)
    assert verify(here.uri).intact
    turns = "turns" if here.uri.startswith("sqlite") else "flowledger_turns"
    chats = here.uri.replace("mlflow.db", "home/chat.db")
    assert 1 == scalar(chats, f"SELECT count(*) FROM {turns}")
    assert 1 == len((next((here.folder / "rejected").iterdir())).read_bytes().splitlines())


def test_purging_leaves_no_bytes_of_old_content_in_the_database_or_beside_it(
    here: Host, data_folder: Path, tmp_path: Path
) -> None:
    job = Job(
        id=new_id(), start_ns=OLD_NS, name="n", experiment="e", params={"q": TEXT}, tags={"t": 1}
    )
    old: list[Record] = [
        job,
        a_call(start_ns=OLD_NS, prompt=TEXT, response=TEXT, params={"p": TEXT}),
        Artifact(id=new_id(), start_ns=OLD_NS, run_id=job.id, path="n", content=TEXT.encode()),
    ]
    here.append(old)
    here.ship()
    here.reject([a_call(start_ns=OLD_NS, prompt=TEXT), a_call(prompt="a new one")])
    here.talk("s", TEXT)
    here.talk("t", "a new turn")
    turns = "turns" if here.uri.startswith("sqlite") else "flowledger_turns"
    chats = here.uri.replace("mlflow.db", "home/chat.db")
    execute(chats, f"UPDATE {turns} SET started_ms = 1 WHERE session_id = 's'")
    execute(here.uri, "UPDATE llm_records SET received_ms = 1")
    assert [] != left(here, data_folder, tmp_path, TEXT)

    done = run("purge", "--older-than", "100d")

    assert (1, 1, 1) == (done["calls"], done["turns"], done["rejected"])
    assert [] == left(here, data_folder, tmp_path, TEXT)
    assert verify(here.uri).intact
    assert "a new turn" == scalar(chats, f"SELECT asked FROM {turns}")


def test_a_file_that_waits_for_the_artifact_store_goes_with_its_user(
    here: Host, data_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "a file").write_text("where a folder should be")
    here.root = tmp_path / "a file" / "artifacts"
    fill(here.uri, here.root, told_everywhere(USER, TEXT))
    assert 1 == scalar(here.uri, "SELECT count(*) FROM llm_artifacts")

    run("erase", "--user", USER)

    assert 0 == scalar(here.uri, "SELECT count(*) FROM llm_artifacts")
    assert [] == left(here, data_folder, tmp_path, TEXT, USER)
