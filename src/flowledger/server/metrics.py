"""What `/metrics` tells Prometheus, the same whichever worker answers.

Workers keep their numbers in files of one folder (`PROMETHEUS_MULTIPROC_DIR`), and the one that is
asked adds them up. So that variable is set before this module is imported: `metrics_folder.py`.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from flowledger.server.labels import Labels
from flowledger.server.observed import Stored

__all__ = ["Metrics"]

OF_A_CALL = ("model", "feature", "persona")
CALL_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120)
LAG_SECONDS = (0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 24 * 3600)
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The numbers of one worker.

    Args:
        label_values: values of each label that keep their name.
    """

    content_type = prometheus_client.CONTENT_TYPE_LATEST

    def __init__(self, label_values: int) -> None:
        self._labels = Labels(label_values)
        self._calls = _counter("flowledger_calls", "Calls new in the ledger.", *OF_A_CALL, "status")
        self._tokens = _counter(
            "flowledger_tokens", "Tokens of calls new in the ledger.", *OF_A_CALL, "direction"
        )
        self._cost = _counter("flowledger_cost_usd", "US dollars of priced calls.", *OF_A_CALL)
        self._estimated = _counter(
            "flowledger_estimated_cost_usd",
            "The part of that cost that rests on estimated tokens.",
            *OF_A_CALL,
        )
        self._unpriced = _counter(
            "flowledger_unpriced_calls", "Calls whose price is unknown.", *OF_A_CALL
        )
        self._latency = _histogram(
            "flowledger_call_latency_seconds",
            "How long calls took, as the application saw it.",
            CALL_SECONDS,
            *(*OF_A_CALL, "status"),
        )
        self._lag = _histogram(
            "flowledger_ingest_lag_seconds",
            "From the end of a call to its commit in the ledger.",
            LAG_SECONDS,
        )
        self._batches = _counter(
            "flowledger_ingest_batches", "Batches that came to ingest, by HTTP status.", "status"
        )
        self._refused = _counter(
            "flowledger_ingest_refused_records", "Records the store will never take."
        )
        self._in_flight = Gauge(
            "flowledger_ingest_batches_in_flight",
            "Batches being read, waiting or being stored.",
            registry=None,
            multiprocess_mode="livesum",
        )
        self._requests = _counter(
            "mlflow_requests", "HTTP requests, MLflow's and ours.", "method", "route", "status"
        )
        self._durations = _histogram(
            "mlflow_request_duration_seconds",
            "How long HTTP requests took.",
            REQUEST_SECONDS,
            *("method", "route"),
        )

    def stored(self, calls: Sequence[Stored]) -> None:
        """Count calls that are new in the ledger, once they are committed."""
        now = time.time()
        tokens: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0, 0, 0, 0, 0])
        for call in calls:
            of_call = self._labels.of(
                model=call.model, feature=call.feature, persona=call.persona_id
            )
            status = "success" if call.success else "failed"
            self._calls.labels(*of_call, status).inc()
            self._latency.labels(*of_call, status).observe(call.latency_ms / 1000)
            self._lag.observe(max(0.0, now - (call.start_ms + call.latency_ms) / 1000))
            _add(tokens[of_call], call)
        for of_call, sums in tokens.items():
            self._add_sums(of_call, sums)

    def batch_begins(self) -> None:
        """A batch came to ingest."""
        self._in_flight.inc()

    def batch_ends(self, status: int, refused: int = 0) -> None:
        """A batch was answered, with so many of its records refused for good."""
        self._in_flight.dec()
        self._batches.labels(status).inc()
        self._refused.inc(refused)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """An HTTP request was answered; the labels are few already."""
        self._requests.labels(method, route, status).inc()
        self._durations.labels(method, route).observe(seconds)

    def text(self, others: Iterable[Collector]) -> bytes:
        """All numbers of all workers, as Prometheus reads them.

        Args:
            others: numbers that no worker counts, found out by the one that answers.
        """
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        for other in others:
            registry.register(other)
        return prometheus_client.generate_latest(registry)

    def _add_sums(self, of_call: tuple[str, ...], sums: Sequence[float]) -> None:
        tokens_in, tokens_out, cost, estimated, unpriced = sums
        self._tokens.labels(*of_call, "input").inc(tokens_in)
        self._tokens.labels(*of_call, "output").inc(tokens_out)
        self._cost.labels(*of_call).inc(cost)
        self._estimated.labels(*of_call).inc(estimated)
        self._unpriced.labels(*of_call).inc(unpriced)


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, registry=None)


def _histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
    return Histogram(name, text, labels, registry=None, buckets=buckets)


def _add(sums: list[float], call: Stored) -> None:
    sums[0] += max(0, call.input_tokens)
    sums[1] += max(0, call.output_tokens)
    sums[2] += max(0.0, call.cost_usd)
    sums[3] += max(0.0, call.estimated_cost_usd)
    sums[4] += call.unpriced
