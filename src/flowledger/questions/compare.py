"""Models side by side: what calls cost, how long they took, how often they failed, and how good."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from flowledger.errors import NotFound
from flowledger.questions.certainty import (
    Interval,
    difference_of_means,
    difference_of_rates,
    of_percentile,
    of_rate,
)
from flowledger.questions.over import Over
from flowledger.questions.rows import Percentiles, Sums

__all__ = ["Comparison", "Difference", "Side", "compare"]

MOST_NAMED = 20


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One model over the window; rates are in per cent, None is unknown or not measured.

    Costs and tokens per call are over the calls of which they are known.
    """

    model: str
    calls: int
    failed: int
    error_rate: float
    error_rate_interval: Interval | None
    cost_usd: float | None
    unpriced: int
    cost_per_call_usd: float | None
    input_tokens: int
    output_tokens: int
    tokens_per_call: float | None
    mean_latency_ms: float
    p50_latency_ms: float | None
    p90_latency_ms: float | None
    p95_latency_ms: float | None
    p99_latency_ms: float | None
    p95_latency_interval: Interval | None
    confidence: float | None
    confidences: int
    template_match_rate: float | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """How a model differs from the first one, and how sure that is.

    `interval` is None where too little is known for one.
    """

    model: str
    measure: str
    difference: float
    interval: Interval | None
    sure: bool
    sentence: str


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Models side by side, and what is to be said of each beside the first."""

    models: list[Side]
    differences: list[Difference]


def compare(models: Sequence[str], over: Callable[[str | None], Over]) -> Comparison:
    """These models over one window.

    Args:
        models: two or more, the first is what the others are compared with.
        over: the window of one model, or of all.

    Raises:
        NotFound: a model has no calls in the window.
    """
    sides = []
    for model in models:
        window = over(model)
        sums = window.sums()
        if not sums.calls:
            some = ", ".join(
                str(row.value) for row in over(None).by("model", MOST_NAMED) if row.value
            )
            raise NotFound(f"no call of {model} in this window; there are: {some or 'none'}")
        histograms = window.histograms("model")
        histogram = next(iter(histograms.values()))
        deviations = window.deviations(sums)
        sides.append(_Measured(model, sums, window.percentiles(), histogram, *deviations))
    return Comparison(
        models=[one.side() for one in sides],
        differences=[said for one in sides[1:] for said in one.beside(sides[0])],
    )


class _Measured(msgspec.Struct, frozen=True):
    """What is known of one model."""

    model: str
    sums: Sums
    speed: Percentiles
    histogram: list[tuple[int, int]]
    latency_std_ms: float
    confidence_std: float

    def side(self) -> Side:
        sums, speed = self.sums, self.speed
        rate = of_rate(sums.failed, sums.calls)
        return Side(
            model=self.model,
            calls=sums.calls,
            failed=sums.failed,
            error_rate=sums.error_rate,
            error_rate_interval=rate and _scaled(rate, 100),
            cost_usd=sums.spend_usd,
            unpriced=sums.unpriced,
            cost_per_call_usd=sums.cost_per_call_usd if sums.priced else None,
            input_tokens=sums.input_tokens,
            output_tokens=sums.output_tokens,
            tokens_per_call=sums.total_tokens / sums.counted if sums.counted else None,
            mean_latency_ms=sums.mean_latency_ms,
            p50_latency_ms=speed.p50,
            p90_latency_ms=speed.p90,
            p95_latency_ms=speed.p95,
            p99_latency_ms=speed.p99,
            p95_latency_interval=of_percentile(self.histogram, 95),
            confidence=sums.mean_confidence if sums.confidences else None,
            confidences=sums.confidences,
            template_match_rate=sums.template_match_rate if sums.template_matches else None,
        )

    def beside(self, first: "_Measured") -> Iterator[Difference]:
        """How it differs from another, measure by measure."""
        yield self._failures(first)
        yield self._latency(first)
        if self.sums.priced and first.sums.priced:
            yield self._cost(first)
        if self.sums.confidences and first.sums.confidences:
            yield self._confidence(first)

    def _failures(self, first: "_Measured") -> Difference:
        one, other = self.sums, first.sums
        points = one.error_rate - other.error_rate
        interval = difference_of_rates(one.failed, one.calls, other.failed, other.calls)
        scaled = interval and _scaled(interval, 100)
        how = "more" if points > 0 else "less"
        claim = f"{self.model} fails {abs(points):.2f} points {how} often than {first.model}"
        return self._difference("error rate, points", points, scaled, claim, ".2f", first)

    def _latency(self, first: "_Measured") -> Difference:
        one, other = self.sums, first.sums
        interval = difference_of_means(
            one.mean_latency_ms,
            self.latency_std_ms,
            one.calls,
            other.mean_latency_ms,
            first.latency_std_ms,
            other.calls,
        )
        ms = one.mean_latency_ms - other.mean_latency_ms
        how = "longer" if ms > 0 else "less"
        claim = f"{self.model} takes {abs(ms):,.1f} ms {how} on average than {first.model}"
        return self._difference("mean latency, ms", ms, interval, claim, ",.1f", first)

    def _confidence(self, first: "_Measured") -> Difference:
        one, other = self.sums, first.sums
        interval = difference_of_means(
            one.mean_confidence,
            self.confidence_std,
            one.confidences,
            other.mean_confidence,
            first.confidence_std,
            other.confidences,
        )
        more = one.mean_confidence - other.mean_confidence
        how = "more" if more > 0 else "less"
        claim = f"{self.model} is {abs(more):.3f} {how} confident than {first.model}"
        return self._difference("confidence", more, interval, claim, ".3f", first)

    def _cost(self, first: "_Measured") -> Difference:
        one, other = self.sums.cost_per_call_usd, first.sums.cost_per_call_usd
        if other:
            how = f"{abs(one / other - 1):.0%} {'more' if one > other else 'less'}"
        else:
            how = f"${one:.6f} more"
        return Difference(
            model=self.model,
            measure="cost per call, US dollars",
            difference=one - other,
            interval=None,
            sure=False,
            sentence=f"{self.model} costs {how} per call than {first.model}: the averages of"
            f" {self.sums.priced:,} and {first.sums.priced:,} calls with a known price, without an"
            " interval.",
        )

    def _difference(
        self,
        measure: str,
        difference: float,
        interval: Interval | None,
        claim: str,
        form: str,
        first: "_Measured",
    ) -> Difference:
        calls = f"{self.sums.calls:,} and {first.sums.calls:,} calls"
        if interval is None:
            known = f"{calls}, too few for an interval: not sure."
        else:
            low, high = (f"{end:+{form}}" for end in interval)
            sure = "sure" if interval.tells else "not sure, for 0 lies between"
            known = f"{low} to {high} at 95 %, {calls}: {sure}."
        return Difference(
            model=self.model,
            measure=measure,
            difference=difference,
            interval=interval,
            sure=interval is not None and interval.tells,
            sentence=f"{claim} ({known[:-1]}).",
        )


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(interval.low * factor, interval.high * factor)
