"""Erase and drop of groups: members, and what others are stored against, go with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import swapstore
from swapstore import Store
from swapstore.commands import Swap
from swapstore.errors import NotFound
from swapstore.testing import SimulatedStore
from swapstore.testing.simulated import Keyspace, Value
from tests.support import invariants
from tests.support.valkey import Server

D = "scores"
FILLER = "the same in all versions, " * 20


@pytest.fixture(params=["none", "zstd", "delta"])
def store(request: pytest.FixtureRequest, valkey: Server) -> Iterator[Store]:
    with swapstore.connect(valkey.url, compression=request.param) as made:
        yield made


def members(number: int) -> dict[str, Any]:
    """A group whose first member differs in each version, and has a word that no other has."""
    return {"EG": f"{FILLER} word-{number}-of-EG", "SG": FILLER, "meta": [number % 2]}


def fill(store: Store, count: int) -> None:
    for number in range(count):
        store.publish_group(D, members(number), id=f"id-{number}")


def found_in(store: Store, server: Server, word: str) -> list[str]:
    """The keys that hold a word, decoded. What is stored as a difference is read through the store."""
    with server.client() as client:
        plain: list[str] = []
        for key in client.scan_iter("*"):
            if client.type(key) != b"string":
                continue
            value = client.get(key) or b""
            line, _, body = value.partition(b"\n")
            texts = [key, line, body]
            if (
                body.startswith(bytes.fromhex("28b52ffd"))
                and b'"base":"' not in line.partition(b',"size"')[2]
            ):
                texts.append(_decompressed(body))
            plain += [key.decode()] if any(word.encode() in text for text in texts) else []
        return plain


def _decompressed(body: bytes) -> bytes:
    from swapstore.format import encodings  # noqa: PLC0415

    try:
        return bytes(encodings._zstd().decompress(body))
    except Exception:  # noqa: BLE001 - a difference from a base
        return b""


@pytest.mark.server
@pytest.mark.parametrize("number", [0, 3])
def test_a_group_is_erased_with_its_members(store: Store, valkey: Server, number: int) -> None:
    """The members of an erased group stay, or the base that it has brought keeps their bytes."""
    fill(store, 6)
    if number == 0:  # it has brought the base of the others
        assert found_in(store, valkey, f"word-{number}-of-EG")
    based = [row for row in store.history(D, limit=None) if row.base is not None and row.version > 1]
    erased = store.erase(D, id=f"id-{number}")
    assert erased.version == number + 1
    assert erased.stored_anew == (0 if number else len(based)), "snapshots are told, and not their members"
    assert not found_in(store, valkey, f"word-{number}-of-EG")
    with valkey.client() as client:
        assert not [key for key in client.scan_iter("*") if f":id-{number}:".encode() in key]
    for other in range(6):
        snapshot = store.read(D, id=f"id-{other}")
        assert (snapshot and snapshot.value) == (None if other == number else members(other))
    assert [finding for finding in store.verify() if finding.problem.wrong] == []
    fill_again = store.publish_group(D, members(9), id="id-9")
    assert store.read_group(D, members=["EG"], min_version=fill_again.version)["EG"].value == members(9)["EG"]  # type: ignore[index]


@pytest.mark.server
def test_a_dataset_of_groups_is_dropped(store: Store, valkey: Server) -> None:
    """Members, or their bases, are left when their dataset is dropped."""
    fill(store, 20)
    store.publish("other", 1)
    store.drop(D)
    assert store.read_group(D) is None
    with valkey.client() as client:
        assert not [key for key in client.scan_iter("*") if b"{scores}" in key]
    assert [finding for finding in store.verify() if finding.problem.wrong] == []
    assert store.read_latest("other") is not None


@pytest.mark.parametrize("ttl_ms", [None, 600_000])
def test_members_of_which_nothing_else_is_left_are_erased(ttl_ms: int | None) -> None:
    """Members of a publish that was cut are deleted, and the caller is told that there were none."""
    sim = SimulatedStore()
    store = sim.connect()
    fill(store, 2)
    expires_at = None if ttl_ms is None else sim.clock.ms + ttl_ms
    for name in ("EG", "SG"):
        key = store._context.keys.member(D, "cut:01234567", name)
        sim.keyspace.values[key] = Value(b'{"size":1,"sha256":"00"}\n1', expires_at)
    assert store.erase(D, id="cut").id == "cut"
    with pytest.raises(NotFound, match="no key there holds anything"):
        store.erase(D, id="cut")
    sim.clock.advance(5)
    assert not [key for key in invariants.contents(store) if ":cut:" in key]
    assert [finding for finding in store.verify() if finding.wrong] == []
    assert store.publish_group(D, members(0), id="cut").created


def test_what_tells_of_the_members_is_deleted_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stops in the middle of an erase leaves members that no second call can find."""
    swaps: list[Swap] = []
    carried_out = Keyspace.commit

    def commit(keyspace: Keyspace, swap: Swap, now_ms: int, **options: Any) -> Any:
        swaps.append(swap)
        return carried_out(keyspace, swap, now_ms, **options)

    monkeypatch.setattr(Keyspace, "commit", commit)
    store = SimulatedStore().connect()
    fill(store, 3)
    store.erase(D, id="id-1")
    kinds = [key.split(":")[1] for key in swaps[-1].unlinked if ":id-1" in key]
    assert kinds == ["member", "member", "member", "id", "ts"]
