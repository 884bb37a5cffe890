"""Gap detection: followers are told what they cannot get, after retention or when a store went back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from swapstore import Damaged, Gap, Retention, Row, Store, Unavailable
from swapstore.protocol import follow
from swapstore.testing import SimulatedStore
from tests.follow.followers import grown, ids, publish, retained, take, versions
from tests.support.damage import Damage
from tests.support.drivers import another, meddled
from tests.support.times import at

MANIFEST = "swapstore:manifest:{mena}"
FAST = 0.02


def keep(store: Store, count: int) -> None:
    store.prune("mena", retention=Retention(max_count=count))


@pytest.mark.every_store
def test_retention_that_passed_the_position(store: Store) -> None:
    """A consumer that was away for too long does not learn that commits are missing."""
    publish(store, 100)
    keep(store, 5)
    follower = store.follow("mena", after=10, poll=FAST)
    assert versions(take(follower, 6)) == [(10, 96, "retention"), 96, 97, 98, 99, 100]
    publish(store, 1, begin=100)
    assert ids(take(follower, 1)) == ["mena-100"]
    follower.close()


def test_the_gap_says_what_it_is_about(store: Store) -> None:
    """The gap does not say which dataset to load anew, or from which version the follower continues."""
    publish(store, 50)
    keep(store, 2)
    follower = store.follow("mena", after=3, poll=FAST)
    assert take(follower, 1) == [Gap(dataset="mena", after=3, resumes_at=49, reason="retention")]
    follower.close()


def test_following_from_the_oldest_reports_no_gap(store: Store) -> None:
    """A consumer that asks for the whole history gets an alarm about what was unlinked long ago."""
    publish(store, 100)
    keep(store, 5)
    follower = store.follow("mena", after=0, poll=FAST)
    assert versions(take(follower, 5)) == [96, 97, 98, 99, 100]
    follower.close()


def test_following_from_the_oldest_reports_the_gaps_after_it() -> None:
    """A consumer that asks for the whole history is not told what was unlinked while it read on."""
    store = SimulatedStore().connect()
    publish(store, 200)
    follower = store.follow("mena", after=0)
    assert versions(take(follower, 1)) == [1]
    keep(store, 5)
    assert versions(take(follower, 133)) == [*range(2, 129), (128, 196, "retention"), *range(196, 201)]
    keep(store, 2)
    publish(store, 50, begin=200)
    keep(store, 2)
    newest, before = (row.version for row in store.history("mena"))
    assert versions(take(follower, 3)) == [(200, before, "retention"), before, newest]


def test_hidden_commits_that_are_still_in_the_log(store: Store) -> None:
    """Commits that retention has just hidden are given to a consumer, or skipped without a gap."""
    publish(store, 10)
    follower = store.follow("mena", after=4, poll=FAST)
    keep(store, 3)
    assert versions(take(follower, 4)) == [(4, 8, "retention"), 8, 9, 10]
    follower.close()


@pytest.mark.every_store
@pytest.mark.parametrize(
    ("after", "pinned", "told"),
    [
        (3, 5, [(3, 5, "retention"), 5, (5, 16, "retention")]),
        (3, 4, [4, (4, 16, "retention")]),
        (0, 5, [5, (5, 16, "retention")]),
        (5, 5, [(5, 16, "retention")]),
        (3, 8, [(3, 8, "retention"), 8, (8, 16, "retention")]),
    ],
)
def test_a_pinned_commit_among_hidden_ones(after: int, pinned: int, told: list[object], store: Store) -> None:
    """Hidden commits before the pinned one, in the page that has both, are skipped without a gap."""
    publish(store, 16)
    store.pin("mena", version=pinned)
    follower = store.follow("mena", after=after, poll=FAST)
    keep(store, 1)
    assert versions(take(follower, len(told) + 1)) == [*told, 16]
    follower.close()


@pytest.mark.parametrize("after", [7, 10, 11, 12])
def test_versions_without_a_commit_are_not_a_gap(store: Store, after: int) -> None:
    """Each pin and each confirmation raises an alarm about nothing."""
    publish(store, 10)
    for _ in range(3):
        store.confirm("mena")
    publish(store, 5, begin=10)
    keep(store, 8)
    follower = store.follow("mena", after=after, poll=FAST)
    expected = [v for v in (8, 9, 10, 14, 15, 16, 17, 18) if v > after]
    assert versions(take(follower, len(expected))) == expected
    follower.close()


def test_confirmations_are_not_a_gap_for_a_follower_far_behind() -> None:
    """A producer that confirms each hour causes false alarms for a consumer that comes back."""
    sim = SimulatedStore()
    store = retained(sim, Retention(max_age=timedelta(days=90)))
    for number in range(150):
        publish(store, 1, begin=number)
        store.confirm("mena")
        sim.clock.advance(60_000)
    found = take(store.follow("mena", after=20), 140)
    assert [item for item in found if isinstance(item, Gap)] == []
    assert ids(found) == [f"mena-{number}" for number in range(10, 150)]


def test_max_age_hides_commits_before_a_follower_sees_them() -> None:
    """Commits that max_age hid before a consumer saw them are missing without a gap."""
    sim = SimulatedStore()
    store = retained(sim, Retention(max_age=timedelta(hours=1)))
    for number in range(100):
        publish(store, 1, begin=number)
        sim.clock.advance(60_000)
    publish(store, 1, begin=100)
    gap, *rest = take(store.follow("mena", after=5), 62)
    assert isinstance(gap, Gap)
    assert (gap.after, gap.reason) == (5, "retention")
    assert ids(rest)[0] == f"mena-{gap.resumes_at - 1}"
    assert ids(rest)[-1] == "mena-100"


def test_a_backfill_that_was_hidden_before_it_was_given() -> None:
    """A backfill that is hidden at once is skipped, and the consumer does not know."""
    sim = SimulatedStore()
    store = sim.connect()
    now = sim.clock.now_ms()
    follower = store.follow("mena")
    store.publish("mena", 1, ts=now, id="a")
    store.publish("mena", 2, ts=now - 5000, id="old")
    store.publish("mena", 3, ts=now, id="b")
    store.prune("mena", retention=Retention(max_age=timedelta(seconds=1)))
    assert versions(take(follower, 3)) == [1, (1, 3, "retention"), 3]


def test_a_hidden_commit_at_the_end_is_reported_before_the_next() -> None:
    """The gap about a hidden commit at the end of the log is lost before the next commit comes."""
    sim = SimulatedStore()
    store, other = sim.connect(), sim.connect()
    now = sim.clock.now_ms()
    follower = store.follow("mena", poll=1)
    store.publish("mena", 1, ts=now, id="a")
    store.publish("mena", 2, ts=now - 5000, id="old")
    store.prune("mena", retention=Retention(max_age=timedelta(seconds=1)))
    assert ids(take(follower, 1)) == ["a"]
    client, meddler = meddled(sim.connect())
    late = client.follow("mena", after=1, poll=1)
    meddler.before(5, lambda: other.publish("mena", 3, id="b"))
    assert versions(take(late, 2)) == [(1, 4, "retention"), 4]


def test_a_pinned_snapshot_is_given_whatever_its_age(store: Store) -> None:
    """A new consumer does not get the pinned snapshot that every reader is served."""
    publish(store, 80)
    store.pin("mena", id="mena-9")
    keep(store, 2)
    follower = store.follow("mena", after=0, poll=FAST)
    assert versions(take(follower, 4)) == [10, (10, 79, "retention"), 79, 80]
    follower.close()


@pytest.mark.parametrize("after", [None, 0])
def test_what_retention_took_since_the_beginning_is_a_gap(after: int | None) -> None:
    """A consumer of a new dataset never learns that its first commits were unlinked before it got them."""
    store = SimulatedStore().connect()
    follower = store.follow("mena", after=after)
    publish(store, 10)
    keep(store, 3)
    assert versions(take(follower, 4)) == [(0, 8, "retention"), 8, 9, 10]


def test_a_version_that_the_follower_has_seen_is_not_a_gap_before_a_pinned_commit() -> None:
    """A confirmation counts as a lost commit, where only the pinned one after it was kept."""
    sim = SimulatedStore()
    store = sim.connect()
    publish(store, 10)
    store.confirm("mena")
    client, meddler = meddled(sim.connect())
    follower = client.follow("mena", after=0)
    take(follower, 10)

    def go_on() -> None:
        publish(store, 100, begin=10)
        store.pin("mena", version=12)
        keep(store, 2)

    now = len(meddler.batches)
    meddler.before(now + 1, go_on)  # after a look at the confirmation
    assert versions(take(follower, 4)) == [12, (12, 110, "retention"), 110, 111]


def test_what_was_hidden_stays_a_gap_after_a_repair() -> None:
    """A repair finds commits that a consumer has, and that one before them was lost is never told."""
    sim = SimulatedStore()
    store, other = sim.connect(), sim.connect()
    now = sim.clock.now_ms()
    for number in range(5):
        store.publish("mena", number, ts=now, id=f"mena-{number}")
    client, meddler = meddled(sim.connect())
    follower = client.follow("mena", after=0)
    take(follower, 5)
    store.publish("mena", "old", ts=now - 7_200_000, id="old")
    store.prune("mena", retention=Retention(max_age=timedelta(hours=1)))

    def rebuild() -> None:
        sim.evict(MANIFEST)
        other.repair("mena", apply=True)
        other.prune("mena", retention=Retention(max_age=timedelta(hours=1)))
        other.publish("mena", "new", ts=now, id="new")

    meddler.before(len(meddler.batches) + 3, rebuild)
    gap, row = take(follower, 2)
    assert isinstance(gap, Gap)
    assert (gap.after, gap.reason) == (5, "retention")
    assert ids([row]) == ["new"]


# --- stores that went back -------------------------------------------------------------------------


@pytest.mark.every_store
def test_a_flush_and_a_new_start(store: Store) -> None:
    """After a flush a consumer that waits for version 6 skips the first five new commits."""
    publish(store, 5)
    follower = store.follow("mena", after=0, poll=FAST)
    take(follower, 5)
    Damage(store).flush()
    for number in range(3):
        another(store).publish("mena", number, id=f"new-{number}")
    found = take(follower, 4)
    assert versions(found) == [(5, 1, "reset"), 1, 2, 3]
    assert ids(found) == ["new-0", "new-1", "new-2"]
    follower.close()


def test_a_new_start_that_grew_past_the_position(store: Store) -> None:
    """After a flush and many publishes the follower continues by version, and skips most of them."""
    publish(store, 5)
    follower = store.follow("mena", after=0, poll=FAST)
    take(follower, 5)
    Damage(store).flush()
    publisher = another(store)
    for number in range(40):
        publisher.publish("mena", number, id=f"new-{number}")
    found = take(follower, 41)
    assert versions(found) == [(5, 1, "reset"), *range(1, 41)]
    follower.close()


def test_a_cursor_from_before_a_flush(store: Store) -> None:
    """A consumer that was down during the flush waits for a version of the old epoch."""
    publish(store, 3)
    follower = store.follow("mena", after=50, poll=FAST)
    assert versions(take(follower, 4)) == [(50, 1, "reset"), 1, 2, 3]
    follower.close()


def test_a_cursor_and_nothing_published(store: Store) -> None:
    """A cursor on a dataset that was just flushed fails, or the next commit is missed."""
    follower = store.follow("mena", after=2, poll=FAST)
    publish(store, 4)
    assert versions(take(follower, 5)) == [(2, 1, "reset"), 1, 2, 3, 4]
    follower.close()


@pytest.mark.parametrize("after", [None, 3, 38, 40])
def test_a_flush_before_the_first_commit_is_taken(after: int | None) -> None:
    """A consumer that is slow to take its first commit goes on by version after a flush."""
    sim = SimulatedStore()
    store = sim.connect()
    publish(store, 40)
    follower = store.follow("mena", after=after)
    sim.keyspace.values.clear()
    sim.keyspace.sets.clear()
    publish(sim.connect(), 45, begin=100)
    assert versions(take(follower, 1)) == [(40 if after is None else after, 1, "reset")]
    assert versions(take(follower, 45)) == list(range(1, 46))


def test_a_flush_behind_a_cursor_that_is_no_commit() -> None:
    """A consumer that goes on after a confirmation waits for its version, and skips what comes before."""
    sim = SimulatedStore()
    store = sim.connect()
    publish(store, 5)
    follower = store.follow("mena", after=store.confirm("mena").version)
    sim.keyspace.values.clear()
    publish(sim.connect(), 6, begin=100)
    assert versions(take(follower, 1)) == [(6, 1, "reset")]


@pytest.mark.parametrize("grown_to", [20, 100])
def test_a_flush_behind_a_cursor_in_a_page_that_is_no_commit(grown_to: int) -> None:
    """A consumer that goes on after a confirmation of long ago skips what was committed after a flush."""
    sim = SimulatedStore()
    store = sim.connect()
    publish(store, 20)
    confirmed = store.confirm("mena").version
    publish(store, 60, begin=20)
    follower = store.follow("mena", after=confirmed)
    sim.keyspace.values.clear()
    publish(sim.connect(), grown_to, begin=100)
    assert versions(take(follower, 2)) == [(confirmed, 1, "reset"), 1]


@pytest.mark.parametrize("grown_to", [20, 100])
def test_a_flush_behind_a_cursor_before_all_that_is_left(grown_to: int) -> None:
    """A consumer whose place was unlinked skips what was committed after a flush."""
    sim = SimulatedStore()
    store = sim.connect()
    publish(store, 100)
    keep(store, 5)
    follower = store.follow("mena", after=30)
    sim.keyspace.values.clear()
    publish(sim.connect(), grown_to, begin=100)
    assert versions(take(follower, 2)) == [(30, 1, "reset"), 1]


def test_a_backup_from_before_a_cursor_whose_place_was_unlinked() -> None:
    """A consumer waits for a version that a restored backup lacks, and skips what comes until then."""
    sim = SimulatedStore()
    store = sim.connect()
    publish(store, 20)
    backup = sim.keyspace.copy()
    publish(store, 80, begin=20)
    keep(store, 5)
    follower = store.follow("mena", after=30)
    sim.keyspace.values, sim.keyspace.sets = backup.values, backup.sets
    publish(sim.connect(), 3, begin=100)
    assert versions(take(follower, 2)) == [(30, 1, "reset"), 1]


@pytest.mark.parametrize("count", [10, 80])
def test_a_failover_before_the_first_commit_is_taken(count: int) -> None:
    """A failover lost just the commit that a consumer has, and it never gets the one in its place."""
    sim = SimulatedStore()
    store = sim.connect()
    publish(store, 9)
    lost = sim.keyspace.copy()
    publish(store, count - 9, begin=9)
    follower = store.follow("mena", after=10)
    sim.keyspace.values, sim.keyspace.sets = lost.values, lost.sets
    sim.clock.advance(1000)
    publish(sim.connect(), count, begin=100)
    found = take(follower, 2)
    assert versions(found[:1]) == [(10, 1, "reset")]


@pytest.mark.parametrize("batch", range(1, 8))
def test_an_outage_while_a_follower_finds_its_place(batch: int) -> None:
    """A follower that is cut off just after a failover goes on by version, and skips what took its place."""
    sim = SimulatedStore()
    store = sim.connect()
    publish(store, 20)
    lost = sim.keyspace.copy()
    publish(store, 130, begin=20)
    client, meddler = meddled(sim.connect())
    follower = client.follow("mena", after=0)
    take(follower, 128)  # a batch of pages
    sim.keyspace.values, sim.keyspace.sets = lost.values, lost.sets
    sim.clock.advance(1000)
    publish(sim.connect(), 140, begin=1000)

    def down() -> None:
        raise Unavailable("down, on purpose")

    meddler.before(len(meddler.batches) + batch - 1, down)
    assert versions(take(follower, 101)) == [(128, 21, "reset"), *range(21, 121)]


def test_a_follower_does_not_wait_before_what_is_there() -> None:
    """After a failover a consumer gets new commits one poll a page late: it waits at those that it has."""
    waits: list[float] = []

    class Noting:
        def wait(self, seconds: float) -> list[str]:
            waits.append(seconds)
            return []

        def close(self) -> None:
            pass

    sim = SimulatedStore()
    store = sim.connect()
    store._driver.listen = lambda *_: Noting()  # type: ignore[attr-defined]
    publish(store, 300)
    lost = sim.keyspace.copy()
    publish(store, 100, begin=300)
    follower = store.follow("mena", after=0)
    take(follower, 400)
    sim.keyspace.values, sim.keyspace.sets = lost.values, lost.sets
    publish(sim.connect(), 60, begin=1000)
    assert versions(take(follower, 2)) == [(400, 301, "reset"), 301]
    assert waits == []


def test_what_was_returned_twice_is_remembered_from_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer is given commits a third time after a repair, without a gap before them."""
    monkeypatch.setattr(follow, "REMEMBERED", 40)
    sim = SimulatedStore()
    store = sim.connect()
    stamp = sim.clock.now_ms()
    for number in range(64):
        store.publish("mena", number, id=f"mena-{number}", ts=stamp)
    follower = store.follow("mena", after=0)
    take(follower, 64)
    sim.keyspace.values.clear()
    sim.keyspace.sets.clear()
    sim.clock.advance(1000)
    producer = sim.connect()
    publish(producer, 1, begin=100)
    assert versions(take(follower, 2)) == [(64, 1, "reset"), 1]
    for number in range(30, 40):
        producer.publish("mena", number, id=f"mena-{number}", ts=stamp)
    publish(producer, 15, begin=101)
    assert ids(take(follower, 25)) == [f"mena-{n}" for n in (*range(30, 40), *range(101, 116))]
    sim.evict(MANIFEST)
    sim.connect().repair("mena", apply=True)
    publish(sim.connect(), 1, begin=200)
    assert ids(take(follower, 1)) == ["mena-200"]


def test_the_same_ids_with_other_contents_after_a_flush(store: Store) -> None:
    """A producer that publishes under the same ids after a flush hides from a consumer that all is new."""
    publish(store, 5)
    follower = store.follow("mena", after=0, poll=FAST)
    take(follower, 5)
    Damage(store).flush()
    publisher = another(store)
    for number in reversed(range(5)):
        publisher.publish("mena", f"new {number}", id=f"mena-{number}")
    assert versions(take(follower, 1)) == [(5, 1, "reset")]
    assert versions(take(follower, 5)) == [1, 2, 3, 4, 5]
    follower.close()


def test_hidden_commits_after_a_flush_do_not_change_the_reason(store: Store) -> None:
    """A consumer reads that retention made the gap, and keeps what it derived from data that is gone."""
    publish(store, 5)
    follower = store.follow("mena", after=0, poll=FAST)
    take(follower, 5)
    Damage(store).flush()
    publish(another(store), 40, begin=100)
    keep(another(store), 3)
    assert versions(take(follower, 4)) == [(5, 38, "reset"), 38, 39, 40]
    follower.close()


def test_what_a_follower_remembers_is_what_it_returned_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer of a long history is given the last commits again after a repair."""
    monkeypatch.setattr(follow, "REMEMBERED", 64)
    sim = SimulatedStore()
    store = sim.connect()
    publish(store, 150)
    follower = store.follow("mena", after=0)
    take(follower, 150)
    sim.evict(MANIFEST)
    sim.connect().repair("mena", apply=True)
    publish(sim.connect(), 1, begin=150)
    assert ids(take(follower, 1)) == ["mena-150"]


@pytest.mark.parametrize("after", [3, 40])
def test_a_repair_before_the_first_commit_is_taken(after: int) -> None:
    """A consumer that is slow to take its first commit is given all again after a repair."""
    sim = SimulatedStore()
    store = sim.connect()
    publish(store, 40)
    follower = store.follow("mena", after=after)
    sim.evict(MANIFEST)
    sim.connect().repair("mena", apply=True)
    publish(sim.connect(), 1, begin=40)
    assert ids(take(follower, 41 - after)) == [f"mena-{number}" for number in range(after, 41)]


def test_damage_at_the_beginning_of_a_follower_is_raised_when_it_is_met() -> None:
    """A consumer whose own place is in a lost page cannot begin, although what comes next is there."""
    sim = SimulatedStore()
    store = sim.connect()
    grown(store, 100)
    sim.evict(next(key for key in sim.keyspace.values if key.endswith(".25-32")))
    assert versions(take(store.follow("mena", after=32), 2)) == [33, 34]


def test_a_failover_that_lost_commits() -> None:
    """After a failover the follower continues by version, and skips the commits that replaced others."""
    sim = SimulatedStore()
    store = sim.connect()
    publish(store, 8)
    backup = sim.keyspace.copy()
    publish(store, 2, begin=8)
    follower = store.follow("mena", after=0)
    take(follower, 10)
    sim.keyspace.values, sim.keyspace.sets = backup.values, backup.sets
    other = sim.connect()
    for number in range(3):
        other.publish("mena", number, id=f"other-{number}")
    found = take(follower, 4)
    assert versions(found) == [(10, 9, "reset"), 9, 10, 11]
    assert ids(found) == ["other-0", "other-1", "other-2"]


@pytest.mark.parametrize("count", [10, 80])
def test_a_lost_commit_whose_version_a_pin_took(count: int) -> None:
    """A failover lost the last commit, a pin got its version, and the follower is never told."""
    sim = SimulatedStore()
    store = sim.connect()
    publish(store, count - 1)
    backup = sim.keyspace.copy()
    publish(store, 1, begin=count - 1)
    follower = store.follow("mena", after=0)
    take(follower, count)
    sim.keyspace.values, sim.keyspace.sets = backup.values, backup.sets
    other = sim.connect()
    other.pin("mena", version=1)
    other.publish("mena", 0, id="other")
    assert versions(take(follower, 2)) == [(count, count + 1, "reset"), count + 1]


def gone_back(*, flushed: bool) -> tuple[SimulatedStore, Iterator[Row | Gap]]:
    """A follower that has ten commits, of a store that has lost the last two of them, or all."""
    sim = SimulatedStore()
    store = sim.connect()
    for number in range(10):
        if number == 8:
            backup = sim.keyspace.copy()
        store.publish("mena", number, id=f"mena-{number}", ts=at(number))
    follower = store.follow("mena", after=0)
    take(follower, 10)
    sim.keyspace.values, sim.keyspace.sets = ({}, {}) if flushed else (backup.values, backup.sets)
    sim.clock.advance(1000)
    return sim, follower


def test_the_last_commit_published_again_does_not_hide_that_the_store_went_back() -> None:
    """A follower takes a failover that lost commits for a repair, and is never told that they are gone."""
    sim, follower = gone_back(flushed=False)
    producer = sim.connect()
    for number, id_ in enumerate(("other-0", "other-1", "mena-9")):
        producer.publish(
            "mena", 9 if id_ == "mena-9" else number, id=id_, ts=at(9 if number == 2 else number)
        )
    found = take(follower, 3)
    assert versions(found) == [(10, 9, "reset"), 9, 10]
    producer.publish("mena", 8, id="mena-8", ts=at(8))
    assert ids(take(follower, 1)) == ["mena-8"], "again, after the gap"


def test_nothing_is_given_twice_without_a_gap_before_it() -> None:
    """A producer that publishes its last results again after a flush makes a follower process them twice."""
    sim, follower = gone_back(flushed=True)
    producer = sim.connect()
    producer.publish("mena", 9, id="mena-9", ts=at(9))
    producer.publish("mena", "new", id="new")
    assert ids(take(follower, 1)) == ["new"], "what it has been given stays known"
    for number in (7, 8):
        producer.publish("mena", number, id=f"mena-{number}", ts=at(number))
    found = take(follower, 3)
    assert versions(found) == [(2, 3, "reset"), 3, 4]
    assert ids(found) == ["mena-7", "mena-8"]


def test_a_store_that_only_seemed_to_go_back() -> None:
    """After a replica lagged for a while, the follower gives the same commits again."""
    sim = SimulatedStore()
    producer = sim.connect()
    publish(producer, 8)
    lagging = dict(sim.keyspace.values)
    publish(producer, 2, begin=8)
    client, meddler = meddled(sim.connect())
    follower = client.follow("mena", after=0)
    assert versions(take(follower, 10)) == list(range(1, 11))
    true = sim.keyspace.values

    def lag() -> None:
        sim.keyspace.values = lagging

    def catch_up() -> None:
        sim.keyspace.values = true
        publish(sim.connect(), 1, begin=10)

    now = len(meddler.batches)
    meddler.before(now, lag)
    meddler.before(now + 20, catch_up)
    assert versions(take(follower, 1)) == [11]
    assert len(meddler.batches) > now + 20


def test_a_follower_that_begins_on_a_replica_that_lags() -> None:
    """A consumer that comes back, and meets a replica that lags for a moment, is given all commits again."""
    sim = SimulatedStore()
    producer = sim.connect()
    publish(producer, 8)
    lagging = dict(sim.keyspace.values)
    publish(producer, 2, begin=8)
    true = sim.keyspace.values
    client, meddler = meddled(sim.connect())
    sim.keyspace.values = lagging

    def catch_up() -> None:
        sim.keyspace.values = true

    meddler.after(0, catch_up)
    follower = client.follow("mena", after=10)
    publish(producer, 1, begin=10)
    assert versions(take(follower, 1)) == [11]


# --- repair ----------------------------------------------------------------------------------------


def test_a_manifest_that_was_lost_and_rebuilt(store: Store) -> None:
    """After a repair in a new epoch the follower gives commits twice, or reports a gap."""
    publish(store, 70)
    follower = store.follow("mena", after=0, poll=FAST)
    take(follower, 70)
    Damage(store).delete(MANIFEST)
    repairer = another(store)
    assert repairer.repair("mena", apply=True)[0].left == ()
    publish(repairer, 2, begin=70)
    found = take(follower, 2)
    assert ids(found) == ["mena-70", "mena-71"]
    follower.close()


def test_a_repair_in_the_middle_of_a_backlog(store: Store) -> None:
    """A manifest that is rebuilt while a consumer catches up makes it skip or repeat commits."""
    publish(store, 100)
    follower = store.follow("mena", after=0, poll=FAST)
    before = take(follower, 40)
    Damage(store).delete(MANIFEST)
    another(store).repair("mena", apply=True)
    publish(another(store), 1, begin=100)
    assert ids([*before, *take(follower, 61)]) == [f"mena-{number}" for number in range(101)]
    follower.close()


@pytest.mark.every_store
@pytest.mark.parametrize("given", [5, 6, 8])
def test_snapshots_that_repair_names_again(store: Store, given: int) -> None:
    """Commits that repair names again after a failover come twice, or never."""
    publish(store, 5)
    before = Damage(store).get(MANIFEST)
    publish(store, given - 5, begin=5)
    follower = store.follow("mena", after=0, poll=FAST)
    seen = take(follower, given)
    publish(another(store), 8 - given, begin=given)
    Damage(store).put(MANIFEST, before)  # three commits are no longer named
    repairer = another(store)
    assert repairer.repair("mena", apply=True)[0].restored
    publish(repairer, 1, begin=8)
    while ids(seen)[-1:] != ["mena-8"]:
        seen += take(follower, 1)
    rows = sorted(repairer.history("mena", limit=None), key=lambda row: row.version)
    known = [row.id for row in rows]
    assert sorted(ids(seen)) == sorted({*known, *ids(seen)})
    assert set(known) <= set(ids(seen))
    follower.close()


def test_damage_is_raised() -> None:
    """A lost page is skipped silently: 8 commits that no consumer ever sees."""
    sim = SimulatedStore()
    store = sim.connect()
    grown(store, 200)
    page = next(key for key in sim.keyspace.values if key.endswith(".145-152"))
    sim.evict(page)
    follower = store.follow("mena", after=0)
    assert versions(take(follower, 144)) == [*range(1, 145)], "the second batch ends before that page"
    with pytest.raises(Damaged) as caught:
        next(follower)
    assert caught.value.key == page
    assert caught.value.dataset == "mena"


def test_damage_behind_a_follower_does_not_stop_it() -> None:
    """A consumer of new commits stops because an old page is damaged."""
    sim = SimulatedStore()
    store = sim.connect()
    follower = store.follow("mena", after=0)
    publish(store, 64)
    take(follower, 32)
    publish(store, 200, begin=64)
    page = next(key for key in sim.keyspace.values if key.endswith(".1-8"))
    sim.evict(page)
    assert len(take(follower, 232)) == 232
