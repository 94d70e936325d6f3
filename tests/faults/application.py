"""An application that records calls as its standard input tells it, one line of JSON at a time.

A line is `{"do": name, ...arguments}` and is answered with one line of JSON. It knows nothing of
tests: everything it says about its calls it measured itself, as their caller.
"""

import json
import logging
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import flowledger
from flowledger.capture import recorder


@flowledger.track(feature="faults", kind="chat", provider="openai", model="gpt-4o")
def answer(question: str) -> str:
    """What a model would say."""
    return question[::-1]


class Caller:
    """Calls `answer`, and keeps what a caller sees: its answers, what it raises, how long."""

    def __init__(self) -> None:
        self.wrong = 0
        self.raised: list[str] = []
        self.milliseconds: list[float] = []

    def call(self, size: int) -> None:
        """Ask one question of so many bytes."""
        question = f"{len(self.milliseconds)} ".ljust(size, "?")
        started = time.perf_counter()
        try:
            self.wrong += answer(question) != question[::-1]
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it must be told
            self.raised.append(repr(exc))
        self.milliseconds.append((time.perf_counter() - started) * 1e3)

    def told(self) -> dict[str, Any]:
        """What the calls so far were like."""
        ordered = sorted(self.milliseconds)
        return {
            "calls": len(ordered),
            "wrong": self.wrong,
            "raised": self.raised[:3],
            "median_ms": statistics.median(ordered),
            "p95_ms": ordered[int(len(ordered) * 0.95)],
            "max_ms": ordered[-1],
        }


def calls(count: int = 1, size: int = 100, pause: float = 0.0) -> dict[str, Any]:
    """Make so many calls."""
    caller = Caller()
    for _ in range(count):
        caller.call(size)
        time.sleep(pause)
    return caller.told()


class Background:
    """Calls that go on in a thread until told to stop."""

    def begin(self, pause: float = 0.01, size: int = 100) -> None:
        """Start calling."""
        self._caller = Caller()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(pause, size))
        self._thread.start()

    def end(self) -> dict[str, Any]:
        """Stop calling, and say what the calls were like."""
        self._stop.set()
        self._thread.join()
        return self._caller.told()

    def _run(self, pause: float, size: int) -> None:
        while not self._stop.wait(pause):
            self._caller.call(size)


def record(count: int = 1, **fields: Any) -> list[str]:
    """Record calls that happened elsewhere; returns their ids."""
    return [flowledger.record(**fields) for _ in range(count)]


def flush(timeout: float = 60.0) -> bool:
    """Wait until the store has everything."""
    return flowledger.flush(timeout)


def dropped() -> int:
    """How many records the journal had no room for."""
    writer = recorder._process.writer
    return 0 if writer is None else writer.dropped


def fork(count: int = 1, size: int = 100) -> int:
    """Fork a child that makes so many calls and then stays; returns its process id."""
    if child := os.fork():
        return child
    calls(count, size)
    while True:
        time.sleep(60)


background = Background()
COMMANDS: dict[str, Callable[..., Any]] = {
    "begin": background.begin,
    "calls": calls,
    "dropped": dropped,
    "end": background.end,
    "flush": flush,
    "fork": fork,
    "record": record,
}


def main() -> None:
    """Do what each line says."""
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    for line in sys.stdin:
        arguments = json.loads(line)
        print(json.dumps(COMMANDS[arguments.pop("do")](**arguments)), flush=True)


if __name__ == "__main__":
    main()
