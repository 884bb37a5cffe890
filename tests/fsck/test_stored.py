"""Records are read many at once; where a store refuses that, one by one: verify finds the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

import swapstore
from swapstore import Store
from swapstore.commands import Command, Failed, Get, GetAll, Ttl, Ttls
from swapstore.errors import Unsupported
from swapstore.fsck import rows
from tests.fsck.conftest import MANIFEST, StoredDataset, key
from tests.fsck.simulated import SimulatedDataset, grown
from tests.support.drivers import Meddler, another, lose, meddled
from tests.support.times import at
from tests.support.valkey import Server, client_of

ROWS = 12
OTHERS = "ab"  # members of a group


def alter(record: bytes) -> bytes:
    """Change the last byte."""
    return record[:-1] + bytes([record[-1] ^ 1])


def asked(meddler: Meddler, *kinds: type) -> list[Command[Any]]:
    """The commands of these kinds that were sent."""
    return [command for batch in meddler.batches for command in batch if type(command) in kinds]


def spoil(dataset: StoredDataset) -> None:
    """Damage records in each way."""
    damage = dataset.damage
    damage.delete(key("id", 1), key("ts", 2), key("id", 3), key("ts", 3))
    for kind, number in (("id", 4), ("ts", 5), ("id", 6), ("ts", 6)):
        damage.alter(key(kind, number), alter)
    for kind, number in (("id", 7), ("ts", 8), ("id", 9), ("ts", 9)):
        damage.expire(key(kind, number), 600_000_000)
    damage.put(key("id", 10), b"")
    damage.put(key("ts", 11), b"")


def found(store: Store, **options: Any) -> list[Any]:
    """All that verify finds, but not when it expires, as a client that may read many keys at once, or not."""
    client = another(store)
    for name, value in options.items():
        setattr(client._context.capabilities, name, value)
    return [(f.problem, f.key, f.version, f.id, f.detail, f.expires_in_ms is None) for f in client.verify()]


@pytest.mark.every_store
def test_verify_finds_the_same_many_at_once_and_one_by_one(
    published: Callable[[int], StoredDataset],
) -> None:
    """Damage is missed, or described otherwise, because of how its record was read."""
    dataset = published(ROWS)
    spoil(dataset)
    plain = found(dataset.store, reads_many=False)
    assert len({each[1] for each in plain}) >= 12
    assert found(dataset.store, reads_many=True) == plain


@pytest.mark.every_store
def test_an_altered_payload_of_the_same_size_is_found(published: Callable[[int], StoredDataset]) -> None:
    """A payload with one other byte is called whole."""
    dataset = published(3)
    dataset.damage.alter(key("id", 2), alter)
    assert dataset.problems() == ["record-damaged"]


@pytest.mark.every_store
def test_a_record_that_has_expired_is_missing(published: Callable[[int], StoredDataset]) -> None:
    """A record that nobody can read is said to expire one day, because its bytes are still in the file."""
    dataset = published(3)
    dataset.damage.expire(key("id", 2), 1)
    time.sleep(0.01)
    assert dataset.problems() == ["record-missing"]


@pytest.mark.every_store
def test_a_value_of_another_type_is_damage(published: Callable[[int], StoredDataset]) -> None:
    """A record that another program replaced is called missing, and a repair leaves that in its place."""
    dataset = published(ROWS)
    if not dataset.damage.has_types:
        pytest.skip("a file has no types")
    for each in (key("id", 3), key("ts", 5)):
        dataset.damage.delete(each)
        dataset.damage.client.sadd(each, "x")
    plain = found(dataset.store, reads_many=False)
    assert [each[0].value for each in plain] == ["record-damaged", "ts-damaged"]
    assert found(dataset.store, reads_many=True) == plain


@pytest.fixture
def original(tiny_pages: None) -> SimulatedDataset:
    """A dozen snapshots in pages, on a simulated store."""
    return grown(ROWS)


def test_each_record_is_asked_for_once(original: SimulatedDataset) -> None:
    """Verify of a healthy store sends each row's commands one by one, which takes three times as long."""
    client, watched = meddled(original.store)
    assert list(client.verify("mena")) == []
    records = {each for row in original.rows for each in client._context.keys.records("mena", row)}
    for kind in (GetAll, Ttls):
        keys = [each for command in asked(watched, kind) for each in command.keys]  # type: ignore[attr-defined]
        assert sorted(keys) == sorted(records)
    assert not {each.key for each in asked(watched, Get, Ttl)} & records  # type: ignore[attr-defined]


def test_a_chunk_is_bounded_in_rows_and_bytes(
    original: SimulatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verify takes as much memory as the dataset, or one script holds up the server."""
    monkeypatch.setattr(rows, "CHUNK_ROWS", 3)
    client, watched = meddled(original.store)
    assert list(client.verify("mena")) == []
    assert max(len(each.keys) for each in asked(watched, GetAll)) == 2 * 3  # type: ignore[attr-defined]
    monkeypatch.setattr(rows, "CHUNK_BYTES", 1)
    client, watched = meddled(original.store)
    assert list(client.verify("mena")) == []
    assert {len(each.keys) for each in asked(watched, GetAll)} == {2}  # type: ignore[attr-defined]


def refusing(kind: type, failed: Failed) -> Any:
    """Return an `execute` whose store refuses one kind of command."""

    def execute(self: Any, commands: Any) -> list[Any]:
        replies = Meddler.execute(self, commands)
        return [
            failed if type(command) is kind else reply
            for command, reply in zip(commands, replies, strict=True)
        ]

    return execute


@pytest.mark.parametrize("kind", [GetAll, Ttls])
def test_a_store_that_refuses_to_answer_about_many_keys_is_asked_about_each(
    original: SimulatedDataset, kind: type
) -> None:
    """Where scripts may not run, verify fails, or tries a script for each of a thousand batches."""
    original.sim.evict("swapstore:id:{mena}:id-4")
    wrong = [*another(original.store).verify("mena")]
    client, meddler = meddled(original.store)
    vars(meddler)["execute"] = refusing(kind, Failed(Unsupported("no scripts"))).__get__(meddler)
    assert [*client.verify("mena")] == wrong != []
    assert len(asked(meddler, kind)) == 1
    assert not client._context.capabilities.reads_many


def test_lost_replies_are_no_refusal(original: SimulatedDataset) -> None:
    """One failed connection makes verify slow for as long as the client lives, or ends it."""
    client, watched = meddled(original.store)
    list(client.verify("mena"))
    reading = [n for n, batch in enumerate(watched.batches) if any(type(each) is GetAll for each in batch)]
    client, meddler = meddled(original.store)
    meddler.after(reading[0], lose)
    assert [*client.verify("mena")] == []
    assert len(asked(meddler, GetAll)) == len(reading)
    assert len(asked(meddler, Get)) > len(asked(watched, Get))


# --- on a server -----------------------------------------------------------------------------------


def test_a_user_who_may_run_no_script(valkey: Server) -> None:
    """A reader with the least permissions cannot verify any more."""
    with swapstore.connect(valkey.url) as store, redis.Redis.from_url(valkey.url) as client:
        for number in range(1, ROWS + 1):
            store.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number))
        client.expire(key("ts", 4), 1000)
        client.acl_setuser(
            "reader",
            enabled=True,
            passwords=["+secret"],
            keys=["*"],
            commands=["+get", "+getrange", "+smembers", "+scan", "+pttl"],
        )
        address = valkey.url.replace("://", "://reader:secret@")
        with swapstore.connect(address) as reader:
            assert found(reader) == found(store)
            assert not reader._context.capabilities.reads_many


def test_a_user_who_may_run_scripts_that_only_read(valkey: Server) -> None:
    """A reader who may not write is asked for the right to, or reads one record after the other."""
    with swapstore.connect(valkey.url) as store, redis.Redis.from_url(valkey.url) as client:
        for number in range(1, ROWS + 1):
            store.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number))
        rights = ["+get", "+mget", "+getrange", "+smembers", "+scan", "+pttl", "+eval_ro", "+evalsha_ro"]
        client.acl_setuser("reader", enabled=True, passwords=["+secret"], keys=["*"], commands=rights)
        with swapstore.connect(valkey.url.replace("://", "://reader:secret@")) as reader:
            assert list(reader.verify("mena")) == []
            assert reader._context.capabilities.reads_many


def test_a_server_that_forgets_its_scripts(valkey: Server) -> None:
    """A restart between two batches ends verify, or hides that a record expires."""
    with swapstore.connect(valkey.url) as store:
        for number in range(1, ROWS + 1):
            store.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number))
        client_of(store._driver).expire(key("ts", 4), 1000)
        assert [each[0].value for each in found(store)] == ["ts-expiring"]
        client_of(store._driver).script_flush()
        assert [each[0].value for each in found(store)] == ["ts-expiring"]
        assert store._context.capabilities.reads_many
        assert client_of(store._driver).exists(MANIFEST)
