"""An application whose calls are recorded while exceptions come out of nowhere, to be killed.

    python -m tests.faults.interrupted SECONDS SEED

Threads record without a pause. The main thread gets exceptions from a signal handler, another from
`PyThreadState_SetAsyncExc`, both at any instruction of recording. Each id goes to standard output
once the call that recorded it has returned. The last line tells how many exceptions were raised and
how many reached the application; then the process waits for its end.
"""

import ctypes
import json
import os
import random
import signal
import sys
import threading
import time
from types import FrameType

import flowledger
from flowledger.capture.context import current

OTHERS = 2


class TimeLimit(Exception):
    """As Celery's soft time limit: an ordinary exception, raised by a signal handler."""


class Nagging:
    """Raises in the main thread at random instants, by an alarm of some microseconds."""

    def __init__(self, seed: int) -> None:
        self.raised = 0
        self.random = random.Random(seed)
        signal.signal(signal.SIGALRM, self.raise_in_main_thread)

    def raise_in_main_thread(self, number: int, frame: FrameType | None) -> None:
        self.raised += 1
        if self.raised % 7 == 0:
            say(flowledger.record(model="m", prompt="from the handler"))
        raise TimeLimit

    def begin(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self.random.uniform(5e-6, 4e-4))

    def end(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Distant:
    """Raises in one thread at random instants, from another."""

    def __init__(self, seed: int) -> None:
        self.raised = 0
        self.random = random.Random(seed)
        self.target = 0
        self.wanted = False
        self.gate = threading.Lock()

    def begin(self) -> None:
        self.target = threading.get_ident()
        self.wanted = True

    def end(self) -> None:
        with self.gate:
            self.wanted = False

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            time.sleep(self.random.uniform(1e-5, 1e-3))
            with self.gate:
                if self.wanted:
                    self.wanted = False
                    self.raised += 1
                    thread, error = ctypes.c_ulong(self.target), ctypes.py_object(TimeLimit)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)


@flowledger.track(feature="faults")
def work(number: int) -> int:
    return number + 1


def say(call_id: str) -> None:
    os.write(1, f"{call_id}\n".encode())


def record_under(source: Nagging | Distant, until: float, reached: list[int]) -> None:
    """Record calls; whatever this source raises must arrive here, outside of every call."""
    while time.monotonic() < until:
        try:
            source.begin()
            for _ in range(5):
                say(flowledger.record(model="m", prompt={"question": "?" * 500}, user_id="ana"))
                work(reached[0])
            source.end()
        except TimeLimit:
            reached[0] += 1
        assert current().parent is None, "a call that ended is still the parent of others"


def record_plainly(until: float) -> None:
    while time.monotonic() < until:
        say(flowledger.record(model="m", prompt="in a thread"))


def main(seconds: float, seed: int) -> None:
    until = time.monotonic() + seconds
    nagging, distant = Nagging(seed), Distant(seed)
    alarms, others = [0], [0]
    threads = [threading.Thread(target=record_plainly, args=(until,)) for _ in range(OTHERS)]
    threads.append(threading.Thread(target=record_under, args=(distant, until, others)))
    threads.append(threading.Thread(target=distant.run, args=(until,)))
    for thread in threads:
        thread.start()
    record_under(nagging, until, alarms)
    signal.setitimer(signal.ITIMER_REAL, 0)
    for thread in threads:
        thread.join()
    counts = {"raised": nagging.raised + distant.raised, "reached": alarms[0] + others[0]}
    print(json.dumps({**counts, "alarms": nagging.raised}), flush=True)
    time.sleep(60)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
