"""What no other test noticed when it was broken on purpose: see docs/explanation/mutants.md."""

from __future__ import annotations

import attrs
import pytest

from swapstore import Store
from swapstore.commands import Failed, Get, GetServed, Peek, Put
from swapstore.errors import (
    Corrupt,
    PayloadMissing,
    ReplyLost,
    Unavailable,
)
from swapstore.operations.steps import SERVED
from tests.store.test_damage import MANIFEST, alter, delete, is_sqlite, raw_client
from tests.support.crowd import PATIENT, known_to, warm
from tests.support.drivers import another, cold_trips, lose, meddled
from tests.support.fixed import TickingClock


def test_what_a_reader_gets_describes_itself(store: Store) -> None:
    """A reader that logs, forwards or compares a snapshot or a status relies on each of its fields."""
    clock = TickingClock()
    client, _ = meddled(store, clock=clock)
    began = clock.ms
    client.publish("mena", b"payload", codec="bytes", id="x")
    snap, status = client.read_latest("mena"), client.status("mena")
    assert snap is not None
    assert status is not None
    assert (snap.dataset, snap.size, snap.codec) == ("mena", len(b"payload"), "bytes")
    assert began < snap.committed_at < clock.ms
    assert (status.dataset, status.first_version) == ("mena", 1)
    assert status.committed_at == status.confirmed_at == snap.committed_at == status.latest.committed_at


@pytest.mark.parametrize("attempts", [1, 2, 3, 6])
def test_a_missing_payload_is_looked_for_a_bounded_number_of_times(store: Store, attempts: int) -> None:
    """Too few looks, and a lagging replica is called damage; too many, and readers pile up."""
    store.publish("mena", 1, id="gone")
    delete(store, "swapstore:id:{mena}:gone")
    cold_trips(store)  # it is known from here on whether the store tells both at once
    reader, meddler = meddled(store, policy=attrs.evolve(PATIENT, read_attempts=attempts))
    with pytest.raises(PayloadMissing):
        reader.read_latest("mena")
    asked = [command for batch in meddler.batches for command in batch]
    assert asked.count(Get("swapstore:id:{mena}:gone")) == attempts
    manifests = [each for each in asked if isinstance(each, Get | GetServed) and each.key == MANIFEST]
    assert len(manifests) == attempts


def test_a_dataset_that_goes_away_while_it_is_read_is_nothing(store: Store) -> None:
    """Payload gone, then the manifest too (a flush in between): `nothing is published`, not a crash."""
    store.publish("mena", 1, id="gone")
    delete(store, "swapstore:id:{mena}:gone")
    reader, meddler = meddled(store, policy=attrs.evolve(PATIENT, read_attempts=2))
    meddler.before(2, lambda: delete(store, MANIFEST))
    assert reader.read_latest("mena") is None


def test_pages_are_remembered(store: Store) -> None:
    """Whoever walks the history again, or reads old versions, would load every page every time."""
    for number in range(70):
        store.publish("mena", number)
    reader, meddler = meddled(store)
    assert len(list(reader.history("mena", limit=None))) == 70
    before = len(meddler.batches)
    assert len(list(reader.history("mena", limit=None))) == 70
    assert [type(command) for batch in meddler.batches[before:] for command in batch] == [Peek]


def test_without_max_staleness_the_store_is_asked(store: Store) -> None:
    """Two reads within one tick of the clock: the second must not be served from memory."""

    class Stopped(TickingClock):
        now = 1.0

        def monotonic(self) -> float:
            return self.now

    store.publish("mena", 1)
    clock = Stopped()
    reader, _ = meddled(store, clock=clock)
    reader.read_latest("mena")
    store.publish("mena", 2)
    clock.now = 1.5  # exactly as old as is allowed
    stale = reader.read_latest("mena", max_staleness=0.5)
    clock.now = 1.0
    fresh = reader.read_latest("mena")
    assert stale is not None
    assert fresh is not None
    assert (stale.value, fresh.value) == (1, 2)


def test_a_damaged_id_record_names_its_key(store: Store) -> None:
    """Whoever has to look needs the key, whether the record lost its header line or its meaning."""
    for number in range(70):
        store.publish("mena", number, id=f"id-{number}")
    key = "swapstore:id:{mena}:id-3"
    for raw in (b"no line", b"{}\n"):
        alter(store, key, lambda _, raw=raw: raw)  # type: ignore[misc]
        with pytest.raises(Corrupt, match=key) as caught:
            another(store).read("mena", id="id-3")
        assert caught.value.key == key


def test_a_permanent_page_with_other_rows_names_its_key(store: Store) -> None:
    """The way out is to remove that key, so the error must carry it."""
    for number in range(63):
        store.publish("mena", number)
    client, _, _ = warm(store)
    page = f"swapstore:page:{{mena}}:{known_to(client).epoch}.1-32"
    store._driver.execute([Put(page, b"other page\n", 600_000)])
    make_permanent(store, page)
    with pytest.raises(Corrupt, match="is permanent and holds something else") as caught:
        client.publish("mena", "next")
    assert caught.value.key == page


def make_permanent(store: Store, key: str) -> None:
    if is_sqlite(store):
        with store._driver._connection() as connection:  # type: ignore[attr-defined]
            connection.execute("UPDATE records SET expires_at = NULL WHERE key = ?", (key,))
    else:
        raw_client(store).persist(key)


@pytest.mark.parametrize("attempts", [1, 2, 3, 6])
def test_a_read_whose_reply_is_always_lost_ends(store: Store, attempts: int) -> None:
    """A reader asks as often as the policy says: not once less, and not for ever."""
    store.publish("mena", 1)
    reader, meddler = meddled(store, policy=attrs.evolve(PATIENT, read_attempts=attempts))
    for number in range(100):
        meddler.before(number, lose)
    with pytest.raises(ReplyLost):
        reader.datasets()
    assert len(meddler.batches) == attempts


def test_a_lagging_replica_does_not_take_a_client_back(store: Store) -> None:
    """A client that saw version 3 would be shown version 2, or nothing, by a replica that is behind."""
    for number in (1, 2):
        store.publish("mena", number)
    (old,) = store._driver.execute([Get(MANIFEST)])
    store.publish("mena", 3)
    for lagging in ([old], [None]):
        reader, meddler, _ = warm(store)
        store.publish("mena", 4, id=f"four-{lagging == [None]}")
        other = known_to(another_that_read(store))
        reader._context.cache.learn(other, 0.0, basis=None)
        shown = len(meddler.batches)
        meddler.replies(shown, lambda _: [b""])  # the look at the etag: not the one that is known
        meddler.replies(shown + 1, lambda _, lagging=lagging: lagging)  # type: ignore[misc]
        snap = reader.read_latest("mena")
        assert snap is not None
        assert (snap.value, snap.version) == (4, other.version)


def another_that_read(store: Store) -> Store:
    client = another(store)
    client.read_latest("mena")
    return client


def test_a_restored_store_is_followed(store: Store) -> None:
    """The store insists on an older version: it went back, and so does a reader that reads from memory."""
    store.publish("mena", 1)
    (backup,) = store._driver.execute([Get(MANIFEST)])
    store.publish("mena", 2)
    reader, _, _ = warm(store)
    alter(store, MANIFEST, lambda _: backup)
    for staleness in (0, 60):
        snap = reader.read_latest("mena", max_staleness=staleness)
        assert snap is not None
        assert snap.version == 1
    assert known_to(reader).version == 1


def test_a_new_line_of_versions_is_followed(store: Store) -> None:
    """Flushed and published anew: a reader that knew the old line must remember the new one."""
    store.publish("mena", 1)
    reader, _, _ = warm(store)
    delete(store, MANIFEST)
    commit = another(store).publish("mena", 2)
    for staleness in (0, 60):
        snap = reader.read_latest("mena", max_staleness=staleness)
        assert snap is not None
        assert snap.etag == commit.etag


def test_a_flushed_store_is_forgotten(store: Store) -> None:
    """Nothing is published any more: memory must not go on serving it, and the name is listed anew."""
    store.publish("mena", 1)
    reader, _, _ = warm(store)
    reader.read_latest("mena")
    delete(store, MANIFEST)
    assert reader.read_latest("mena") is None
    assert reader.read_latest("mena", max_staleness=60) is None
    assert not reader._context.cache.is_listed(MANIFEST)


def test_a_damaged_dataset_is_listed(store: Store) -> None:
    """Something of another type under the manifest key: left out of the list, the damage would be hidden."""
    store.publish("mena", 1)
    reader, meddler = meddled(store)
    meddler.replies(1, lambda _: [Failed(Corrupt("another type, on purpose"))])
    assert reader.datasets() == ["mena"]
    meddler.replies(3, lambda _: [Failed(Unavailable("loading, on purpose"))])
    with pytest.raises(Unavailable, match="loading"):
        reader.datasets()


@pytest.mark.every_store
def test_what_comes_along_with_a_manifest_is_checked(store: Store) -> None:
    """A damaged record is damage, whichever way it came, and is not remembered."""
    store.publish("mena", "text", id="a")
    alter(store, "swapstore:id:{mena}:a", lambda record: record.replace(b"text", b"tent"))
    with pytest.raises(Corrupt, match="altered"):
        another(store).read_latest("mena")
    alter(store, "swapstore:id:{mena}:a", lambda record: record.replace(b"tent", b"text"))
    snap = another(store).read_latest("mena")
    assert snap is not None
    assert snap.value == "text"


@pytest.mark.every_store
def test_a_large_payload_does_not_come_along(store: Store) -> None:
    """A server's interpreter would copy megabytes, while everybody else waits."""
    store.publish("mena", b"x" * (SERVED + 1), codec="bytes")
    cold_trips(store)
    reader, meddler = meddled(store)
    snap = reader.read_latest("mena")
    assert snap is not None
    assert snap.size == SERVED + 1
    assert len(meddler.batches) == 2
    assert isinstance(meddler.batches[1][0], Get)


@pytest.mark.every_store
def test_a_pinned_snapshot_comes_along(store: Store) -> None:
    """What is served is not always the latest: a reader would wait twice, while something is pinned."""
    store.publish("mena", 1, id="good")
    store.publish("mena", 2, id="bad")
    store.pin("mena", id="good")
    cold = cold_trips(store)
    reader, meddler = meddled(store)
    snap = reader.read_latest("mena")
    assert snap is not None
    assert snap.value == 1
    assert len(meddler.batches) == cold


@pytest.mark.every_store
def test_a_store_that_refuses_is_asked_plainly_from_then_on(store: Store) -> None:
    """Credentials that may only read may run no script: that costs one round trip once, and no read."""
    store.publish_many({"mena": 1, "asia": 2})
    reader, meddler = meddled(store)
    meddler.replies(0, lambda _: [Failed(Unavailable("no scripts here"))])
    found = [reader.read_latest(name) for name in ("mena", "asia")]
    assert [snap and snap.value for snap in found] == [1, 2]
    kinds = [type(command) for batch in meddler.batches for command in batch]
    assert kinds == [GetServed, Get, Get, Get, Get]


@pytest.mark.every_store
def test_a_connection_that_is_cut_at_an_unknown_command(store: Store) -> None:
    """Some proxies answer so: a reader that insisted would read nothing, for as long as it lives."""
    store.publish_many({"mena": 1, "asia": 2})
    reader, meddler = meddled(store)
    meddler.before(0, lose)
    found = [reader.read_latest(name) for name in ("mena", "asia")]
    assert [snap and snap.value for snap in found] == [1, 2]
    kinds = [type(command) for batch in meddler.batches for command in batch]
    assert kinds == [GetServed, Get, Get, Get, Get]


def test_damage_of_one_dataset_says_nothing_about_the_others(store: Store) -> None:
    """One key of another type would cost every reader of every dataset a round trip."""
    store.publish("mena", 1)
    reader, meddler = meddled(store)
    meddler.replies(0, lambda _: [Failed(Corrupt("another type of value"))])
    reader.read_latest("mena")
    assert store._context.strategy.serves


def test_what_comes_along_is_as_old_as_the_question(store: Store) -> None:
    """A reply that took a second would be served for a second longer than `max_staleness` allows."""
    store.publish("mena", 1)
    cold_trips(store)
    clock = TickingClock()
    reader, meddler = meddled(store, clock=clock)
    asked_at: list[float] = []
    meddler.before(0, lambda: asked_at.append(clock.monotonic()))
    reader.read_latest("mena")
    known = reader._context.cache.known(MANIFEST)
    assert known is not None
    assert known.read_at < asked_at[0]


def test_what_comes_late_takes_nobody_back(store: Store) -> None:
    """A first read that is slow ends after a publish of the same client: that one's manifest stays known."""
    store.publish("mena", 1)
    reader, meddler = meddled(store)
    same = Store(store._driver, reader._context)
    meddler.after(0, lambda: same.publish("mena", 2))
    reader.read_latest("mena")
    known = reader._context.cache.known(MANIFEST)
    assert known is not None
    assert known.manifest.version == 2
