"""What cannot be given is said: retention that passed a follower, and stores that went back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from swapstore import Damaged, Gap, Retention, Store
from swapstore.testing import SimulatedStore
from tests.follow.followers import grown, ids, publish, retained, take, versions
from tests.support.damage import Damage
from tests.support.drivers import another, meddled

MANIFEST = "swapstore:manifest:{mena}"
FAST = 0.02


def keep(store: Store, count: int) -> None:
    store.prune("mena", retention=Retention(max_count=count))


def test_retention_that_passed_the_position(store: Store) -> None:
    """A consumer that was away for too long would never learn that commits are lacking."""
    publish(store, 100)
    keep(store, 5)
    follower = store.follow("mena", after=10, poll=FAST)
    assert versions(take(follower, 6)) == [(10, 96, "retention"), 96, 97, 98, 99, 100]
    publish(store, 1, begin=100)
    assert versions(take(follower, 1)) == [102]
    follower.close()


def test_the_gap_says_what_it_is_about(store: Store) -> None:
    """Whoever handles it has to know which dataset to load anew, and from where on it goes on."""
    publish(store, 50)
    keep(store, 2)
    follower = store.follow("mena", after=3, poll=FAST)
    assert take(follower, 1) == [Gap(dataset="mena", after=3, resumes_at=49, reason="retention")]
    follower.close()


def test_from_the_oldest_that_is_retained_there_is_no_gap(store: Store) -> None:
    """A consumer that asks for all there is would raise an alarm about what was let go of long ago."""
    publish(store, 100)
    keep(store, 5)
    follower = store.follow("mena", after=0, poll=FAST)
    assert versions(take(follower, 5)) == [96, 97, 98, 99, 100]
    follower.close()


def test_hidden_commits_of_which_the_log_still_knows(store: Store) -> None:
    """Retention passed a few commits a moment ago: they are in the log, but nobody may read them."""
    publish(store, 10)
    follower = store.follow("mena", after=4, poll=FAST)
    keep(store, 3)
    assert versions(take(follower, 4)) == [(4, 8, "retention"), 8, 9, 10]
    follower.close()


@pytest.mark.parametrize("after", [7, 10, 11, 12])
def test_versions_without_a_commit_are_no_gap(store: Store, after: int) -> None:
    """Pins and confirmations take versions too: each would be an alarm about nothing."""
    publish(store, 10)
    for _ in range(3):
        store.confirm("mena")
    publish(store, 5, begin=10)
    keep(store, 8)
    follower = store.follow("mena", after=after, poll=FAST)
    expected = [v for v in (8, 9, 10, 14, 15, 16, 17, 18) if v > after]
    assert versions(take(follower, len(expected))) == expected
    follower.close()


def test_confirmations_are_no_gap_far_behind_either() -> None:
    """A producer that confirms each hour, and bounds by age: a consumer that comes back sees false alarms."""
    sim = SimulatedStore()
    store = retained(sim, Retention(max_age=timedelta(days=90)))
    for number in range(150):
        publish(store, 1, begin=number)
        store.confirm("mena")
        sim.clock.advance(60_000)
    found = take(store.follow("mena", after=20), 140)
    assert [item for item in found if isinstance(item, Gap)] == []
    assert ids(found) == [f"mena-{number}" for number in range(10, 150)]


def test_age_lets_go_of_what_a_follower_has_not_seen() -> None:
    """Bounds by age hide by time, not by version: that too must be said."""
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
    """A commit in the midst of others is old at once: it is skipped, and nobody would know."""
    sim = SimulatedStore()
    store = sim.connect()
    now = sim.clock.now_ms()
    follower = store.follow("mena")
    store.publish("mena", 1, ts=now, id="a")
    store.publish("mena", 2, ts=now - 5000, id="old")
    store.publish("mena", 3, ts=now, id="b")
    store.prune("mena", retention=Retention(max_age=timedelta(seconds=1)))
    assert versions(take(follower, 3)) == [1, (1, 3, "retention"), 3]


def test_a_hidden_commit_at_the_end_is_told_before_the_next() -> None:
    """Nothing comes after it yet, so the gap has to be remembered until something does."""
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


def test_what_is_pinned_is_given_whatever_its_age(store: Store) -> None:
    """What every reader is served would be missing in what a new consumer gets."""
    publish(store, 80)
    store.pin("mena", id="mena-9")
    keep(store, 2)
    follower = store.follow("mena", after=0, poll=FAST)
    assert versions(take(follower, 4)) == [10, (10, 79, "retention"), 79, 80]
    follower.close()


# --- stores that went back -------------------------------------------------------------------------


def test_a_flush_and_a_new_start(store: Store) -> None:
    """After a flush versions begin anew: a consumer that waits for version 6 would skip the first five."""
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
    """The new history is longer than the old: going on by version would skip most of it."""
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
    """A consumer that was down during the flush comes back with a version that nobody knows."""
    publish(store, 3)
    follower = store.follow("mena", after=50, poll=FAST)
    assert versions(take(follower, 4)) == [(50, 1, "reset"), 1, 2, 3]
    follower.close()


def test_a_cursor_and_nothing_published(store: Store) -> None:
    """The flush was a moment ago, and the producer is yet to come."""
    follower = store.follow("mena", after=2, poll=FAST)
    publish(store, 4)
    assert versions(take(follower, 5)) == [(2, 1, "reset"), 1, 2, 3, 4]
    follower.close()


def test_a_failover_that_lost_commits() -> None:
    """What was given is gone, and others have its versions: going on by version would skip those."""
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


def test_a_store_that_only_seemed_to_go_back() -> None:
    """A replica that lags for long shows what was: when it catches up nothing may come twice."""
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


# --- repair ----------------------------------------------------------------------------------------


def test_a_manifest_that_was_lost_and_rebuilt(store: Store) -> None:
    """Repair names everything again, in a new epoch: nothing may come twice, and no gap is there."""
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
    """A consumer is half-way through when the manifest is rebuilt."""
    publish(store, 100)
    follower = store.follow("mena", after=0, poll=FAST)
    before = take(follower, 40)
    Damage(store).delete(MANIFEST)
    another(store).repair("mena", apply=True)
    publish(another(store), 1, begin=100)
    assert ids([*before, *take(follower, 61)]) == [f"mena-{number}" for number in range(101)]
    follower.close()


@pytest.mark.parametrize("given", [5, 6, 8])
def test_snapshots_that_repair_names_again(store: Store, given: int) -> None:
    """A failover lost a manifest, repair finds its commits: those given would come twice, others never."""
    publish(store, 5)
    before = Damage(store).get(MANIFEST)
    publish(store, given - 5, begin=5)
    follower = store.follow("mena", after=0, poll=FAST)
    seen = take(follower, given)
    publish(another(store), 8 - given, begin=given)
    Damage(store).put(MANIFEST, before)  # three are committed, and named no more
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
    """A page that is gone would be skipped in silence: 32 commits that no consumer ever sees."""
    sim = SimulatedStore()
    store = sim.connect()
    grown(store, 100)
    page = next(key for key in sim.keyspace.values if key.endswith(".33-64"))
    follower = store.follow("mena", after=0)
    take(follower, 32)
    sim.evict(page)
    with pytest.raises(Damaged) as caught:
        next(follower)
    assert caught.value.key == page
    assert caught.value.dataset == "mena"


def test_damage_behind_a_follower_is_not_its_concern() -> None:
    """What was given long ago is damaged: a consumer of the newest would stop for it."""
    sim = SimulatedStore()
    store = sim.connect()
    follower = store.follow("mena", after=0)
    publish(store, 64)
    take(follower, 32)
    publish(store, 200, begin=64)
    page = next(key for key in sim.keyspace.values if key.endswith(".1-32"))
    sim.evict(page)
    assert len(take(follower, 232)) == 232
