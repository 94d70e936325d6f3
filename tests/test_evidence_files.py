"""Uploaded files are evidence, too: one that is changed or gone in the artifact store is found."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from flowledger.audit.erasure import erase
from flowledger.audit.file_proof import verify_files
from flowledger.audit.proof import verify
from flowledger.cli import main
from flowledger.records import Artifact, Job, Record, new_id
from tests.calls import NOW_NS
from tests.test_erasure import TEXT, USER, fill, told_everywhere
from tests.test_evidence_proof import PRODUCER, execute, numbers


def files_of(job_id: str, **texts: str) -> list[Record]:
    return [
        Artifact(
            id=new_id(), run_id=job_id, path=f"out/{name}.txt", content=text.encode(),
            producer=PRODUCER, seq=next(numbers),
        )
        for name, text in texts.items()
    ]  # fmt: skip


def a_job() -> Job:
    return Job(
        id=new_id(),
        start_ns=NOW_NS,
        name="n",
        experiment="support",
        producer=PRODUCER,
        seq=next(numbers),
    )


def test_a_file_that_is_changed_or_gone_is_found(database_uri: str, tmp_path: Path) -> None:
    root, job, other = tmp_path / "artifacts", a_job(), a_job()
    fill(database_uri, root, [job, *files_of(job.id, a="one", b="two")])
    fill(database_uri, root, [other, *files_of(other.id, a="x"), *files_of(other.id, a="new")])
    whole = verify_files(database_uri)
    assert (True, 3, 0, {}) == (whole.intact, whole.files, whole.waiting, whole.unreached)
    assert verify(database_uri).intact

    [first] = root.rglob(f"{job.id}/artifacts/out/a.txt")
    first.write_text("another")
    [second] = root.rglob(f"{other.id}/artifacts/out/a.txt")
    second.unlink()
    (first.parent / "of_people.txt").write_text("added in MLflow")

    found = verify_files(database_uri)
    expected = {("changed", "artifacts", job.id), ("removed", "artifacts", other.id)}
    assert (False, 1, expected) == (
        found.intact,
        found.files,
        {tuple(d) for d in found.differences},
    )


def test_files_that_wait_are_compared_where_they_wait(sqlite_uri: str, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("where a folder should be")
    job = a_job()
    fill(sqlite_uri, tmp_path / "a file" / "artifacts", [job, *files_of(job.id, a="one")])
    assert (True, 1, 1) == msgspec.structs.astuple(verify_files(sqlite_uri))[:3]
    execute(sqlite_uri, "UPDATE llm_artifacts SET record = 'AAAA'")
    assert not verify_files(sqlite_uri).intact


def test_files_that_were_erased_are_not_missed(sqlite_uri: str, tmp_path: Path) -> None:
    fill(sqlite_uri, tmp_path / "artifacts", told_everywhere(USER, TEXT))
    fill(sqlite_uri, tmp_path / "artifacts", told_everywhere("bob", "another"))
    assert 2 == verify_files(sqlite_uri).files
    erase(sqlite_uri, USER, by="dpo", reason="r", vacuum=False)
    assert (True, 1) == (verify_files(sqlite_uri).intact, verify_files(sqlite_uri).files)


def test_a_store_that_cannot_be_reached_is_named(sqlite_uri: str, tmp_path: Path) -> None:
    job = a_job()
    fill(sqlite_uri, tmp_path / "artifacts", [job, *files_of(job.id, a="one")])
    execute(sqlite_uri, "UPDATE runs SET artifact_uri = 'nowhere://x'")
    assert ({"nowhere://x"}, False) == (
        set(verify_files(sqlite_uri).unreached),
        verify_files(sqlite_uri).intact,
    )


def test_the_command_reads_files_when_it_is_asked_to(
    home: Path, sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWLEDGER_TRACKING_URI", sqlite_uri)
    root, job = tmp_path / "artifacts", a_job()
    fill(sqlite_uri, root, [job, *files_of(job.id, a="one")])
    told = CliRunner().invoke(main, ["evidence", "verify", "--files", "--json"])
    assert (0, 1) == (told.exit_code, json.loads(told.stdout)["files"]["files"])
    [file] = root.rglob("out/a.txt")
    file.write_text("another")
    assert 0 == CliRunner().invoke(main, ["evidence", "verify"]).exit_code
    failed = CliRunner().invoke(main, ["evidence", "verify", "--files"])
    assert (1, True) == (failed.exit_code, f"changed: a file of {job.id}" in failed.stdout)
