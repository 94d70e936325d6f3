"""A process that stores captured calls as a server does, and prints its `/metrics`.

python -m tests.recount.storing URI FILE, with PROMETHEUS_MULTIPROC_DIR set to an empty folder.
"""

import sys
from pathlib import Path

import msgspec

from flowledger.config import Destination
from flowledger.server.metrics import Metrics
from flowledger.server.observed import ObservedWriter
from flowledger.store.bulk import open_bulk

PORTION = 250


def main(uri: str, path: Path) -> None:
    """Store the payloads of a file, some of them twice."""
    metrics = Metrics(label_values=1000)
    place = Destination(tracking_uri=uri, artifact_root=str(path.parent), store_as="run+trace")
    sink = open_bulk(place, lambda writer: ObservedWriter(writer, [metrics.stored]))
    assert sink is not None
    payloads = msgspec.msgpack.decode(path.read_bytes(), type=list[bytes])
    for start in range(0, len(payloads), PORTION):
        assert [] == sink.write(payloads[start : start + PORTION])
    assert [] == sink.write(payloads[:PORTION], redelivered=True)  # adds nothing
    sink.close()
    print(metrics.text([]).decode())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
