"""A program that records, forks, and goes on recording on both sides.

Its argument is the way it multiplies: `fork`, `pool-fork` or `pool-spawn`. It records `CALLS` calls
before, then as many at the same time in the parent and in each of `CHILDREN` children.
"""

import multiprocessing
import os
import random
import sys
import threading

import flowledger

CHILDREN = 4
CALLS = 250


@flowledger.track(feature="faults")
def work(number: int) -> str:
    """Something to record that does not compress."""
    return random.Random(number).randbytes(1000).hex()


def work_on(calls: int = CALLS) -> int:
    """Make so many calls; returns how many of them were answered."""
    return sum(len(work(number)) == 2000 for number in range(calls))


def by_fork() -> None:
    """Fork while another thread of ours is recording."""
    thread = threading.Thread(target=work_on)
    thread.start()
    children = [os.fork() or _child() for _ in range(CHILDREN)]
    thread.join()
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * CHILDREN


def by_pool(method: str) -> None:
    """Let a pool of processes do the work, and go on ourselves."""
    with multiprocessing.get_context(method).Pool(2) as pool:
        pending = pool.map_async(work_on, [CALLS] * CHILDREN, chunksize=1)
        work_on()
        assert pending.get() == [CALLS] * CHILDREN


def _child() -> int:
    os._exit(work_on() != CALLS)


if __name__ == "__main__":
    work_on()
    flowledger.flush(60)
    if sys.argv[1] == "fork":
        by_fork()
    else:
        by_pool(sys.argv[1].removeprefix("pool-"))
