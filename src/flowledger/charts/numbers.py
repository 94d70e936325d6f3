"""Numbers as people read them: `$1,854.30`, `2.04%`, `975 ms`, `176.1M`; the unknown is `?`."""

from datetime import UTC, datetime

__all__ = [
    "UNKNOWN",
    "count",
    "day",
    "milliseconds",
    "minute",
    "moment",
    "money",
    "percent",
    "second",
    "short_count",
]

UNKNOWN = "?"
UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k"))


def count(value: int | None) -> str:
    """A whole number with its thousands apart."""
    return UNKNOWN if value is None else f"{value:,}"


def short_count(value: int | None) -> str:
    """A large number in few characters: `176.1M`; below 10,000 every digit is there."""
    if value is None:
        return UNKNOWN
    for size, name in UNITS:
        if value >= size:
            return f"{value / (1000 if name == 'k' else size):,.1f}{name}"
    return f"{value:,}"


def money(usd: float | None) -> str:
    """US dollars: cents for amounts, more places for the price of a single call."""
    if usd is None:
        return UNKNOWN
    if usd == 0 or usd >= 1:
        return f"${usd:,.2f}"
    if usd >= 0.01:
        return f"${usd:.4f}"
    return f"${usd:.6f}" if usd >= 1e-4 else f"${usd:.8f}"


def percent(value: float | None) -> str:
    """Per cent, with two places."""
    return UNKNOWN if value is None else f"{value:,.2f}%"


def milliseconds(value: float | None) -> str:
    """A latency in the unit it is read best in."""
    if value is None:
        return UNKNOWN
    if value < 10:
        return f"{value:.1f} ms"
    return f"{value:,.0f} ms" if value < 10_000 else f"{value / 1000:,.1f} s"


def moment(unix_ms: int | None) -> str:
    """A moment in UTC, to the second."""
    return _in_utc(unix_ms, "%Y-%m-%d %H:%M:%S")


def day(unix_ms: int | None) -> str:
    """A day in UTC: `19 Oct`."""
    return _in_utc(unix_ms, "%d %b").removeprefix("0")


def minute(unix_ms: int | None) -> str:
    """A moment in UTC, to the minute: `19 Oct 14:05`."""
    return _in_utc(unix_ms, "%d %b %H:%M").removeprefix("0")


def second(unix_ms: int | None) -> str:
    """A moment in UTC, to the second, without its year: `19 Oct 14:05:09`."""
    return _in_utc(unix_ms, "%d %b %H:%M:%S").removeprefix("0")


def _in_utc(unix_ms: int | None, form: str) -> str:
    if unix_ms is None:
        return UNKNOWN
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime(form)
