"""The worker: does jobs of the queue until it is told to stop; `--until-empty` ends with them."""

import logging
import signal
import sys
import threading

from .config import Settings
from .jobs import Queue
from .pipeline import Pipeline

IDLE_SECONDS = 1.0
logger = logging.getLogger("technoshare")


def main() -> None:
    """Work."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings, stop = Settings.read(), threading.Event()
    queue, pipeline = Queue(settings.jobs), Pipeline(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with queue.worker() as name:
        while not stop.is_set():
            if step(queue, pipeline, name):
                continue
            if "--until-empty" in sys.argv:
                break
            stop.wait(IDLE_SECONDS)


def step(queue: Queue, pipeline: Pipeline, worker: str) -> bool:
    """Do one job; whether there was one."""
    job = queue.claim(worker)
    if job is None:
        return False
    try:
        outcome = pipeline.process_job(job)
    except Exception as exc:  # whatever a page or a server does, the next job is due
        logger.exception("%s %s: attempt %d failed", job.id, job.url, job.attempt)
        queue.fail(job, exc)
    else:
        logger.info("%s %s: %s", job.id, job.url, outcome)
        queue.finish(job, outcome)
    return True


if __name__ == "__main__":
    main()
