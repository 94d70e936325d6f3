"""Whether `flock` keeps anybody out on the file system at hand."""

import fcntl
import os
from pathlib import Path

from flowledger.errors import JournalError

__all__ = ["check_flock"]


def check_flock(path: Path) -> None:
    """Check that a file which this process has locked cannot be locked again.

    The second lock is tried by this very process, on a second open file. Where `flock` is emulated
    with `fcntl` locks, that succeeds, and rightly counts as no exclusion: such a lock is dropped
    when the process closes any of its open files of the same path, and a shipping thread takes it
    from the writer of its own process.

    Args:
        path: a file that the caller has locked with `flock`.

    Raises:
        JournalError: the lock excludes nobody, so a journal in use could be taken for a finished
            one and deleted.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # another shipper finished it and deleted it meanwhile
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    finally:
        os.close(fd)
    raise JournalError(
        f"flock does not work in {path.parent}, as on NFS mounted with nolock: set FLOWLEDGER_HOME "
        "to a folder on a local disk, or mount the file system with locks"
    )
