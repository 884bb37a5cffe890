"""The checker rejects bad histories: a checker that accepts everything proves nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

import swapstore
from swapstore import Store
from swapstore.commands import Command, Get, Swap
from swapstore.drivers.base import Driver
from tests.linearizability import recorder
from tests.linearizability.checker import violations
from tests.linearizability.events import Event, Rows, from_line, to_line


def published(start: int, end: int, version: int, name: str, **changes: object) -> Event:
    """A publish that was acknowledged; `name` is the client and a number, as in `a-1`."""
    event = Event(
        client=name.partition("-")[0],
        kind="publish",
        start=start,
        end=end,
        id=name,
        value=name,
        version=version,
        etag=f"e.{version}.n{version}",
        created=True,
    )
    return attrs.evolve(event, **changes)  # type: ignore[arg-type]


def unknown(start: int, end: int, name: str) -> Event:
    return published(start, end, 0, name, outcome="unknown", etag="", created=False)


def read(start: int, end: int, version: int, name: str | None, client: str = "r", **changes: object) -> Event:
    etag = f"e.{version}.n{version}" if version else ""
    event = Event(
        client=client, kind="read", start=start, end=end, version=version, etag=etag, id=name, value=name
    )
    return attrs.evolve(event, **changes)  # type: ignore[arg-type]


GOOD: list[Event] = [
    read(0, 5, 0, None),
    published(10, 20, 1, "a-1"),
    published(15, 40, 3, "b-1"),
    published(22, 30, 2, "a-2"),
    read(16, 18, 1, "a-1"),
    read(24, 39, 3, "b-1"),
    read(41, 42, 3, "b-1"),
]
ROWS: Rows = [(1, "a-1"), (2, "a-2"), (3, "b-1")]


def names(events: list[Event], rows: Rows) -> set[str]:
    return {violation.split(":")[0] for violation in violations(events, rows)}


def test_a_good_history_is_accepted() -> None:
    """Sound releases are rejected, because overlapping calls may take effect in any order."""
    assert violations(GOOD, ROWS) == []
    assert violations([], []) == []


BAD: dict[str, tuple[list[Event], Rows]] = {
    "acknowledged and lost": (GOOD, ROWS[:2]),
    "duplicate version": ([*GOOD, published(21, 41, 3, "c-1")], ROWS),
    "version gap": ([*GOOD, published(41, 50, 5, "c-1")], [*ROWS, (5, "c-1")]),
    "committed twice": (GOOD, [*ROWS, (4, "a-1")]),
    "unexplained": (GOOD, [*ROWS, (4, "nobody-1")]),
    "failed yet committed": (
        [*GOOD, published(50, 60, 0, "c-1", outcome="failed", etag="", created=False)],
        [*ROWS, (4, "c-1")],
    ),
    "created twice": ([*GOOD, published(50, 60, 1, "a-1")], ROWS),
    "told that it was there before, by nobody": (
        [*GOOD, published(50, 60, 4, "c-1", created=False)],
        [*ROWS, (4, "c-1")],
    ),
    "publishes out of order": (
        [*GOOD, published(41, 50, 5, "c-1"), published(51, 60, 4, "c-2")],
        [*ROWS, (4, "c-2"), (5, "c-1")],
    ),
    "stale read": ([*GOOD, read(50, 60, 2, "a-2")], ROWS),
    "read from the future": (
        [*GOOD, published(50, 60, 4, "c-1"), read(43, 45, 4, "c-1")],
        [*ROWS, (4, "c-1")],
    ),
    "reads out of order": ([*GOOD, read(23, 24, 3, "b-1", "s"), read(25, 26, 2, "a-2", "t")], ROWS),
    "back in time within a client": (
        [*GOOD, read(31, 33, 3, "b-1", "s"), read(34, 36, 2, "a-2", "s")],
        ROWS,
    ),
    "read a value that no publish wrote": ([*GOOD, read(50, 60, 3, "b-1", value="half of it")], ROWS),
    "read what was never committed": ([*GOOD, unknown(43, 44, "c-1"), read(50, 60, 4, "c-1")], ROWS),
    "served another version than the newest": ([*GOOD, read(50, 60, 2, "a-2", etag="e.3.n3")], ROWS),
    "two manifests of one version": ([*GOOD, read(50, 60, 3, "b-1", etag="e.3.other")], ROWS),
    "created a version under the etag of another": (
        [*GOOD, published(50, 60, 4, "c-1", etag="e.3.n3")],
        [*ROWS, (4, "c-1")],
    ),
    "more than one epoch": ([*GOOD, read(50, 60, 3, "b-1", etag="f.3.n3")], ROWS),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_rejected(name: str) -> None:
    """A release passes that loses, repeats, invents or takes back a version."""
    assert name in names(*BAD[name])


@pytest.mark.parametrize("end", [49, 10**12])
def test_none_after_a_publish_is_rejected(end: int) -> None:
    """A reader that is told 'nothing published' after a publish goes unnoticed."""
    assert "stale read" in names([*GOOD, read(45, end, 0, None, "s")], ROWS)


def test_an_unknown_outcome_may_have_happened_or_not() -> None:
    """Every release is rejected on a network that loses replies."""
    attempt = unknown(50, 60, "c-1")
    assert violations([*GOOD, attempt], ROWS) == []
    assert violations([*GOOD, attempt], [*ROWS, (4, "c-1")]) == []
    late = [*GOOD, attempt, published(70, 80, 4, "d-1"), read(85, 90, 4, "d-1")]
    assert violations(late, [*ROWS, (4, "d-1"), (5, "c-1")]) == [], "it may take effect long after it ended"


def test_an_unknown_outcome_cannot_happen_before_it_began() -> None:
    """A read that returns a value before its publish began goes unnoticed."""
    early = [*GOOD, unknown(50, 60, "c-1"), read(43, 45, 4, "c-1")]
    assert "read from the future" in names(early, [*ROWS, (4, "c-1")])
    before_others = [*GOOD, published(43, 45, 5, "d-1"), unknown(50, 60, "c-1")]
    assert "publishes out of order" in names(before_others, [*ROWS, (4, "c-1"), (5, "d-1")])


def test_a_publish_repeated_after_an_unknown_outcome_is_one_publish() -> None:
    """A retry is rejected that finds its first attempt committed."""
    first, second = unknown(50, 60, "c-1"), published(70, 80, 4, "c-1", created=False)
    between = read(62, 64, 4, "c-1")
    rows = [*ROWS, (4, "c-1")]
    assert violations([*GOOD, first, between, second], rows) == []
    created = attrs.evolve(second, created=True)
    assert names([*GOOD, first, between, created], rows) == {"read from the future"}, "it was not there yet"
    late = attrs.evolve(second, etag="e.3.n3")
    assert "stale read" in names([*GOOD, first, published(65, 66, 5, "d-1"), late], [*rows, (5, "d-1")])


def test_events_are_the_same_after_leaving_a_process() -> None:
    """What another process observed is judged differently from what was observed here."""
    assert [from_line(to_line(event)) for event in GOOD] == GOOD


# --- real stores that are broken -------------------------------------------------------------------------


class BlindDriver:
    """Commits over any content: `SET` instead of compare-and-set."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.where = driver.where
        self.kind = driver.kind
        self.binary_safe = driver.binary_safe

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        return self._driver.execute([self._blind(command) for command in commands])

    def _blind(self, command: Command[Any]) -> Command[Any]:
        if not isinstance(command, Swap):
            return command
        (stored,) = self._driver.execute([Get(command.key)])
        return msgspec.structs.replace(command, expected=stored or b"")

    def close(self) -> None:
        self._driver.close()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """Two clients of one file."""
    url = f"sqlite:///{tmp_path}/store.db"
    with swapstore.connect(url) as one, swapstore.connect(url) as other:
        yield one, other


def rows_of(store: Store) -> Rows:
    return [(row.version, row.id) for row in store.history(recorder.DATASET, limit=None)][::-1]


def test_a_store_without_compare_and_set_is_found(stores: tuple[Store, Store]) -> None:
    """The recorder and the checker miss that one producer overwrites the version of another."""
    one, other = (Store(BlindDriver(store._driver), store._context) for store in stores)
    events = [recorder.publish(one, "a", 1), recorder.publish(other, "b", 1), recorder.publish(one, "a", 2)]
    found = names(events, rows_of(other))
    assert {"acknowledged and lost", "duplicate version", "two manifests of one version"} <= found


def test_a_store_that_serves_stale_reads_is_found(stores: tuple[Store, Store]) -> None:
    """The recorder and the checker miss a reader that serves what was replaced."""
    one, other = stores
    events = [recorder.publish(one, "a", 1)]
    reading = recorder.Plan(client="r", seed=1, calls=1, share=0)
    events += recorder.run(other, reading, max_staleness=60)
    events.append(recorder.publish(one, "a", 2))
    assert violations(events, rows_of(one)) == []
    events += recorder.run(other, reading, max_staleness=60)
    assert names(events, rows_of(one)) == {"stale read"}
