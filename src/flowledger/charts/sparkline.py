"""A line as small as a word."""

from collections.abc import Sequence

__all__ = ["sparkline"]

WIDTH, HEIGHT, EDGE = 120, 32, 2


def sparkline(values: Sequence[float]) -> str:
    """The way of these values, as SVG in the colour of the text around it.

    It is beside a number that says the same, so a screen reader is spared it. Nothing is drawn of
    fewer than two values.
    """
    if len(values) < 2:
        return ""
    most = max(values) or 1.0
    step = (WIDTH - 2 * EDGE) / (len(values) - 1)
    points = " ".join(
        f"{EDGE + place * step:.1f},{HEIGHT - EDGE - value / most * (HEIGHT - 2 * EDGE):.1f}"
        for place, value in enumerate(values)
    )
    return (
        f'<svg class="sparkline" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none"'
        ' aria-hidden="true" focusable="false">'
        f'<polygon points="{EDGE},{HEIGHT} {points} {WIDTH - EDGE},{HEIGHT}"'
        ' fill="currentColor" fill-opacity="0.12"/>'
        f'<polyline points="{points}" fill="none" stroke="currentColor" stroke-width="1.5"'
        ' stroke-linejoin="round" vector-effect="non-scaling-stroke"/></svg>'
    )
