"""Putting one artifact into MLflow's artifact store, wherever that is."""

import errno
import os
import posixpath
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from flowledger.errors import RecordError
from flowledger.records import Artifact

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.uri import append_to_uri_path
from mlflow.utils.validation import path_not_unique

__all__ = ["Uploads", "checked", "is_below", "repository_of", "upload"]

SECONDS = 10.0
# Where a server of MLflow's keeps what clients know as `mlflow-artifacts:`.
SERVED_FROM = "_MLFLOW_SERVER_ARTIFACT_DESTINATION"
RECORD_FAULTS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "MALFORMED_REQUEST")


class Uploads:
    """Uploads one after the other, and waits for none of them for ever.

    A store that hangs holds a thread of its own, and whoever delivers calls goes on.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._hanging: threading.Thread | None = None

    def put(self, folder_uri: str, artifact: Artifact) -> None:
        """Upload a file.

        Args:
            folder_uri: the run's artifacts.
            artifact: the file.

        Raises:
            RecordError: it will never be taken.
            Exception: whatever the store says, or TimeoutError; it may be taken later.
        """
        if self._hanging is not None and self._hanging.is_alive():
            raise TimeoutError("the artifact store hangs")
        raised: list[Exception] = []

        def work() -> None:
            try:
                upload(folder_uri, artifact)
            except Exception as exc:  # noqa: BLE001 - raised again in the thread that waits
                raised.append(exc)

        self._hanging = threading.Thread(target=work, name="flowledger-artifact", daemon=True)
        self._hanging.start()
        self._hanging.join(self._seconds)
        if raised:
            raise raised[0]
        if self._hanging.is_alive():
            raise TimeoutError(f"the artifact store gives no answer in {self._seconds:g} s")


def upload(folder_uri: str, artifact: Artifact) -> None:
    """Write a file among a run's artifacts; writing it again changes nothing.

    Raises:
        RecordError: its path is none that can be written.
        Exception: whatever the store says.
    """
    folder, name = posixpath.split(checked(artifact).path)
    try:
        with tempfile.TemporaryDirectory(prefix="flowledger-") as temporary:
            file = Path(temporary, name)
            file.write_bytes(artifact.content)
            repository_of(folder_uri).log_artifact(str(file), folder or None)
    except MlflowException as exc:
        if exc.error_code in RECORD_FAULTS and folder_uri.partition(":")[0] != "mlflow-artifacts":
            raise RecordError(f"MLflow refuses it: {exc.message}") from exc
        raise
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            raise RecordError(f"the path of the artifact is too long: {exc}") from exc
        raise


def repository_of(folder_uri: str) -> Any:
    """MLflow's way to the files of a folder, as this process reaches it."""
    return get_artifact_repository(_reachable(folder_uri))


def is_below(folder_uri: str, roots: Sequence[str]) -> bool:
    """Whether a folder is one of these or inside of one, with links followed.

    Whoever makes an experiment in MLflow says where its artifacts go, and a server writes with
    rights of its own.
    """
    place = _place_of(folder_uri)
    wanted = [found for root in roots if (found := _place_of(root)) is not None]
    return place is not None and any(place[: len(root)] == root for root in wanted)


def _place_of(uri: str) -> tuple[str, ...] | None:
    """Scheme, host and folders of an address; None where it goes up, or has more than a path."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        path = unquote(parts.path) if parts.scheme else uri
        return ("file", parts.netloc, *Path(os.path.realpath(path)).parts)
    folders = tuple(part for part in unquote(parts.path).split("/") if part)
    if parts.query or parts.fragment or {".", ".."} & set(folders):
        return None
    return (parts.scheme, parts.netloc, *folders)


def checked(artifact: Artifact) -> Artifact:
    """The artifact, when its path stays inside the run's folder.

    Raises:
        RecordError: it does not.
    """
    path = artifact.path
    if not path or "\0" in path or "\\" in path or path_not_unique(path):
        raise RecordError(f"{path!r} is no path of an artifact")
    return artifact


def _reachable(uri: str) -> str:
    """The address as this process reaches it: a server knows what stands behind its own."""
    served_from = os.environ.get(SERVED_FROM)
    if served_from and uri.startswith("mlflow-artifacts:"):
        return str(append_to_uri_path(served_from, urlsplit(uri).path))
    return uri
