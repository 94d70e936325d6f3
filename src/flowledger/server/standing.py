"""How the ledger stands: numbers for `/metrics` that are asked of the database, not counted here.

Every server over one database says the same, whichever way calls came into it. So they are right
where counters of one server are not: after a restart, beside collectors that write to the database
themselves, and for the very first failure of a feature, which `rate()` cannot see.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy as sa
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowledger.questions import Ledger
from flowledger.questions.rows import Percentiles, Slice
from flowledger.questions.window import Window
from flowledger.server.database import Database
from flowledger.server.labels import LONGEST, NONE, OTHER

__all__ = ["Disks", "Standing", "StoreUp", "ask_standing", "folded"]

MINUTES_OF_A_DAY = 24 * 60
RECENT_MINUTES = 10
MOST_FEATURES = 10_000


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What the calls of one feature add up to; `last_ms` is when the last of them began."""

    calls: int = 0
    failed: int = 0
    cost_usd: float = 0.0
    last_ms: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)  # a registry looks collectors up by identity
class Standing(Collector):
    """The answers of one moment, as gauges.

    counts: `experiments` and `active_runs`.
    recent, hour, day: calls of the last ten minutes, hour and day, by feature.
    latency: of the calls of the last ten minutes.
    dropped: records that applications counted but could not keep, ever.
    database_bytes: what the database takes.
    months_ahead: months after this one that calls have a place for, where they are kept by month.
    """

    counts: Mapping[str, int]
    recent: Mapping[str, Feature]
    hour: Mapping[str, Feature]
    day: Mapping[str, Feature]
    latency: Percentiles
    dropped: int
    database_bytes: int
    months_ahead: int | None = None

    def collect(self) -> Iterator[Metric]:
        """One family a number."""
        yield _gauge("mlflow_active_runs", "Runs under way.", self.counts["active_runs"])
        yield _gauge("mlflow_experiments_total", "Active experiments.", self.counts["experiments"])
        yield _gauge(
            "flowledger_dropped_records",
            "Records that applications counted but could not keep, ever.",
            self.dropped,
        )
        yield _gauge("flowledger_database_bytes", "What the database takes.", self.database_bytes)
        if self.months_ahead is not None:
            yield _gauge(
                "flowledger_months_ahead",
                "Months after this one that calls have a place for; -1 without one for this month.",
                self.months_ahead,
            )
        yield self._recent_calls()
        yield self._recent_latency()
        yield _by_feature(
            "flowledger_hour_cost_usd",
            "US dollars of the priced calls of the last hour.",
            {feature: sums.cost_usd for feature, sums in self.hour.items()},
        )
        yield _by_feature(
            "flowledger_last_call_timestamp_seconds",
            "When the last call began, of features with calls in the last 24 hours.",
            {feature: sums.last_ms / 1000 for feature, sums in self.day.items()},
        )

    def _recent_calls(self) -> Metric:
        family = GaugeMetricFamily(
            "flowledger_recent_calls",
            f"Calls of the last {RECENT_MINUTES} minutes.",
            labels=("feature", "status"),
        )
        for feature, sums in self.recent.items():
            family.add_metric((feature, "success"), sums.calls - sums.failed)
            family.add_metric((feature, "failed"), sums.failed)
        return family

    def _recent_latency(self) -> Metric:
        family = GaugeMetricFamily(
            "flowledger_recent_latency_seconds",
            f"Latency that so many of the calls of the last {RECENT_MINUTES} minutes keep to.",
            labels=("quantile",),
        )
        latency = self.latency
        for quantile, milliseconds in (
            ("0.5", latency.p50),
            ("0.95", latency.p95),
            ("0.99", latency.p99),
        ):
            if milliseconds is not None:
                family.add_metric((quantile,), milliseconds / 1000)
        return family


class StoreUp(Collector):
    """Whether the database answers.

    Args:
        answers: what is known of it.
    """

    def __init__(self, answers: bool) -> None:
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        """1 or 0."""
        yield _gauge("flowledger_store_up", "Whether the database answers.", int(self._answers))


class Disks(Collector):
    """The disks that this server writes to: of its database's file, its artifacts, its numbers.

    Args:
        folders: what each is used for, and where.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    @classmethod
    def of_server(cls, tracking_uri: str, artifacts: str | None, metrics: str) -> "Disks":
        """Those that these settings put on a disk of this machine; the rest has its own metrics."""
        folders = {"numbers": Path(metrics)}
        if tracking_uri.startswith("sqlite"):
            folders["database"] = Path(sa.make_url(tracking_uri).database or "").absolute().parent
        parts = urlsplit(artifacts or "")
        if parts.path and parts.scheme in ("", "file"):
            folders["artifacts"] = Path(parts.path).absolute()
        return cls(folders)

    def collect(self) -> Iterator[Metric]:
        """Free and whole bytes; a folder that cannot be looked at is left out."""
        free = GaugeMetricFamily(
            "flowledger_disk_free_bytes", "Bytes that may still be written.", labels=("used_for",)
        )
        size = GaugeMetricFamily(
            "flowledger_disk_size_bytes", "Bytes of the whole disk.", labels=("used_for",)
        )
        for used_for, folder in self._folders.items():
            try:
                usage = shutil.disk_usage(_existing(folder))
            except OSError:
                continue
            free.add_metric((used_for,), usage.free)
            size.add_metric((used_for,), usage.total)
        return iter((free, size))


def ask_standing(ledger: Ledger, database: Database, most: int) -> Standing:
    """Ask how the ledger stands now.

    Args:
        ledger: what is asked about calls.
        database: the same one, for what is no call.
        most: features that keep their names.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    now_ms = time.time_ns() // 1_000_000
    recent = ledger.over(_last(RECENT_MINUTES, now_ms))
    return Standing(
        counts=database.counts(),
        recent=folded(recent.by("feature", MOST_FEATURES), most),
        hour=folded(ledger.over(_last(60, now_ms)).by("feature", MOST_FEATURES), most),
        day=folded(ledger.over(_last(MINUTES_OF_A_DAY, now_ms)).by("feature", MOST_FEATURES), most),
        latency=recent.percentiles(),
        dropped=ledger.losses().dropped,
        database_bytes=database.size(),
        months_ahead=database.months_ahead(),
    )


def folded(slices: Sequence[Slice], most: int) -> dict[str, Feature]:
    """Features by label: the first of them keep their names, the rest is `other`.

    Args:
        slices: the sums of each, the most calls first.
        most: how many keep their names.
    """
    together: dict[str, Feature] = {}
    for one in slices:
        label = (one.value or NONE)[:LONGEST]
        if label not in together and len(together.keys() - {NONE, OTHER}) >= most:
            label = NONE if label == NONE else OTHER
        there = together.get(label, Feature())
        together[label] = Feature(
            calls=there.calls + one.calls,
            failed=there.failed + one.failed,
            cost_usd=there.cost_usd + one.cost_usd,
            last_ms=max(there.last_ms, one.last_ms or 0),
        )
    return together


def _last(minutes: int, now_ms: int) -> Window:
    return Window.last(minutes / MINUTES_OF_A_DAY, now_ms)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _by_feature(name: str, text: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("feature",))
    for feature, value in values.items():
        family.add_metric((feature,), value)
    return family
