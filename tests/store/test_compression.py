"""Payloads stored with zstd, or as differences from a base: what users see, on every kind of store."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

import swapstore
import swapstore.aio
from swapstore import Retention, Store
from swapstore.cache import ENTRY_BYTES, Cache
from swapstore.commands import Expire, Get, Put
from swapstore.errors import Corrupt, InvalidInput, PayloadMissing
from swapstore.format import manifest, records
from swapstore.format.encodings import Dictionary
from tests.retention.test_histories_of_bases import check
from tests.store.test_damage import alter, delete
from tests.support import bases, invariants
from tests.support.drivers import Meddler, another, cold_trips, meddled
from tests.support.times import at

pytestmark = pytest.mark.every_store

TRAINED = bytes.fromhex("37a430ec")


def document(number: int) -> dict[str, Any]:
    """Three kilobytes, of which little changes from one number to the next."""
    rows = [{"name": f"row {row}", "value": random.Random(row).random()} for row in range(60)]
    rows[number % 60]["value"] = number
    return {"rows": rows}


def stored_as(store: Store, compression: str, **options: Any) -> tuple[Store, Meddler]:
    """Another client, which stores payloads so, and what passes between it and the store."""
    policy = msgspec.structs.replace(store._context.policy, compression=compression)
    return meddled(store, policy=policy, **options)


def held(store: Store, id: str) -> records.Holding:  # noqa: A002
    """How the record of a snapshot holds its payload."""
    key = store._context.keys.id("mena", id)
    return records.holding_of(invariants.contents(store)[key][0], key)


def in_force(store: Store) -> str:
    """The key of the base in force."""
    base = invariants.manifest_of(store).log.base
    assert base is not None
    return store._context.keys.base("mena", base.name)


def value_of(snapshot: swapstore.Snapshot | None) -> Any:
    assert snapshot is not None
    return snapshot.value


def publish_all(store: Store, *numbers: int) -> None:
    for number in numbers:
        store.publish("mena", document(number), id=f"id-{number}")


# --- round trips -----------------------------------------------------------------------------------


def test_a_warm_publish_takes_one_round_trip_with_and_without_a_new_base(store: Store) -> None:
    """A producer of differences waits twice for the store, each time or whenever a base is new."""
    producer, meddler = stored_as(store, "delta")
    publish_all(producer, 0, 1)
    for payload in (bases.strange(1), bases.strange(2), bases.like(2, 1)):
        begun, before = len(meddler.batches), in_force(store)
        producer.publish("mena", payload, codec="bytes")
        assert len(meddler.batches) - begun == 1
    assert in_force(store) == before, "the last one is a difference from a new base"
    check(store)


def test_a_cold_read_of_a_difference_takes_no_more_round_trips_than_any(store: Store) -> None:
    """A reader that starts waits for the base after it waited for the record."""
    publish_all(stored_as(store, "delta")[0], 0, 1)
    cold = cold_trips(store)
    reader, meddler = meddled(store)
    assert value_of(reader.read_latest("mena")) == document(1)
    assert len(meddler.batches) == cold


def test_a_warm_read_of_a_new_version_takes_two_round_trips(store: Store) -> None:
    """A reader that polls waits three times for a new version, each time or whenever its base is new."""
    producer, _ = stored_as(store, "delta")
    publish_all(producer, 0, 1)
    reader, meddler = meddled(store)
    reader.read_latest("mena")
    for payload in (bases.strange(1), bases.strange(2), bases.like(2, 1)):
        producer.publish("mena", payload, codec="bytes")
        begun = len(meddler.batches)
        snapshot = reader.read_latest("mena")
        assert snapshot is not None
        assert snapshot.raw == payload
        assert len(meddler.batches) - begun == 2
        reader.read_latest("mena")
        assert len(meddler.batches) - begun == 3, "and an unchanged one in one"


def test_a_manifest_of_400_versions_is_small(store: Store) -> None:
    """Each publish of one kilobyte sends many times as much."""
    for number in range(400):
        store.publish("mena", "x" * 1000, id=f"{number:036d}")
    found = invariants.contents(store)
    assert len(found["swapstore:manifest:{mena}"][0]) <= 2600


# --- a base that is lost ---------------------------------------------------------------------------


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("damage", ["deleted", "another"])
def test_publishing_goes_on_when_the_base_in_force_is_lost(
    store: Store, damage: str, *, remembers: bool
) -> None:
    """Snapshots are acknowledged that nobody can ever read, or none is published any more."""
    producer, _ = stored_as(store, "delta")
    publish_all(producer, 0, 1)
    lost = in_force(store)
    if damage == "deleted":
        delete(store, lost)
    else:
        alter(store, lost, lambda record: record.replace(b'{"base":"', b'{"base":"9', 1))
    publish_all(producer if remembers else stored_as(store, "delta")[0], 2, 3)
    assert in_force(store) != lost
    for number in (2, 3):
        assert value_of(another(store).read("mena", id=f"id-{number}")) == document(number)


def test_a_publish_makes_a_base_permanent_or_brings_another(store: Store) -> None:
    """A snapshot is acknowledged, and cannot be read some minutes later."""
    producer, _ = stored_as(store, "delta")
    publish_all(producer, 0, 1)
    expire(store, in_force(store))
    publish_all(producer, 2)
    found = invariants.contents(store)
    assert found[in_force(store)][1] is False
    assert value_of(another(store).read("mena", id="id-2")) == document(2)


def expire(store: Store, key: str) -> None:
    """Give a key a TTL of an hour."""
    if store._driver.kind == "sqlite":
        (value,) = store._driver.execute([Get(key)])
        delete(store, key)
        store._driver.execute([Put(key, value, 3_600_000)])
    else:
        store._driver.execute([Expire(key, 3_600_000)])


def test_reading_names_the_base_that_is_lost(store: Store) -> None:
    """A snapshot that cannot be read is blamed on the record, which is whole."""
    publish_all(stored_as(store, "delta")[0], 0, 1)
    base = in_force(store)
    alter(store, base, lambda record: record[:-1])
    with pytest.raises(Corrupt) as corrupt:
        another(store).read_latest("mena")
    assert corrupt.value.key == base
    delete(store, base)
    for id in ("id-0", "id-1"):  # noqa: A001
        with pytest.raises(PayloadMissing) as missing:
            another(store).read("mena", id=id)
        assert missing.value.key == base
        assert base in str(missing.value)


# --- what producers do -----------------------------------------------------------------------------


def test_two_producers_with_different_settings(store: Store) -> None:
    """Producers of one dataset must all have the same setting, or readers cannot read some of it."""
    clients = [stored_as(store, setting)[0] for setting in ("delta", "none", "zstd", "delta")]
    for number in range(24):
        publish_all(clients[number % 4], number)
    check(store)
    reader = another(store)
    for number in range(24):
        assert value_of(reader.read("mena", id=f"id-{number}")) == document(number)
    assert {held(store, f"id-{n}").encoding for n in (1, 5, 9)} == {None}
    assert {held(store, f"id-{n}").base is None for n in (2, 6)} == {True}
    assert held(store, "id-20").base is not None


@pytest.mark.parametrize("first", ["none", "zstd", "delta"])
@pytest.mark.parametrize("second", ["none", "zstd", "delta"])
def test_an_id_published_again_with_another_setting_is_the_same_content(
    store: Store, first: str, second: str
) -> None:
    """A retry by a producer with another setting raises IdConflict, or is committed twice."""
    publish_all(stored_as(store, "delta")[0], 0)
    one = stored_as(store, first)[0].publish("mena", document(1), id="a")
    two = stored_as(store, second)[0].publish("mena", document(1), id="a")
    assert (one.created, two.created, two.version) == (True, False, one.version)


def test_a_pinned_old_snapshot_keeps_its_base_under_retention(store: Store) -> None:
    """The snapshot that everybody reads cannot be read: retention has unlinked its base."""
    producer, _ = stored_as(store, "delta", retention=Retention(max_count=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "F", 2)
        patch.setattr(manifest, "RECENT", 1)
        producer.publish("mena", bases.strange(0), id="a", codec="bytes")
        producer.publish("mena", bases.like(0, 1), id="b", codec="bytes")
        base = in_force(store)
        producer.pin("mena", id="b")
        for number in range(1, 15):
            producer.publish("mena", bases.strange(number), codec="bytes")
            check(store)
        assert invariants.contents(store)[base][1] is False
        snapshot = another(store).read_latest("mena")
        assert snapshot is not None
        assert snapshot.raw == bases.like(0, 1)
        producer.unpin("mena")
        check(store)
        assert invariants.contents(store)[base][1] is True


def test_a_rollback_to_a_difference_from_an_old_base(store: Store) -> None:
    """A rollback serves what cannot be read, or the next publish is stored against a base that is gone."""
    producer, _ = stored_as(store, "delta")
    producer.publish("mena", bases.strange(0), id="a", ts=at(1), codec="bytes")
    producer.publish("mena", bases.like(0, 1), id="b", ts=at(2), codec="bytes")
    for number in range(1, 4):
        producer.publish("mena", bases.strange(number), ts=at(2 + number), codec="bytes")
    producer.rollback("mena", id="b")
    snapshot = another(store).read_latest("mena")
    assert snapshot is not None
    assert snapshot.raw == bases.like(0, 1)
    producer.publish("mena", bases.like(3, 1), codec="bytes")
    check(store)


def test_many_datasets_have_bases_of_their_own(store: Store) -> None:
    """`publish_many` stores one dataset as differences from another's base."""
    producer, _ = stored_as(store, "delta")
    for number in range(3):
        outcomes = producer.publish_many({"mena": document(number), "asia": document(number + 30)})
        assert not [each for each in outcomes.values() if isinstance(each, Exception)]
    for dataset, number in (("mena", 2), ("asia", 32)):
        check(store, dataset)
        assert value_of(another(store).read_latest(dataset)) == document(number)
        assert invariants.manifest_of(store, dataset).head.latest.base is not None


# --- payloads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["zstd", "delta"])
@pytest.mark.parametrize(
    "payload",
    [b"", b"\xff", b"short", b"x" * 255, b"x" * 5000, TRAINED, TRAINED + b"y" * 5000, bases.strange(1, 5000)],
    ids=["empty", "byte", "short", "255", "same", "magic", "after-magic", "strange"],
)
def test_every_payload_is_read_as_it_was_published(store: Store, compression: str, payload: bytes) -> None:
    """Some payload is altered by its encoding, or brings a base that readers take for another thing."""
    producer, _ = stored_as(store, compression)
    for number in range(2):
        producer.publish("mena", payload + b"%d" % number, id=f"{number}", codec="bytes")
        producer.publish("mena", document(number), id=f"d{number}")
    check(store)
    for number in range(2):
        snapshot = another(store).read("mena", id=f"{number}")
        assert snapshot is not None
        assert snapshot.raw == payload + b"%d" % number


def test_what_does_not_get_smaller_is_stored_plain(store: Store) -> None:
    """A payload that is compressed already takes more room than without the setting."""
    payload = b'"' + bases.strange(1, 3000).hex().encode() + b'"'
    stored_as(store, "zstd")[0].publish("mena", payload, id="hex", codec="bytes")
    assert held(store, "hex").encoding is not None
    for setting in ("zstd", "delta"):
        stored_as(store, setting)[0].publish("mena", bases.strange(2, 3000), id=setting, codec="bytes")
    assert held(store, "zstd").encoding in {None, "base64"}


def test_a_payload_too_small_for_a_base_brings_none(store: Store) -> None:
    """Each dataset of a few bytes gets a base that is larger than itself."""
    producer, _ = stored_as(store, "delta")
    for number in range(5):
        producer.publish("mena", bases.strange(number, 250), codec="bytes")
    assert not [key for key in invariants.contents(store) if ":base:" in key]


# --- the cache -------------------------------------------------------------------------------------


def test_a_reader_without_a_cache_reads_differences(store: Store) -> None:
    """A reader whose cache is off reads the base again and again within one call, or fails."""
    publish_all(stored_as(store, "delta")[0], 0, 1)
    reader, meddler = meddled(store, cache_bytes=0)
    for _ in range(3):
        begun = len(meddler.batches)
        assert value_of(reader.read_latest("mena")) == document(1)
        assert len(meddler.batches) - begun == 2
    assert value_of(reader.read("mena", id="id-0")) == document(0)


def test_a_producer_without_a_cache_reads_the_base_for_each_publish(store: Store) -> None:
    """A producer whose cache is off pays more than one round trip, or brings a base each time."""
    producer, meddler = stored_as(store, "delta", cache_bytes=0)
    publish_all(producer, 0, 1)
    before = in_force(store)
    begun = len(meddler.batches)
    publish_all(producer, 2)
    assert len(meddler.batches) - begun == 2
    assert in_force(store) == before
    check(store)


def test_the_memory_of_bases_counts_in_the_cache(store: Store) -> None:
    """A process with thousands of datasets keeps more in memory than `cache_bytes` says."""
    del store
    cache = Cache(1_000_000)
    for number in range(200):
        base = Dictionary(f"{number}.{'0' * 16}", bases.strange(number, 10_000))
        cache.keep_base(f"base-{number}", base, compressing=number % 2 == 0)
        cache.keep_base(f"base-{number}", base, compressing=True)
        cache.keep(f"record-{number}", "digest", b"x" * 5000)
    kept = [each for each in (cache.base(f"base-{number}") for number in range(200)) if each]
    assert kept
    least = sum(each.memory_bytes(compressing=True) + ENTRY_BYTES for each in kept)
    assert least <= 1_000_000
    cache.forget_base("base-199")
    cache.forget_base("base-199")
    assert cache.base("base-199") is None
    assert cache._size == sum(size + ENTRY_BYTES for size, _ in cache._records.values())
    cache.keep_base("huge", Dictionary("1.0", b"x" * 2_000_000), compressing=False)
    assert cache.base("huge") is None


# --- settings, import, mirror, asyncio ---------------------------------------------------------------


def test_the_environment_sets_the_compression(
    monkeypatch: pytest.MonkeyPatch, real_url: str, tmp_path: Path
) -> None:
    """The variable is ignored, or a wrong value is noticed only when the first publish is lost."""
    del tmp_path
    monkeypatch.setenv("SWAPSTORE_COMPRESSION", "zstd")
    with swapstore.connect(real_url) as store:
        store.publish("mena", document(0), id="a")
        assert held(store, "a").encoding == "zstd"
    with swapstore.connect(real_url, compression="none") as store:
        store.publish("mena", document(1), id="b")
        assert held(store, "b").encoding is None
    monkeypatch.setenv("SWAPSTORE_COMPRESSION", "gzip")
    with pytest.raises(InvalidInput, match=r"SWAPSTORE_COMPRESSION.*gzip"):
        swapstore.connect(real_url)
    monkeypatch.setenv("SWAPSTORE_COMPRESSION", "")
    swapstore.connect(real_url).close()
    for wrong in ("ZSTD", b"zstd", 3, True):
        with pytest.raises(InvalidInput):
            swapstore.connect(real_url, compression=wrong)  # type: ignore[arg-type]


def test_asyncio_stores_differences_too(real_url: str) -> None:
    """The asyncio store ignores the setting, or cannot read what is stored so."""

    async def run() -> None:
        async with swapstore.aio.connect(real_url, compression="delta") as store:
            for number in range(4):
                await store.publish("mena", document(number), id=f"id-{number}")
            found = await store.read("mena", id="id-1")
            assert found is not None
            assert found.value == document(1)
        async with swapstore.aio.connect(real_url) as reader:
            assert value_of(await reader.read_latest("mena")) == document(3)

    asyncio.run(run())
    with swapstore.connect(real_url) as store:
        assert held(store, "id-3").base is not None
        check(store)
