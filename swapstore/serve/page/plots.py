"""Plots: a line of values, as coordinates for an SVG that a template draws, and labels beside it.

The SVG is stretched to the width of the page, so it holds no text: labels are HTML around it, of a size that
can be read on a phone. Colours come from the style sheet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite

import attrs

from swapstore import figures

WIDTH, HEIGHT, MARGIN = 1000, 100, 6
MOST_DOTS = 60  # more of them would be a thick line


@attrs.frozen(kw_only=True)
class Plot:
    """A line, and what is said about it.

    `lines` are the points of each unbroken part, as a polyline takes them; `dots` are points as a path takes
    them. `ticks` are the labels of the vertical axis from the top to the bottom, `first` and `last` those of
    the horizontal one. `summary` says in words what is seen.
    """

    title: str
    summary: str
    lines: list[str]
    dots: str
    ticks: list[str]
    first: str
    last: str


def plot(
    title: str,
    values: Sequence[float | None],
    names: Sequence[str],
    label: Callable[[float], str],
    precise: Callable[[float], str] | None = None,
) -> Plot | None:
    """Return the plot of a value for each of these names, in this order. None: there is no value to draw.

    A value that is None, or not finite, is a gap. `label` formats a value for people; `precise` does so where
    `label` makes the least and the greatest look alike.
    """
    known = [value if value is not None and isfinite(value) else None for value in values]
    drawn = [value for value in known if value is not None]
    if not drawn:
        return None
    low, high = min(drawn), max(drawn)
    said = label if precise is None or low == high or label(low) != label(high) else precise
    points = [
        None if value is None else (_across(index, len(known)), _down(value, low, high))
        for index, value in enumerate(known)
    ]
    runs = _runs(points)
    lone = [run[0] for run in runs if len(run) == 1]
    dotted = [point for point in points if point] if len(drawn) <= MOST_DOTS else lone
    gaps = len(known) - len(drawn)
    summary = f"{figures.count(len(drawn), 'value')}, from {said(low)} to {said(high)}"
    return Plot(
        title=title,
        summary=f"{summary}; {figures.count(gaps, 'version')} without one." if gaps else f"{summary}.",
        lines=[" ".join(f"{x:.1f},{y:.1f}" for x, y in run) for run in runs if len(run) > 1],
        dots="".join(f"M{x:.1f} {y:.1f}h0" for x, y in dotted),
        ticks=[said(high)] if low == high else [said(high), said(high / 2 + low / 2), said(low)],
        first=names[0],
        last=names[-1] if len(names) > 1 else "",
    )


def _across(index: int, number: int) -> float:
    return WIDTH / 2 if number == 1 else MARGIN + index * (WIDTH - 2 * MARGIN) / (number - 1)


def _down(value: float, low: float, high: float) -> float:
    """Return how far below the top a value is drawn. Halves, because the whole range may be no float."""
    span = high / 2 - low / 2
    share = 0.5 if low == high or not span else (value / 2 - low / 2) / span
    return HEIGHT - MARGIN - share * (HEIGHT - 2 * MARGIN)


def _runs(points: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    """Return the parts of the line between gaps."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is not None:
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
