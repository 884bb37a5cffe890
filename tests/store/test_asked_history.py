"""`history` with `label`, `since` and `until`: which rows it returns, and what it reads to find them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from swapstore import InvalidInput, Retention, Store
from swapstore.errors import Contended
from swapstore.testing import SimulatedStore
from tests.follow.followers import grown
from tests.support.bulk import moment
from tests.support.drivers import Meddler, another, meddled
from tests.support.times import at

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def fill(store: Store, count: int) -> None:
    """One snapshot an hour; every sixth is a scheduled one, of the north and the south in turn."""
    for number in range(count):
        labels = {"trigger": "6h" if number % 6 == 0 else "hourly", "part": "ns"[number // 6 % 2]}
        store.publish("mena", number, ts=BEGAN + number * HOUR, labels=labels)


def hours(rows: Any) -> list[int]:
    return [(row.when - BEGAN) // HOUR for row in rows]


@pytest.mark.every_store
def test_labels_and_times_choose_rows(store: Store) -> None:
    """A history shows a row that was not asked for, or leaves one out, in the tail or in a page."""
    fill(store, 60)
    for client in (store, another(store)):
        assert hours(client.history("mena", label={"trigger": "6h"})) == [*range(54, -1, -6)]
        assert hours(client.history("mena", label={"trigger": "6h", "part": "s"})) == [54, 42, 30, 18, 6]
        assert hours(client.history("mena", label={"trigger": "6h", "other": ""})) == []
        since, until = BEGAN + 20 * HOUR, BEGAN + 40 * HOUR
        assert hours(client.history("mena", since=since, until=until)) == [*range(39, 19, -1)]
        assert hours(client.history("mena", since=int(until.timestamp() * 1000))) == [*range(59, 39, -1)]
        assert hours(client.history("mena", until=since, limit=None)) == [*range(19, -1, -1)]
        both = client.history("mena", label={"trigger": "6h"}, since=since, until=until)
        assert hours(both) == [36, 30, 24]
        assert hours(client.history("mena", since=since, until=since)) == []


def test_limit_counts_the_rows_that_were_asked_for(store: Store) -> None:
    """A limit counts rows that are not returned, or the next page repeats or skips one."""
    fill(store, 200)
    everything = hours(store.history("mena", label={"trigger": "6h"}, until=BEGAN + 190 * HOUR, limit=None))
    assert everything == [*range(186, -1, -6)]
    pieces, before = list[int](), None
    while piece := list(
        another(store).history(
            "mena", label={"trigger": "6h"}, until=BEGAN + 190 * HOUR, limit=5, before=before
        )
    ):
        assert len(piece) <= 5
        pieces += hours(piece)
        before = piece[-1].version
    assert pieces == everything
    assert list(store.history("mena", label={"trigger": "6h"}, limit=0)) == []


def test_a_rare_row_is_found_however_far_back() -> None:
    """A search ends at the first pages that have no such row."""
    store = SimulatedStore().connect()
    for number in range(300):
        store.publish("mena", number, ts=BEGAN + number * HOUR, labels={"n": "first"} if number == 0 else {})
    (row,) = another(store).history("mena", label={"n": "first"}, limit=1)
    assert row.version == 1


def test_rows_come_in_the_order_of_commits_also_when_their_times_do_not(store: Store) -> None:
    """A backfilled row is not found by its time, or stands where its time would be."""
    for number in range(40):
        store.publish("mena", number, ts=BEGAN + (number * 7 % 40) * HOUR)
    found = [*another(store).history("mena", since=BEGAN + 10 * HOUR, until=BEGAN + 13 * HOUR)]
    assert hours(found) == [hour for number in range(39, -1, -1) if 10 <= (hour := number * 7 % 40) < 13]
    assert [row.version for row in found] == sorted((row.version for row in found), reverse=True)


def test_what_retention_hides_is_not_found(store: Store) -> None:
    """A row that retention hides can be found by its label."""
    fill(store, 30)
    store.prune("mena", retention=Retention(max_count=10))
    assert hours(another(store).history("mena", label={"trigger": "6h"})) == [24]
    assert hours(another(store).history("mena", until=BEGAN + 20 * HOUR)) == []


def test_labels_are_the_callers_own(store: Store) -> None:
    """A program that edits the labels of a row changes what all readers of the process find."""
    fill(store, 30)
    for _ in range(2):
        for row in store.history("mena", limit=None):
            row.labels.clear()
    assert hours(store.history("mena", label={"trigger": "6h"})) == [24, 18, 12, 6, 0]


def test_a_dataset_that_is_dropped_while_its_history_is_read_is_not_damaged() -> None:
    """An operator who has dropped a dataset is told to look for damage."""
    store = SimulatedStore().connect()
    fill(store, 300)
    rows = iter(another(store).history("mena", limit=None))
    next(rows)
    store.drop("mena")
    with pytest.raises(Contended, match="or the dataset dropped"):
        list(rows)


def test_a_filter_is_checked_at_once(store: Store) -> None:
    """A wrong filter raises at the first row, or is taken for an empty history."""
    wrong: list[dict[str, Any]] = [
        {"label": "trigger=6h"},
        {"label": {"trigger": 6}},
        {"since": datetime(2026, 1, 1)},  # noqa: DTZ001 - a naive one, on purpose
        {"since": 7},
        {"until": "2026-01-01T00:00:00Z"},
        {"since": BEGAN + HOUR, "until": BEGAN},
    ]
    for arguments in wrong:
        name = next(iter(arguments))
        with pytest.raises(InvalidInput, match=f"dataset 'mena': .*{name}"):
            store.history("mena", **arguments)


# --- what it costs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deep() -> SimulatedStore:
    """Ten thousand commits, one a minute, without labels."""
    sim = SimulatedStore()
    grown(sim.connect(), 10_000)
    return sim


@pytest.fixture
def reader(deep: SimulatedStore) -> tuple[Store, Meddler]:
    return meddled(deep.connect())


def pages(meddler: Meddler) -> list[int]:
    """How many pages each round trip after the first one asked for."""
    return [len(batch) for batch in meddler.batches[1:]]


@pytest.mark.parametrize(
    ("first", "end", "expected"),
    [
        (5000, 5010, [1, 1, 1, 3]),
        (3, 5, [1, 1, 1, 1]),
        (9_700, 9_720, [1, 1, 3]),
        (5000, 5060, [1, 1, 2, 9]),
        (2_000, 2_400, [1, 2, 7, 16, 16, 16, 3]),
    ],
)
def test_times_skip_the_pages_around_them(
    reader: tuple[Store, Meddler], first: int, end: int, expected: list[int]
) -> None:
    """To list an hour out of a week reads the whole week."""
    store, meddler = reader
    rows = store.history("mena", since=at(moment(first)), until=moment(end), limit=None)
    assert [row.version for row in rows] == [*range(end - 1, first - 1, -1)]
    assert pages(meddler) == expected, "a round trip for each level of pages, and one for 128 rows"
    before = len(meddler.batches)
    assert list(store.history("mena", since=moment(10_001))) == []
    assert len(meddler.batches) == before + 1


def test_a_label_that_nothing_has_takes_a_round_trip_for_128_commits(reader: tuple[Store, Meddler]) -> None:
    """To find out that no commit has a label takes a round trip for every eight commits."""
    store, meddler = reader
    assert list(store.history("mena", label={"trigger": "6h"}, limit=1)) == []
    assert len(meddler.batches) <= 99


@pytest.mark.parametrize(("limit", "expected"), [(1, [1, 1, 1, 1]), (20, [1, 1, 1, 3])])
def test_a_limit_reads_no_page_that_it_does_not_need(
    reader: tuple[Store, Meddler], limit: int, expected: list[int]
) -> None:
    """A list of the last commit before a moment loads sixteen pages."""
    store, meddler = reader
    rows = list(store.history("mena", until=moment(4_097), limit=limit))
    assert [row.version for row in rows] == [*range(4_096, 4_096 - limit, -1)]
    assert pages(meddler) == expected


def test_pages_without_a_row_in_time_are_not_read_one_by_one() -> None:
    """Backfills spread the times of every page, and a search in time takes a round trip for each page."""
    store = SimulatedStore().connect()
    for number in range(400):
        store.publish("mena", number, ts=BEGAN + (number * 199 % 400) * HOUR)
    client, meddler = meddled(store)
    (row,) = client.history("mena", since=BEGAN, until=BEGAN + HOUR, limit=1)
    assert row.version == 1
    assert len(meddler.batches) <= 10


def test_each_step_of_a_long_search_ends(deep: SimulatedStore) -> None:
    """A search that finds nothing for long is one call: it cannot be closed or interrupted on the way."""
    client, meddler = meddled(deep.connect())
    steps = client._calls.history("mena", label={"trigger": "6h"})
    counts = []
    while (items := client._run(steps.step())) is not None:
        assert items == []
        counts.append(len(meddler.batches))
        meddler.batches.clear()
    assert len(counts) > 50
    assert max(counts) <= 5
