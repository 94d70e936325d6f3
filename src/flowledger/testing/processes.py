"""Server processes for tests, demos and examples."""

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from flowledger.errors import FlowledgerError

__all__ = ["serving"]

PAUSE = 0.1
GRACE = 30.0
TOLD = 2000


@contextmanager
def serving(
    command: Sequence[str],
    url: str,
    log: Path,
    environ: Mapping[str, str] = os.environ,
    patience: float = 180.0,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that answers at this URL for the time of the block.

    Args:
        command: what starts it.
        url: is asked until it answers, with whatever status.
        log: file that what it prints is added to; its folder is made.
        environ: its environment.
        patience: longest to wait for the first answer, in seconds.

    Raises:
        FlowledgerError: it ended, or did not answer in time: the message ends with what it printed;
            or something else answers there already.
    """
    if _answers(url):
        raise FlowledgerError(f"something answers at {url} already: stop it, or take another port")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as printed:
        process = subprocess.Popen(command, env=environ, stdout=printed, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + patience
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                told = log.read_bytes()[-TOLD:].decode("utf-8", "replace")
                raise FlowledgerError(f"nothing answers at {url}; {log} ends with:\n{told}")
            time.sleep(PAUSE)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PAUSE * 50):
            return True
    except OSError as exc:
        return isinstance(exc, urllib.request.HTTPError)
