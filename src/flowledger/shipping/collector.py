"""The collector: one process a host and destination that empties journals into the store.

It holds `collector.lock` in the journal folder for as long as it runs, outlives the applications
that started it, and leaves when no process writes there any more.
"""

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

import msgspec

from flowledger.config import Destination, Settings
from flowledger.journal import check_flock, segment_paths
from flowledger.shipping.loop import Loop
from flowledger.shipping.private import write_private
from flowledger.store import Sink, freeze_loaded_objects, open_sink

__all__ = [
    "Collector",
    "collector_runs",
    "destinations",
    "note_destination",
    "start_collector",
]

LOCK_FILE = "collector.lock"
DESTINATION_FILE = "destination.json"
LOG_FILE = "collector.log"
LOG_MAX_BYTES = 1 << 20
LOCK_SECONDS = 1.5
IDLE_SECONDS = 5.0
GIVE_UP_SECONDS = 600.0
OUTDATED_SECONDS = 5.0


class Collector:
    """Runs the shipping loop over one journal folder.

    Args:
        folder: the journal folder.
        destination: where its calls go.
        token: bearer key for a flowledger server.
    """

    def __init__(self, folder: Path, destination: Destination, token: str = "") -> None:
        self._folder = folder
        self._loop = Loop(folder, lambda: _open_for_good(destination, token))
        self._stopped = False
        # Not an Event: its lock deadlocks when a signal handler sets it in the middle of a wait.
        self._stops: SimpleQueue[None] = SimpleQueue()

    def run(self, still_ours: Callable[[], bool], *, idle_seconds: float | None = None) -> None:
        """Ship until told to stop, or until nobody has written for so long.

        Args:
            still_ours: whether we hold the lock of the folder that is there now.
            idle_seconds: leave after so long without a writer; None stays.
        """
        quiet_since = time.monotonic()
        while not self._stopped and still_ours():
            wait = self._loop.turn()
            if wait == 0 or self._loop.live_writers:
                quiet_since = time.monotonic()
            patience = GIVE_UP_SECONDS if self._loop.error else idle_seconds
            if idle_seconds is not None and time.monotonic() - quiet_since > (patience or 0):
                break
            if idle_seconds is not None and self._loop.outdated and wait > OUTDATED_SECONDS:
                break  # whoever is started next is of the flowledger that is installed then
            self._wait(wait)
        self._loop.close()

    def run_once(self, *, timeout: float) -> str | None:
        """Ship what waits now, then return; the reason when the store did not take it in time."""
        deadline = time.monotonic() + timeout
        while not self._stopped:
            wait = self._loop.turn()
            if wait and not self._loop.error:
                break
            if time.monotonic() + wait > deadline:
                return self._loop.error or "there was more than could be shipped in time"
            self._wait(wait)
        self._loop.close()
        return None

    def stop(self, signum: int = 0, frame: FrameType | None = None) -> None:
        """Finish the batch under way and leave; also a signal handler."""
        self._stopped = True
        self._stops.put(None)

    def _wait(self, seconds: float) -> None:
        """Wait for so long, or until told to stop."""
        with suppress(Empty):
            self._stops.get(timeout=seconds)


def _open_for_good(destination: Destination, token: str) -> Sink:
    sink = open_sink(destination, token)
    freeze_loaded_objects()
    return sink


@contextmanager
def collector_lock(folder: Path) -> Iterator[Callable[[], bool]]:
    """Hold the folder's lock; yields a function that says whether we do.

    Not when another collector has it, and no more when the folder was deleted: who makes it again
    starts another collector there.

    Raises:
        JournalError: `flock` does not work in the folder.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        locked = _locked_within(fd, LOCK_SECONDS)
        if locked:
            check_flock(folder / LOCK_FILE)
        yield lambda: locked and _is_same_file(fd, folder / LOCK_FILE)
    finally:
        os.close(fd)


def collector_runs(folder: Path) -> bool:
    """Whether a collector holds the folder's lock.

    Raises:
        JournalError: `flock` does not work in the folder.
    """
    try:
        fd = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        check_flock(folder / LOCK_FILE)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def start_collector(settings: Settings) -> None:
    """Start a collector for these settings that outlives this process.

    Takes milliseconds: the new process detaches itself before it loads anything.

    Raises:
        OSError: the process cannot be started.
    """
    python = settings.collector_python or sys.executable
    log = Path(settings.home) / LOG_FILE
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    writing = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if _too_long(log) else os.O_APPEND)
    child = os.posix_spawn(
        python,
        [python, "-P", "-m", "flowledger", "collect", "--detached"],
        {**os.environ, **_as_environment(settings)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), writing, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        return  # the application reaps its children itself


def detach() -> None:
    """Leave the process that started us: our parent returns at once and we go on without it."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def note_destination(settings: Settings) -> None:
    """Write beside the journals where they go, without the password, for other shippers."""
    folder = settings.journal_folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / DESTINATION_FILE
    if not path.exists():
        write_private(path, msgspec.json.encode(settings.destination.redacted()))


def destinations(settings: Settings) -> Iterator[tuple[Path, Destination]]:
    """Every journal folder of this home and where its calls go; ours with our password."""
    ours = settings.destination
    yield settings.journal_folder, ours
    for path in sorted(Path(settings.home, "journal").glob(f"*/{DESTINATION_FILE}")):
        other = msgspec.json.decode(path.read_bytes(), type=Destination)
        if other.key != ours.key and any(segment_paths(path.parent)):
            yield path.parent, other


def _locked_within(fd: int, seconds: float) -> bool:
    """Try for a moment: whoever only asks whether a collector runs holds the lock too."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _too_long(log: Path) -> bool:
    return log.exists() and log.stat().st_size > LOG_MAX_BYTES


def _as_environment(settings: Settings) -> dict[str, str]:
    """The settings a collector needs, so that `configure()` reaches it too."""
    names = (
        *("tracking_uri", "artifact_root", "home", "store_as", "token", "log_level"),
        *("connect_seconds", "statement_seconds"),
    )
    return {f"FLOWLEDGER_{name.upper()}": str(getattr(settings, name)) for name in names}
