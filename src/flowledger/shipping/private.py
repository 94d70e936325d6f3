"""Files that only the user who writes them may read."""

import os
from pathlib import Path

__all__ = ["write_private"]

OWNER_ALONE = 0o600


def write_private(path: Path, data: bytes) -> None:
    """Put a file in the place of `path` in one step, whatever the umask of the process is.

    Raises:
        OSError: it cannot be written.
    """
    unnamed = path.with_suffix(f".{os.getpid()}")
    fd = os.open(unnamed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, OWNER_ALONE)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    unnamed.replace(path)
