"""Times, ages and sizes as the command prints them for people."""

from __future__ import annotations

from datetime import datetime

import pytest

from swapstore import figures


@pytest.mark.parametrize("ts", [0, 1, 999, 1_000, 1_769_882_400_250, 253_402_300_799_999])
@pytest.mark.parametrize("separator", ["T", " "])
def test_a_time_can_be_given_back(ts: int, separator: str) -> None:
    """A person who copies a time from a table into --as-of would read another version."""
    moment = datetime.fromisoformat(figures.instant(ts, separator))
    assert round(moment.timestamp() * 1000) == ts


@pytest.mark.parametrize(
    ("elapsed_ms", "words"),
    [
        (0, "just now"),
        (999, "just now"),
        (1_000, "1 s ago"),
        (61_000, "1 min 1 s ago"),
        (3_600_000, "1 h ago"),
        (3_605_000, "1 h ago"),
        (93_600_000, "1 day 2 h ago"),
        (400 * 86_400_000, "400 days ago"),
        (-90_000, "in 1 min 30 s"),
    ],
)
def test_ages(elapsed_ms: int, words: str) -> None:
    """A person would misjudge how stale the data is."""
    assert figures.age(1_000_000_000_000 - elapsed_ms, now_ms=1_000_000_000_000) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 KB"),
        (26_049, "26.0 KB"),
        (379_173, "379 KB"),
        (2_518_088, "2.5 MB"),
        (64_000_000, "64.0 MB"),
    ],
)
def test_sizes(count: int, words: str) -> None:
    """A person would misjudge how large a payload is."""
    assert figures.size(count) == words


@pytest.mark.parametrize(
    ("length_ms", "words"),
    [(0, "0 ms"), (999, "999 ms"), (-5, "-5 ms"), (61_000, "1 min 1 s"), (-90_000, "-1 min 30 s")],
)
def test_intervals(length_ms: int, words: str) -> None:
    """A short interval is an empty text, and one between clocks that disagree a wrong one."""
    assert figures.interval(length_ms) == words
