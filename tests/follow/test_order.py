"""A follower gives every commit in its order: none is skipped and none comes twice."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest

from swapstore import InvalidInput, Retention, Row, Store
from swapstore.commands import Get
from swapstore.format.search import BATCH_PAGES
from swapstore.testing import SimulatedStore
from tests.follow.followers import Collected, grown, ids, publish, retained, take, versions
from tests.support.drivers import another, meddled
from tests.support.times import at

FAST = 0.02


@pytest.mark.every_store
def test_the_next_commit_from_the_call_on(store: Store) -> None:
    """A consumer that starts before its producer misses the very next commit, or gets old ones."""
    publish(store, 3)
    follower = store.follow("mena", poll=FAST)
    publish(store, 2, begin=3)
    assert versions(take(follower, 2)) == [4, 5]
    follower.close()


def test_from_the_oldest_and_from_a_version(store: Store) -> None:
    """A consumer that was away does not get what it missed, or gets all of it again."""
    publish(store, 70)
    everything, rest = store.follow("mena", after=0, poll=FAST), another(store).follow("mena", after=40)
    assert versions(take(everything, 70)) == list(range(1, 71))
    assert versions(take(rest, 30)) == list(range(41, 71))
    store.publish("mena", "more", id="more", labels={"run": "7"})
    (row,), (same,) = take(everything, 1), take(rest, 1)
    assert row == same == next(iter(store.history("mena")))
    everything.close()
    rest.close()


@pytest.mark.parametrize("after", [None, 0])
def test_a_dataset_that_is_not_there_yet(store: Store, after: int | None) -> None:
    """A consumer that is deployed before its producer fails, or misses the first commit."""
    follower = store.follow("mena", after=after, poll=FAST)
    publish(store, 2)
    assert versions(take(follower, 2)) == [1, 2]
    follower.close()


def test_pins_rollbacks_and_confirmations_are_not_commits(store: Store) -> None:
    """A consumer repeats its side effects for a snapshot that it has handled."""
    publish(store, 2)
    follower = store.follow("mena", after=0, poll=FAST)
    store.pin("mena", id="mena-0")
    store.confirm("mena")
    store.rollback("mena", id="mena-0")
    store.unpin("mena")
    publish(store, 1, begin=2)
    assert versions(take(follower, 3)) == [1, 2, 7]
    follower.close()


def test_backfills_come_in_the_order_of_their_commits(store: Store) -> None:
    """A snapshot of last month that is published today never reaches the consumer."""
    follower = store.follow("mena", poll=FAST)
    for number, ts in enumerate((5000, 1000, 3000)):
        store.publish("mena", number, ts=at(ts), id=f"at-{ts}")
    assert ids(take(follower, 3)) == ["at-5000", "at-1000", "at-3000"]
    follower.close()


def test_a_repeated_publish_is_one_commit(store: Store) -> None:
    """A producer that retries makes the consumer act twice."""
    follower = store.follow("mena", poll=FAST)
    for _ in range(3):
        store.publish("mena", 1, id="same")
    publish(store, 1)
    assert ids(take(follower, 2)) == ["same", "mena-0"]
    follower.close()


@pytest.mark.every_store
def test_concurrent_producers_and_followers(store: Store) -> None:
    """Under load a commit is skipped, or comes twice, or out of order."""
    producers, readers = [another(store) for _ in range(3)], [*(another(store) for _ in range(3)), store]
    followers = [Collected(reader.follow("mena", after=0, poll=FAST)) for reader in readers]

    def produce(number: int) -> None:
        for run in range(15):
            producers[number].publish("mena", run, id=f"{number}.{run}")

    threads = [threading.Thread(target=produce, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sorted(store.history("mena", limit=None), key=lambda row: row.version)
    for follower, reader in zip(followers, readers, strict=True):
        assert follower.until(45) == expected
        reader.close()
        assert follower.ended()


def test_labels_are_the_callers_own(store: Store) -> None:
    """A consumer that edits the labels it got changes what other readers of the process get."""
    store.publish("mena", 1, labels={"a": "b"})
    first, second = (store.follow("mena", after=0) for _ in range(2))
    (row,) = take(first, 1)
    assert isinstance(row, Row)
    row.labels["a"] = "changed"
    (same,) = take(second, 1)
    assert isinstance(same, Row)
    assert same.labels == {"a": "b"}
    first.close()
    second.close()


@pytest.mark.slow
def test_a_million_behind_loads_a_page_at_a_time() -> None:
    """A consumer that is far behind waits minutes for its first commit, or runs out of memory."""
    store = SimulatedStore().connect()
    grown(store, 50_000)
    for cache_bytes in (0, 1 << 20):
        reader, meddler = meddled(store, cache_bytes=cache_bytes)
        follower = reader.follow("mena", after=1000)
        assert versions(take(follower, 1)) == [1001]
        asked = [batch for batch in meddler.batches if isinstance(batch[0], Get) and ":page:" in batch[0].key]
        assert len(asked) <= 2 * 5  # down to its place, and on from there, with pages of five sizes
        assert sum(map(len, asked)) <= 2 * 5 + 2 * BATCH_PAGES
        assert versions(take(follower, 100)) == list(range(1002, 1102))
        follower.close()


def test_all_of_a_deep_history_comes_once() -> None:
    """At the borders of pages a commit is lost or comes twice."""
    store = SimulatedStore().connect()
    grown(store, 3000)
    follower = store.follow("mena", after=0)
    assert versions(take(follower, 3000)) == list(range(1, 3001))
    store.publish("mena", 1)
    assert versions(take(follower, 1)) == [3001]


def test_an_idle_follower_sends_one_small_command_a_poll() -> None:
    """A thousand idle consumers load manifests all day."""
    sim = SimulatedStore()
    publish(sim.connect(), 40)
    client, meddler = meddled(sim.connect())
    follower = client.follow("mena", after=0, poll=2.0)
    take(follower, 40)
    before, began = len(meddler.batches), sim.clock.monotonic()
    meddler.before(before + 50, lambda: sim.connect().publish("mena", "wake"))
    take(follower, 1)
    asked = [type(command).__name__ for batch in meddler.batches[before:] for command in batch]
    assert asked == ["Peek"] * 51 + ["Get"]
    assert 50 <= sim.clock.monotonic() - began <= 100


def test_polls_are_spread() -> None:
    """A thousand consumers that were started at the same time poll at the same moments."""
    waits: list[float] = []

    class Noting:
        def wait(self, seconds: float) -> list[str]:
            waits.append(seconds)
            if len(waits) == 40:
                other.publish("mena", 1)
            return []

        def close(self) -> None:
            pass

    sim = SimulatedStore()
    store, other = sim.connect(), sim.connect()
    store._driver.listen = lambda *_: Noting()  # type: ignore[attr-defined]
    take(store.follow("mena", poll=timedelta(seconds=2)), 1)
    assert len(set(waits)) == 40
    assert all(1 <= wait <= 2 for wait in waits)


@pytest.mark.parametrize(
    "arguments",
    [{"after": -1}, {"after": "1"}, {"after": True}, {"poll": 0}, {"poll": "1"}, {"poll": float("nan")}],
)
def test_invalid_arguments_are_refused(store: Store, arguments: dict[str, Any]) -> None:
    """A wrong cursor is found hours later, and a poll of 0 is a busy loop."""
    with pytest.raises(InvalidInput):
        store.follow("mena", **arguments)


def test_an_invalid_name_is_refused(store: Store) -> None:
    """A name with a space in it is followed silently and forever."""
    with pytest.raises(InvalidInput):
        store.follow("no such name!")


def test_retention_behind_a_follower_that_keeps_up() -> None:
    """Retention of old history causes a gap for a consumer that reads the newest commits."""
    sim = SimulatedStore()
    store = retained(sim, Retention(max_count=3))
    follower = store.follow("mena", after=0)
    for number in range(200):
        publish(store, 1, begin=number)
        store.confirm("mena")
        assert ids(take(follower, 1)) == [f"mena-{number}"]
