"""Makes a SQLite database again and again, and breaks most of the makers off in the middle."""

import json
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from flowledger.config import Destination
from flowledger.errors import FlowledgerError
from flowledger.store.bulk import open_bulk

BYTES = 950_000  # of a database with MLflow's tables
LIMITS = (8 << 10, 400 << 10)


def main(folder: Path, kills: int) -> None:
    """Print how makers ended that were killed, had no room, and were left alone."""
    os.chdir(folder)
    path = folder / "mlflow.db"
    killed = [_making(path, kill_at=BYTES * number // kills) for number in range(kills)]
    path.unlink(missing_ok=True)
    full = [_making(path, most_bytes=limit) for limit in LIMITS]
    last = _making(path)
    left = sorted(one.name for one in folder.iterdir())
    mode = oct(path.stat().st_mode & 0o777)
    print(json.dumps({"killed": killed, "full": full, "last": last, "left": left, "mode": mode}))


def _making(path: Path, kill_at: int | None = None, most_bytes: int | None = None) -> str:
    pid = os.fork()
    if not pid:
        os._exit(_make(path, most_bytes))
    while kill_at is not None and _runs(pid) and _largest(path.parent) < kill_at:
        time.sleep(0.001)
    if kill_at is not None:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {0: "made", 1: "failed", -9: "killed"}[status]


def _runs(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _largest(folder: Path) -> int:
    """How far the maker is: bytes of the largest file; those of a killed one are taken away."""
    sizes = []
    for file in folder.iterdir():
        with suppress(FileNotFoundError):
            sizes.append(file.stat().st_size)
    return max(sizes, default=0)


def _make(path: Path, most_bytes: int | None) -> int:
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        place = Destination(
            tracking_uri=f"sqlite:///{path}", artifact_root="/nonexistent", store_as="run"
        )
        open_bulk(place).close()
    except FlowledgerError as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
