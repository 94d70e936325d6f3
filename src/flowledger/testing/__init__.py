"""Public fakes for tests: `capture_calls()`, an in-memory sink and a stub LLM server.

The stub server is in `flowledger.testing.llm`; it needs the `server` extra.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flowledger import config
from flowledger.capture import recorder
from flowledger.errors import RecordError
from flowledger.records import Call, Job, Record, decode, new_id
from flowledger.store import Refusal

__all__ = ["Captured", "MemorySink", "capture_calls"]


class Captured(list[Call]):
    """The calls recorded; `records` holds them too, in order among jobs, spans and artifacts."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Record] = []


@contextmanager
def capture_calls(**settings: Any) -> Iterator[Captured]:
    """Collect the calls recorded inside, as they would be stored, and write no journal.

    Args:
        settings: fields of `flowledger.config.Settings`, besides those of the environment.
    """
    calls = Captured()

    def keep(seq: int, payload: bytes) -> None:
        record = decode(payload)
        calls.records.append(record)
        if isinstance(record, Call):
            calls.append(record)

    before = recorder.use(recorder.Recorder(config.load(**settings), new_id(), keep))
    try:
        yield calls
    finally:
        recorder.use(before)


class MemorySink:
    """A `Sink` that keeps records in `records`, each id once, and refuses what is no record.

    Of a job it keeps the end, once there is one.
    """

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    batch_bytes = 1 << 20

    def write(self, payloads: Sequence[bytes], *, redelivered: bool = False) -> list[Refusal]:
        """Keep a batch."""
        refusals: list[Refusal] = []
        for index, payload in enumerate(payloads):
            try:
                record = decode(payload)
            except RecordError as exc:
                refusals.append(Refusal(index, str(exc)))
            else:
                known = self.records.setdefault(record.id, record)
                if isinstance(known, Job) and known.running:
                    self.records[record.id] = record
        return refusals

    def close(self) -> None:
        """Nothing to let go of."""
