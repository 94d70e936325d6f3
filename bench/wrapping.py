"""What wrapping a client adds to a call of 20 ms, beside the same client unwrapped.

Both clients are in one process and take turns, call by call, so that what disturbs one disturbs
the other; what is added is the median of the differences within each turn. A stream has no goal:
here its 45 chunks come within 10 ms, and each costs some microseconds.
"""

from statistics import median

from bench.places import temporary_folder
from bench.processes import Child
from bench.table import Row, at_most
from flowledger.testing.llm import StubLLM

__all__ = ["measure"]

LATENCY_MS = 20
CALLS, QUICK_CALLS = 400, 40
WARM_UP = 10
ADDED_PERCENT = 1
NAMES = ("openai chat", "openai stream", "anthropic message")


def measure(quick: bool) -> list[Row]:
    """For each sort of call: both medians side by side, and what is added in percent."""
    with temporary_folder() as folder, StubLLM.process(latency_ms=LATENCY_MS) as stub:
        environ = {"FLOWLEDGER_HOME": str(folder / "home"), "FLOWLEDGER_COLLECTOR": "off"}
        with Child("wrapped", environ, url=stub.url) as child:
            calls = QUICK_CALLS if quick else CALLS
            return [row for name in NAMES for row in _rows(child, name, calls)]


def _rows(child: Child, name: str, calls: int) -> list[Row]:
    child.ask("timed", name=name, calls=WARM_UP)
    took = child.ask("timed", name=name, calls=calls)
    plain, wrapped = took["plain"], took["wrapped"]
    added = median(two - one for one, two in zip(plain, wrapped, strict=True))
    return [
        Row(
            subject="wrap",
            what=f"{name}, median",
            value=median(wrapped) / 1e6,
            unit="ms",
            peer="unwrapped",
            peer_value=median(plain) / 1e6,
        ),
        Row(
            subject="wrap",
            what=f"{name}, added",
            value=100 * added / median(plain),
            unit="%",
            goal=None if "stream" in name else at_most(ADDED_PERCENT),
        ),
    ]
