"""What a new stack needs once: a bucket, a user for Prometheus, a key for the example.

Run again it changes nothing. It reads the environment of the server, and beside it `FLOWLEDGER_URL`
and `KEYS`, the folder for keys.
"""

import base64
import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import boto3  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

BUCKET = "flowledger"
USER = "metrics"
EXAMPLE = "aiflow"
SECRETS = Path(os.environ.get("SECRETS", "/run/secrets"))


def make_bucket() -> None:
    """The bucket that the server keeps artifacts in."""
    client = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    try:
        client.head_bucket(Bucket=BUCKET)
    except ClientError:
        client.create_bucket(Bucket=BUCKET)


def make_user() -> None:
    """The user of MLflow's that Prometheus logs in as; it may read `/metrics` and makes nothing."""
    login = {"username": USER, "password": (SECRETS / "metrics_password").read_text()}
    try:
        ask("/api/2.0/mlflow/users/create", login)
    except HTTPError as exc:
        if json.load(exc).get("error_code") != "RESOURCE_ALREADY_EXISTS":
            raise


def make_key() -> None:
    """The key that the example sends its calls with."""
    path = Path(os.environ["KEYS"], EXAMPLE)
    if path.exists():
        return
    made = subprocess.run(
        ["flowledger", "keys", "create", EXAMPLE], check=True, stdout=subprocess.PIPE, text=True
    )
    path.touch(mode=0o600)
    path.write_text(made.stdout.strip())


def ask(path: str, content: dict[str, Any]) -> Any:
    """POST to the server as its administrator."""
    word = base64.b64encode(f"admin:{os.environ['MLFLOW_AUTH_ADMIN_PASSWORD']}".encode()).decode()
    request = urllib.request.Request(
        os.environ["FLOWLEDGER_URL"] + path,
        json.dumps(content).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {word}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


if __name__ == "__main__":
    make_bucket()
    make_user()
    make_key()
