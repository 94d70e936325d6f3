"""How long calls took: percentiles of a whole, of its parts and over time, from one reading."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from flowledger import latency
from flowledger.questions.rows import Percentiles

__all__ = ["Histogram", "Speeds", "percentiles_of"]

Histogram = list[tuple[int, int]]  # buckets of `flowledger.latency` with their calls


class Speeds:
    """Percentiles of latency of a window.

    Args:
        counted: for each span of time, by when it begins, and part: buckets with their calls.
    """

    def __init__(self, counted: Mapping[tuple[int, str | None], Histogram]) -> None:
        self._counted = counted

    def whole(self) -> Percentiles:
        """Of all calls."""
        return percentiles_of(_merged(self._counted.values()))

    def by_part(self) -> dict[str | None, Percentiles]:
        """Of each part."""
        return {value: percentiles_of(some) for value, some in self.histograms().items()}

    def by_period(self) -> dict[int, Percentiles]:
        """Of each span of time, by when it begins."""
        found: defaultdict[int, list[Histogram]] = defaultdict(list)
        for (start_ms, _), some in self._counted.items():
            found[start_ms].append(some)
        return {start: percentiles_of(_merged(found[start])) for start in sorted(found)}

    def histograms(self) -> dict[str | None, Histogram]:
        """The buckets of each part."""
        found: defaultdict[str | None, list[Histogram]] = defaultdict(list)
        for (_, value), some in self._counted.items():
            found[value].append(some)
        return {value: _merged(some) for value, some in found.items()}


def percentiles_of(histogram: Histogram) -> Percentiles:
    """What is read from buckets: within 2 %."""
    return Percentiles(
        **{f"p{percent}": latency.percentile(histogram, percent) for percent in (50, 90, 95, 99)}
    )


def _merged(histograms: Iterable[Histogram]) -> Histogram:
    together: Counter[int] = Counter()
    for histogram in histograms:
        together.update(dict(histogram))
    return list(together.items())
