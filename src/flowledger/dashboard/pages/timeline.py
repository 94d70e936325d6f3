"""Steps of a call as bars in a drawing, measured in thousandths of its width."""

from collections.abc import Sequence

import msgspec

from flowledger.questions import Step

__all__ = ["Bar", "bars_of"]

WIDTH = 1000
LEAST_WIDTH = 4


class Bar(msgspec.Struct, frozen=True):
    """A step and where its bar begins and how long it is; `after_ms` counts from the first one."""

    step: Step
    x: float
    width: float
    after_ms: float


def bars_of(steps: Sequence[Step]) -> list[Bar]:
    """A bar for each step, in their order, over the time of all."""
    if not steps:
        return []
    first = min(step.start_ms for step in steps)
    whole = max(step.start_ms + step.duration_ms for step in steps) - first or 1.0
    return [
        Bar(
            step,
            x=min((step.start_ms - first) / whole * WIDTH, WIDTH - LEAST_WIDTH),
            width=max(LEAST_WIDTH, step.duration_ms / whole * WIDTH),
            after_ms=step.start_ms - first,
        )
        for step in steps
    ]
