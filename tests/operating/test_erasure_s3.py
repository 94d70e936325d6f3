"""Erasure and retention reach the files in a bucket, through real requests to an S3 server."""

from typing import Any

import pytest

from flowledger.audit.erasure import erase, purge
from tests.calls import NOW_NS
from tests.test_erasure import TEXT, USER, fill, told_everywhere
from tests.test_evidence_proof import execute


def bodies(bucket: Any) -> list[bytes]:
    """What is in the bucket, every byte of it."""
    return [one.get()["Body"].read() for one in bucket.objects.all()]


@pytest.fixture
def filled(sqlite_uri: str, bucket: Any) -> str:
    for user, text in ((USER, TEXT), ("bob", "of bob")):
        records = told_everywhere(user, text)
        fill(sqlite_uri, "s3://artifacts/flow", records)
        if user == USER:
            execute(
                sqlite_uri,
                "UPDATE llm_records SET received_ms = 1 WHERE seq <= :last",
                last=records[-1].seq,
            )
    assert [b"of bob", TEXT.encode()] == sorted(bodies(bucket))
    return sqlite_uri


def test_an_erasure_leaves_nothing_of_a_user_in_the_bucket(filled: str, bucket: Any) -> None:
    done = erase(filled, USER, by="dpo", reason="r", vacuum=False)
    assert ({}, [b"of bob"]) == (done.unreached, bodies(bucket))


def test_a_purge_leaves_nothing_old_in_the_bucket(filled: str, bucket: Any) -> None:
    done = purge(filled, NOW_NS // 10**6 - 10**6, by="cron", reason="r", vacuum=False)
    assert ({}, [b"of bob"]) == (done.unreached, bodies(bucket))


def test_a_bucket_that_cannot_be_reached_is_named(
    filled: str, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    done = erase(filled, USER, by="dpo", reason="r", vacuum=False)
    assert {"s3:", "artifacts", "flow"} <= {
        part for root in done.unreached for part in root.split("/")
    }
