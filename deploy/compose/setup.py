"""What a new stack needs once: a bucket for artifacts, and a key for the example.

Run again it changes nothing. It reads the environment of the server, and `KEYS`, the folder for
keys.
"""

import os
import subprocess
from pathlib import Path

import boto3  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

BUCKET = "flowledger"
EXAMPLE = "aiflow"


def make_bucket() -> None:
    """The bucket that the server keeps artifacts in."""
    client = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    try:
        client.head_bucket(Bucket=BUCKET)
    except ClientError:
        client.create_bucket(Bucket=BUCKET)


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


if __name__ == "__main__":
    make_bucket()
    make_key()
