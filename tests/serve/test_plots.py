"""Lines of values: whatever the values are, the coordinates can be drawn, and the labels can be read."""

from __future__ import annotations

from math import inf, nan

import pytest

from swapstore.serve.page.plots import HEIGHT, WIDTH, Plot, plot


def drawn(*values: float | None) -> Plot | None:
    return plot("Size", values, [f"version {n}" for n in range(1, len(values) + 1)], "{:g}".format)


def points(found: Plot | None) -> list[tuple[float, float]]:
    """All points, checked to lie within the picture."""
    assert found is not None
    pairs = [each.split(",") for line in found.lines for each in line.split()]
    pairs += [each.removesuffix("h0").split() for each in found.dots.split("M")[1:]]
    numbers = [(float(x), float(y)) for x, y in pairs]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in numbers), numbers
    return numbers


@pytest.mark.parametrize(
    "values",
    [
        (1.0,),
        (0.0, 0.0, 0.0),
        (5.0, 5.0),
        (-1.7e308, 1.7e308),
        (1.7e308, 1.7e308),
        (0.0, 5e-324),
        (inf, 1.0, -inf, nan, 2.0),
        tuple(float(n) for n in range(200)),
    ],
)
def test_any_values_are_drawn_within_the_picture(values: tuple[float, ...]) -> None:
    """One value, values that never change, and huge ones divide by zero, or leave the picture."""
    assert points(drawn(*values))


def test_nothing_to_draw_is_no_plot() -> None:
    """An empty plot has no least value, and the page fails."""
    assert drawn() is None
    assert drawn(None, nan) is None


def test_a_gap_breaks_the_line_and_is_told_of() -> None:
    """The line goes on over versions that have no value, as if they had one."""
    found = drawn(1, 2, None, 3, None, 4, 5)
    assert found is not None
    assert [len(line.split()) for line in found.lines] == [2, 2]
    assert found.summary == "5 values, from 1 to 5; 2 versions without one."
    assert len(points(found)) == 4 + 5  # the value between two gaps is a dot


def test_a_lone_value_among_many_is_seen() -> None:
    """A value between two gaps is neither on a line nor a dot."""
    found = drawn(*([1.0] * 100), None, 7.0, None, *([1.0] * 100))
    assert found is not None
    assert found.dots.count("M") == 1


def test_the_greatest_value_is_on_top() -> None:
    """The plot is upside down, or its labels are."""
    found = drawn(1, 3)
    (_, low), (_, high) = points(found)[:2]
    assert high < low
    assert found is not None
    assert found.ticks == ["3", "2", "1"]


def test_labels_that_look_alike_become_precise() -> None:
    """Three equal labels beside a line that moves."""
    names = ["version 1", "version 2"]
    found = plot("Size", [2_500_001, 2_500_003], names, lambda _: "2.5 MB", "{:,.0f} B".format)
    assert found is not None
    assert found.ticks == ["2,500,003 B", "2,500,002 B", "2,500,001 B"]
