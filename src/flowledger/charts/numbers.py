"""Numbers as people read them: `$1,854.30`, `2.04%`, `975 ms`, `176.1M`; the unknown is `?`."""

from datetime import UTC, datetime

__all__ = [
    "UNKNOWN",
    "amount",
    "clock",
    "count",
    "day",
    "duration",
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


def amount(usd: float | None) -> str:
    """US dollars that calls add up to: cents, and more places only where there is less than one."""
    if usd is not None and 0.01 <= usd < 1:
        return f"${usd:.2f}"
    return money(usd)


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


def duration(ms: int) -> str:
    """How long something is, in the largest unit that it fills: `3 min`."""
    for length, name in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min")):
        if ms >= length:
            return f"{ms // length} {name}"
    return f"{max(0, ms) // 1000} s"


def moment(unix_ms: int | None) -> str:
    """A moment in UTC, to the second."""
    return _in_utc(unix_ms, "%Y-%m-%d %H:%M:%S")


def day(unix_ms: int | None) -> str:
    """A day in UTC: `19 Oct`."""
    return _in_utc(unix_ms, "%d %b").removeprefix("0")


def clock(unix_ms: int | None) -> str:
    """The hour and the minute of a moment in UTC: `14:05`; at midnight its day."""
    text = _in_utc(unix_ms, "%H:%M")
    return day(unix_ms) if text == "00:00" else text


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
