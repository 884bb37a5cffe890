"""The judge of the chaos rounds notices what it is there for."""

from __future__ import annotations

from typing import Any

import pytest

from swapstore import Gap, Row
from tests.chaos.judge import Commit, Read, Seen, fits, judge


def row(version: int, id_: str) -> Row:
    return Row(
        version=version, id=id_, ts=version, size=1, sha256="", codec="json", labels={}, committed_at=version
    )


def got(*commits: Commit) -> list[Read]:
    return [Read(commit, began) for began, commit in enumerate(commits)]


ROWS: list[Any] = [row(1, "a"), row(2, "b"), row(3, "c")]
RESET = Gap(dataset="mena", after=3, resumes_at=2, reason="reset")


def wrong(seen: Seen, rows: list[Any] = ROWS, damaged: tuple[str, ...] = ()) -> list[str]:
    """The kinds of what is wrong, with a durability."""
    return list(judge(seen, rows, damaged).wrong(is_durable=True))


def test_nothing_is_wrong() -> None:
    """The judge blames a store that did everything right."""
    seen = Seen({"a": 1, "c": 3}, reads=[got((1, "a", 1), (1, "a", 1), (3, "c", 3))], followed=[ROWS])
    found = judge(seen, ROWS)
    assert found.wrong(is_durable=True) == {}
    assert (found.acknowledged, found.surviving) == (2, 2)


def test_a_lost_one() -> None:
    """An acknowledged commit is lost, and nobody notices."""
    found = judge(Seen({"a": 1, "d": 4}), ROWS)
    assert found.wrong(is_durable=True) == {"lost": ("d, version 4",)}
    assert found.wrong(is_durable=False) == {}
    assert (found.acknowledged, found.surviving) == (2, 1)


@pytest.mark.parametrize(
    ("seen", "rows"),
    [
        (Seen(), [*ROWS, row(4, "a")]),
        (Seen({"a": 2}), ROWS),
        (Seen(followed=[[*ROWS, row(4, "a")]]), ROWS),
    ],
    ids=["in the history", "not where it was acknowledged", "for a follower"],
)
def test_a_doubled_one(seen: Seen, rows: list[Row]) -> None:
    """One publish became two commits, and nobody notices."""
    assert wrong(seen, rows) == ["doubled"]


def test_a_torn_one() -> None:
    """A reader got a payload that is not that of the row, and nobody notices."""
    assert wrong(Seen(torn=["a"])) == ["torn"]
    assert fits({"id": "a", "size": 2, "body": "xx"}, "a")
    for value in ({"id": "b", "size": 2, "body": "xx"}, {"id": "a", "size": 2, "body": "x"}, None):
        assert not fits(value, "a")


@pytest.mark.parametrize(
    "seen",
    [
        Seen(since={"c": 0.5}, reads=[got((3, "c", 3), (2, "b", 2))]),
        Seen(since={"c": 0.5}, reads=[got((3, "c", 3), (0, "", 0))]),
        Seen(since={"c": 0.5}, reads=[got((3, "c", 3), (2, "b", 2), (3, "c", 3))]),
        Seen(since={"c": 0.5}, reads=[got((3, "c", 3), (4, "lost", 4), (2, "b", 2))]),
        Seen(followed=[[*ROWS, row(3, "d")]]),
    ],
    ids=["a reader", "to nothing", "for a moment", "after the store went back", "a follower"],
)
def test_one_that_goes_back(seen: Seen) -> None:
    """A reader or a follower goes back although the store did not, and nobody notices."""
    assert wrong(seen) == ["backwards"]


@pytest.mark.parametrize(
    "seen",
    [
        Seen(since={"c": 0.5}, reads=[got((4, "lost", 4), (2, "b", 2), (3, "c", 3))]),
        Seen(since={"c": 0.5}, reads=[got((3, "lost", 3), (3, "c", 3))]),
        Seen(since={"c": 0.5}, reads=[got((3, "c", 1), (2, "b", 2), (3, "c", 3))]),
        Seen(since={"c": 1.5}, reads=[got((3, "c", 3), (2, "b", 2), (3, "c", 3))]),
        Seen(followed=[[row(1, "a"), row(2, "lost"), RESET, row(2, "b"), row(3, "c")]]),
        Seen(followed=[[*ROWS, RESET, *ROWS]]),
    ],
)
def test_a_store_that_goes_back_takes_its_readers_with_it(seen: Seen) -> None:
    """The judge blames a reader because a failover lost what it had read."""
    assert wrong(seen) == []


def test_one_that_a_follower_does_not_get() -> None:
    """A follower skips a commit, and nobody notices."""
    assert wrong(Seen(followed=[ROWS, ROWS[:2]])) == ["skipped"]


def test_damage() -> None:
    """What verify finds, or a history in disorder, is not counted."""
    assert wrong(Seen(), damaged=("a page is missing",)) == ["damaged"]
    assert wrong(Seen(), [row(2, "b"), row(1, "a")]) == ["damaged"]
