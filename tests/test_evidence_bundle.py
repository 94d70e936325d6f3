"""Exported evidence: it proves itself without the database, and no bit of it can change."""

import io
import stat
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from flowledger.audit.bundle import _Checking, export, verify_file
from flowledger.audit.proof import verify
from flowledger.audit.signing import key_path, load_key, make_key, public_text
from flowledger.config import Settings, load
from flowledger.errors import ConfigError, NotFound
from tests.calls import NOW_NS
from tests.faults.processes import slow
from tests.test_evidence_proof import execute, rich_call, sink_of, store

NOW_MS = NOW_NS // 10**6


def signing(uri: str, folder: Path) -> Settings:
    made = load({}, tracking_uri=uri, home=str(folder / "home"))
    make_key(key_path(made))
    return made


def exported(settings: Settings, file: Path) -> Path:
    export(settings, NOW_MS - 1000, NOW_MS + 1000, file)
    return file


def test_a_bundle_proves_itself_without_the_database(database_uri: str, tmp_path: Path) -> None:
    calls = [rich_call() for _ in range(3)]
    store(database_uri, calls[:2])
    store(database_uri, [calls[2]])
    with sink_of(database_uri) as sink:
        sink.correct(calls[0])
    made = signing(database_uri, tmp_path)
    file = exported(made, tmp_path / "q1.jsonl")
    public = public_text(load_key(key_path(made)))
    head = verify(database_uri).head

    checked = verify_file(file, key=public, head=head)

    assert ([], 3, head, public, True) == (
        checked.problems,
        checked.calls,
        checked.head,
        checked.public_key,
        checked.pinned,
    )


@pytest.fixture(scope="module")
def bundle(empty_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "mlflow.db").write_bytes(empty_sqlite.read_bytes())
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    store(uri, [rich_call()])
    return exported(signing(uri, folder), folder / "bundle.jsonl").read_bytes()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_bundle_with_any_bit_flipped_fails(
    bundle: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    bit = data.draw(st.integers(0, len(bundle) * 8 - 1))
    flipped = bytearray(bundle)
    flipped[bit // 8] ^= 1 << bit % 8
    file = tmp_path / "flipped.jsonl"
    file.write_bytes(flipped)
    assert not verify_file(file).intact


def test_a_seal_with_any_bit_flipped_fails(bundle: bytes, tmp_path: Path) -> None:
    file = tmp_path / "flipped.jsonl"
    start = bundle.rstrip(b"\n").rindex(b"\n")
    for place in range(start, len(bundle)):
        for bit in range(8):
            flipped = bytearray(bundle)
            flipped[place] ^= 1 << bit
            file.write_bytes(flipped)
            assert not verify_file(file).intact, (place - start, bit)


@slow
def test_a_bundle_with_each_of_its_bits_flipped_fails(bundle: bytes) -> None:
    for place in range(len(bundle)):
        for bit in range(8):
            flipped = bytearray(bundle)
            flipped[place] ^= 1 << bit
            assert not _Checking(None, None).check(io.BytesIO(flipped)).intact, (place, bit)


@pytest.mark.parametrize("change", ["cut", "longer", "empty", "twice", "one line"])
def test_a_bundle_that_is_cut_or_longer_fails(bundle: bytes, tmp_path: Path, change: str) -> None:
    changed = {
        "cut": bundle[: len(bundle) // 2],
        "longer": bundle + b"\n",
        "empty": b"",
        "twice": bundle + bundle,
        "one line": bundle.replace(b"\n", b""),
    }
    file = tmp_path / "changed.jsonl"
    file.write_bytes(changed[change])
    assert not verify_file(file).intact


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_bundle_whose_lines_are_moved_taken_or_repeated_fails(
    bundle: bytes, tmp_path: Path, data: st.DataObject
) -> None:
    lines = bundle.splitlines(keepends=True)
    places = st.integers(0, len(lines) - 1)
    moved = data.draw(st.lists(places, max_size=len(lines) + 2))
    assume(moved != list(range(len(lines))))
    file = tmp_path / "moved.jsonl"
    file.write_bytes(b"".join(lines[place] for place in moved))
    assert not verify_file(file).intact


def test_a_bundle_cut_after_any_byte_fails(bundle: bytes) -> None:
    for end in range(0, len(bundle), 7):
        assert not _Checking(None, None).check(io.BytesIO(bundle[:end])).intact, end


def test_parts_of_two_bundles_make_none(database_uri: str, tmp_path: Path) -> None:
    store(database_uri, [rich_call()])
    made = signing(database_uri, tmp_path)
    one = exported(made, tmp_path / "one.jsonl").read_bytes().splitlines(keepends=True)
    store(database_uri, [rich_call()])
    two = exported(made, tmp_path / "two.jsonl").read_bytes().splitlines(keepends=True)
    mixed = tmp_path / "mixed.jsonl"
    for lines in (one + two, two + one, one[:-1] + two, one[:1] + two[1:], two[:-1] + one[-1:]):
        mixed.write_bytes(b"".join(lines))
        assert not verify_file(mixed).intact
    assert verify_file(tmp_path / "two.jsonl").intact


def test_a_line_of_a_gigabyte_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowledger.audit.bundle.LONGEST_LINE", 1 << 20)
    file = tmp_path / "huge.jsonl"
    with file.open("wb") as out:
        out.write(b'{"call":{"id":"')
        out.truncate(1 << 30)  # takes no room on the disk
    tracemalloc.start()
    checked = verify_file(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (False, True) == (checked.intact, peak < 8 << 20)
    assert "a line is no evidence: the file was changed or cut off" == checked.problems[0]


def test_a_bundle_signed_by_somebody_else_fails_when_the_key_is_pinned(
    sqlite_uri: str, tmp_path: Path
) -> None:
    store(sqlite_uri, [rich_call()])
    made = signing(sqlite_uri, tmp_path)
    mine = public_text(load_key(key_path(made)))
    key_path(made).unlink()
    make_key(key_path(made))
    file = exported(made, tmp_path / "forged.jsonl")
    assert (True, False) == (verify_file(file).intact, verify_file(file, key=mine).intact)


def test_a_row_that_was_changed_before_the_export_is_named(sqlite_uri: str, tmp_path: Path) -> None:
    call = rich_call()
    store(sqlite_uri, [call])
    execute(sqlite_uri, "UPDATE params SET value = 'x' WHERE key = 'model'")
    checked = verify_file(exported(signing(sqlite_uri, tmp_path), tmp_path / "b.jsonl"))
    assert [f"call {call.id} was changed in params"] == checked.problems


def test_the_private_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "signing.pem"
    make_key(path)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    with pytest.raises(ConfigError, match="is there already"):
        make_key(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(path)


def test_without_a_key_the_message_says_how_to_make_one(sqlite_uri: str, tmp_path: Path) -> None:
    store(sqlite_uri, [rich_call()])
    made = load({}, tracking_uri=sqlite_uri, home=str(tmp_path / "home"))
    with pytest.raises(NotFound, match="flowledger keys signing"):
        export(made, 0, NOW_MS, tmp_path / "x.jsonl")
    assert not (tmp_path / "x.jsonl").exists()
