"""A first read gets the manifest and the record in one round trip, where the store supports that."""

from __future__ import annotations

import msgspec
import pytest

from swapstore import Store
from swapstore.commands import Failed, Get, GetServed
from swapstore.errors import (
    Corrupt,
    Unavailable,
)
from swapstore.protocol.load import SERVED_BYTES
from tests.store.test_damage import MANIFEST, alter
from tests.support.deterministic import TickingClock
from tests.support.drivers import another, cold_trips, lose, meddled

pytestmark = pytest.mark.every_store


def test_a_record_read_with_its_manifest_is_checked(store: Store) -> None:
    """A damaged record is served or cached when it is read together with the manifest."""
    store.publish("mena", "text", id="a")
    alter(store, "swapstore:id:{mena}:a", lambda record: record.replace(b"text", b"tent"))
    with pytest.raises(Corrupt, match="altered"):
        another(store).read_latest("mena")
    alter(store, "swapstore:id:{mena}:a", lambda record: record.replace(b"tent", b"text"))
    snap = another(store).read_latest("mena")
    assert snap is not None
    assert snap.value == "text"


def test_a_large_payload_is_not_read_with_the_manifest(store: Store) -> None:
    """A server's script interpreter copies megabytes while all other clients wait."""
    store.publish("mena", b"x" * (SERVED_BYTES + 1), codec="bytes")
    cold_trips(store)
    reader, meddler = meddled(store)
    snap = reader.read_latest("mena")
    assert snap is not None
    assert snap.size == SERVED_BYTES + 1
    assert len(meddler.batches) == 2
    assert isinstance(meddler.batches[1][0], Get)


def test_a_large_payload_that_is_stored_in_few_bytes_is_read_with_the_manifest(store: Store) -> None:
    """A distant reader waits for two round trips although the record and its base are small."""
    policy = msgspec.structs.replace(store._context.policy, compression="delta")
    producer, _ = meddled(store, policy=policy)
    producer.publish("mena", ["x" * 20] * 4096)
    producer.publish("mena", ["x" * 20] * 4096 + ["y"])
    cold = cold_trips(store)
    reader, meddler = meddled(store)
    snap = reader.read_latest("mena")
    assert snap is not None
    assert snap.value[-1] == "y"
    assert snap.size > SERVED_BYTES
    assert len(meddler.batches) == cold


def test_a_pinned_snapshot_is_read_with_the_manifest(store: Store) -> None:
    """A reader waits for two round trips while a snapshot is pinned."""
    store.publish("mena", 1, id="good")
    store.publish("mena", 2, id="bad")
    store.pin("mena", id="good")
    cold = cold_trips(store)
    reader, meddler = meddled(store)
    snap = reader.read_latest("mena")
    assert snap is not None
    assert snap.value == 1
    assert len(meddler.batches) == cold


def test_a_first_read_is_as_old_as_its_request(store: Store) -> None:
    """A reply that took a second is served a second longer than `max_staleness` allows."""
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


def test_a_slow_first_read_does_not_replace_a_newer_manifest(store: Store) -> None:
    """A slow first read replaces the manifest that the same client published in between."""
    store.publish("mena", 1)
    reader, meddler = meddled(store)
    same = Store(store._driver, reader._context)
    meddler.after(0, lambda: same.publish("mena", 2))
    reader.read_latest("mena")
    known = reader._context.cache.known(MANIFEST)
    assert known is not None
    assert known.manifest.version == 2


# --- stores that cannot do it -----------------------------------------------------------------------


def test_without_scripts_the_manifest_is_read_by_itself(store: Store) -> None:
    """A reader that may not run scripts fails, or tries a script at each read."""
    store.publish_many({"mena": 1, "asia": 2})
    reader, meddler = meddled(store)
    meddler.replies(0, lambda _: [Failed(Unavailable("no scripts here"))])
    found = [reader.read_latest(name) for name in ("mena", "asia")]
    assert [snap and snap.value for snap in found] == [1, 2]
    kinds = [type(command) for batch in meddler.batches for command in batch]
    assert kinds == [GetServed, Get, Get, Get, Get]


def test_behind_a_proxy_that_disconnects_the_manifest_is_read_by_itself(store: Store) -> None:
    """A reader behind a proxy that disconnects at unknown commands never reads anything."""
    store.publish_many({"mena": 1, "asia": 2})
    reader, meddler = meddled(store)
    meddler.before(0, lose)
    found = [reader.read_latest(name) for name in ("mena", "asia")]
    assert [snap and snap.value for snap in found] == [1, 2]
    kinds = [type(command) for batch in meddler.batches for command in batch]
    assert kinds == [GetServed, Get, Get, Get, Get]


def test_damage_of_one_dataset_says_nothing_about_the_others(store: Store) -> None:
    """One key of another type costs readers of all datasets a round trip."""
    store.publish("mena", 1)
    reader, meddler = meddled(store)
    meddler.replies(0, lambda _: [Failed(Corrupt("another type of value"))])
    reader.read_latest("mena")
    assert store._context.capabilities.serves
