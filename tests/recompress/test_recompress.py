"""`recompress` as an operator runs it: history that is stored anew, and nothing else that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

import swapstore
from swapstore import Recompressed, Retention, Store
from swapstore.commands import Command, Swap
from swapstore.errors import Contended, InvalidInput, NotFound, Unavailable, Unsupported
from swapstore.models import Compression, Row
from swapstore.protocol import recompress
from swapstore.protocol.scriptless.committer import ByCompareAndSet, UnderLease
from swapstore.testing import SimulatedStore
from tests.recompress.model import D, document, fill, stored, storing
from tests.support.drivers import another, lose, meddled

NONE = {(None, False)}


def seen(store: Store) -> list[tuple[Row, bytes]]:
    """What a new client reads: each row of the history, and its payload."""
    reader = another(store)
    found = []
    for row in reader.history(D, limit=None):
        snapshot = reader.read(D, id=row.id)
        assert snapshot is not None
        found.append((row, snapshot.raw))
    return found


@pytest.mark.every_store
def test_history_becomes_small_and_plain_again(store: Store) -> None:
    """History that was published before `compression=` stays large for ever, or cannot be read after it."""
    fill(store, 60, "none")
    before, size = seen(store), stored(store).size
    small = store.recompress(D, compression="delta")
    assert (small.stored_anew, small.left, small.unreadable) == (60, 0, 0)
    assert small.bytes_after < small.bytes_before / 3
    assert stored(store).size < size * 2 / 3
    assert stored(store).encodings == {("zstd", True)}
    assert seen(store) == before
    plain = store.recompress(D, compression="none")
    found = stored(store)
    assert (plain.stored_anew, found.encodings, found.bases, found.manifest.log.base) == (60, NONE, [], None)
    assert plain.bytes_after == small.bytes_before
    assert seen(store) == before


def test_what_is_done_is_not_done_again(store: Store) -> None:
    """A cron job wakes every follower, and discards the live view, although there is nothing to do."""
    fill(store, 40, "none")
    for to in ("delta", "zstd", "none"):
        store.recompress(D, compression=to)
        client, meddler = meddled(store)
        again = client.recompress(D, compression=to)
        etag = stored(store).manifest.etag
        assert again == Recompressed(
            dataset=D,
            version=stored(store).manifest.version,
            etag=etag,
            compression=to,
            stored_anew=0,
            bytes_before=0,
            bytes_after=0,
            unreadable=0,
            left=0,
        )
        assert meddler.commits() == 0


def test_a_limit_ends_it_and_the_next_call_goes_on(store: Store) -> None:
    """An operator cannot do a long history in parts."""
    fill(store, 50, "none")
    for to in ("delta", "zstd"):
        done: list[Recompressed] = []
        while not done or done[-1].left:
            done.append(another(store).recompress(D, compression=to, limit=20))
            stored(store)
        assert [each.stored_anew for each in done] in ([20, 20, 10], [0]), "random bytes stay plain with zstd"
        assert (
            sum(each.bytes_after for each in done) < sum(each.bytes_before for each in done) or to == "zstd"
        )


def test_zstd_leaves_what_it_does_not_make_smaller() -> None:
    """Stored anew, an image takes more than before."""
    store = SimulatedStore().connect()
    store.publish(D, [1, 2, 3] * 100, id="text")
    store.publish(D, document(1), id="noise", codec="bytes")
    assert store.recompress(D, compression="zstd").stored_anew == 1
    held = stored(store).held
    assert (held["text"].encoding, held["noise"].encoding) == ("zstd", None)


def test_the_bytes_of_a_swap_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A history of large payloads has to fit into the memory of the client, or into one request."""
    store = SimulatedStore().connect()
    fill(store, 24, "none", size=2000)
    policy = msgspec.structs.replace(store._context.policy, max_batch_bytes=5000)
    client, meddler = meddled(store, policy=policy)
    client.recompress(D, compression="delta")
    assert stored(store).encodings == {("zstd", True)}
    rewritten = [
        len(command.rewritten)
        for batch in meddler.batches
        for command in batch
        if hasattr(command, "rewritten")
    ]
    assert max(rewritten) == 2
    assert sum(rewritten) == 24


def test_a_live_producer_goes_on_with_the_base(store: Store) -> None:
    """The first publish after it brings a base once more, or is stored plain."""
    fill(store, 20, "none")
    store.recompress(D, compression="delta")
    in_force = stored(store).manifest.log.base
    assert in_force is not None
    fill(store, 1, "delta", begin=20)
    assert stored(store).held["id-20"].base == in_force.name


def test_a_base_of_a_live_producer_stays(store: Store) -> None:
    """Stored plain beside a producer of deltas, history takes the base away that the next publish needs."""
    fill(store, 20, "delta")
    recompress_from = storing(store, "none")
    client, meddler = meddled(recompress_from)
    meddler.before(3, lambda: fill(store, 1, "delta", begin=20))
    client.recompress(D, compression="none")
    found = stored(store)
    assert found.manifest.log.base is not None
    assert found.held["id-20"].base == found.manifest.log.base.name
    assert {each.encoding for name, each in found.held.items() if name != "id-20"} == {None}


def test_a_mixed_history_keeps_rows_of_a_base_together() -> None:
    """A base is unlinked while rows that are not next to those that left still need it."""
    store = SimulatedStore().connect()
    settings: list[Compression] = ["none", "delta", "none", "delta", "zstd", "none", "delta", "none"]
    for begin, how in enumerate(settings):
        fill(store, 5, how, begin=5 * begin)
    before = seen(store)
    store.recompress(D, compression="delta")
    assert stored(store).encodings == {("zstd", True)}
    for _ in range(4):
        store.recompress(D, compression="none", limit=7)
        stored(store)
    store.recompress(D, compression="delta")
    stored(store)
    assert seen(store) == before


def test_between_rows_of_one_base_no_other_is_brought() -> None:
    """A base is unlinked with the rows before those of another base, while rows behind these need it."""
    store = SimulatedStore().connect()
    fill(store, 3, "delta")
    for number in range(3, 9):  # like each other, and not like the base
        store.publish(D, document(7, changed=number), id=f"id-{number}", codec="bytes")
    fill(store, 1, "delta", begin=9)
    assert len(stored(store).bases) == 1
    store.recompress(D, compression="delta")
    assert len(stored(store).bases) == 1
    fill_like(store, 20)
    fill_like(store, 23)
    assert len(stored(store).bases) == 3


def test_a_base_in_the_middle_of_a_page_stays_while_a_row_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reference names the first and the last base below it. A base between them would be unlinked."""
    monkeypatch.setattr(recompress, "ROWS_A_SWAP", 1)
    sim = SimulatedStore()
    store = sim.connect()
    for begin in range(0, 24, 3):  # a base each, all in one page of rows, or in pages below one reference
        fill_like(store, begin)
    key = store._context.keys.id(D, "id-0")
    value = sim.keyspace.values.pop(key)  # so the first row keeps its base
    while store.recompress(D, compression="none", limit=1).left:
        sim.keyspace.values[key] = value
        found = stored(store)
        del sim.keyspace.values[key]
    assert found.manifest.head.count == 24


def fill_like(store: Store, begin: int) -> None:
    """Publish three that are like each other, and like no others: they bring a base."""
    client = storing(store, "delta")
    for number in range(begin, begin + 3):
        client.publish(D, document(begin, changed=number), id=f"id-{number}", codec="bytes")


def test_a_pinned_snapshot_that_left_the_log_is_stored_anew() -> None:
    """Its base stays for ever, or is unlinked and it cannot be read."""
    sim = SimulatedStore()
    store = sim.connect()
    fill(store, 80, "delta")
    store.pin(D, id="id-0")
    store.prune(D, retention=Retention(max_count=2))
    sim.clock.advance(700_000)
    assert stored(store).manifest.head.pinned.base is not None  # type: ignore[union-attr]
    assert "id-0" not in {row.id for row in stored(store).rows}
    store.recompress(D, compression="none")
    found = stored(store)
    assert (found.encodings, found.manifest.head.pinned.base) == (NONE, None)  # type: ignore[union-attr]
    sim.keyspace.expire_all()
    assert not [key for key in sim.keyspace.values if ":base:" in key]


def test_what_cannot_be_read_stays_and_is_counted() -> None:
    """One lost payload keeps a whole history large."""
    sim = SimulatedStore()
    store = sim.connect()
    fill(store, 100, "none")
    keys = store._context.keys
    del sim.keyspace.values[keys.id(D, "id-3")]
    expiring = keys.id(D, "id-5")
    sim.keyspace.values[expiring] = attrs.evolve(sim.keyspace.values[expiring], expires_at=10**15)
    page = stored_page(sim, first=65)
    del sim.keyspace.values[page]
    done = another(store).recompress(D, compression="delta")
    assert (done.stored_anew, done.unreadable) == (100 - 2 - 8, 2 + 8)
    assert another(store).read(D, id="id-99").raw == document(0, changed=99)  # type: ignore[union-attr]


@pytest.mark.parametrize("damage", ["deleted", "another", "respelled", "expiring"])
@pytest.mark.parametrize("remembers", [True, False])
def test_nothing_is_stored_against_a_base_that_is_lost_or_may_expire(damage: str, *, remembers: bool) -> None:
    """Snapshots that were whole cannot be read any more: they need a base that is gone, or soon will be."""
    sim = SimulatedStore()
    producer = storing(sim.connect(), "delta")
    for number in range(3):
        producer.publish(D, document(0, changed=number), id=f"old-{number}", codec="bytes")
    fill(sim.connect(), 8, "none")
    (base,) = (key for key in sim.keyspace.values if ":base:" in key)
    value = sim.keyspace.values.pop(base)
    if damage == "another":
        sim.keyspace.values[base] = attrs.evolve(value, data=value.data.replace(b'"base":"', b'"base":"9', 1))
    elif damage == "respelled":  # it can be parsed, and is not what a commit expects
        sim.keyspace.values[base] = attrs.evolve(value, data=value.data.replace(b'{"base"', b'{ "base"', 1))
    elif damage == "expiring":
        sim.keyspace.values[base] = attrs.evolve(value, expires_at=sim.clock.ms + 600_000)
    done = (producer if remembers else another(sim.connect())).recompress(D, compression="delta")
    assert done.left == 0
    assert done.stored_anew == (8 if damage == "expiring" else 0)
    sim.keyspace.expire_all()
    for number in range(8):
        snapshot = another(sim.connect()).read(D, id=f"id-{number}")
        assert snapshot is not None
        assert snapshot.raw == document(0, changed=number)


def test_a_base_that_is_lost_between_two_swaps_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on for ever: each time, it stores the rest of a run against the base that it has brought."""
    monkeypatch.setattr(recompress, "ROWS_A_SWAP", 8)

    def lose(sim: SimulatedStore) -> None:
        for key in [key for key in sim.keyspace.values if ":base:" in key]:
            del sim.keyspace.values[key]

    swaps: list[int] = []
    for _ in range(2):
        sim = SimulatedStore()
        fill(sim.connect(), 40, "none")
        client, meddler = meddled(sim.connect())
        if swaps:
            meddler.before(swaps[1], partial(lose, sim))
            meddler.before(swaps[1] + 100, partial(pytest.fail, "it goes on for ever"))
        done = client.recompress(D, compression="delta")
        swaps = [at for at, batch in enumerate(meddler.batches) if isinstance(batch[-1], Swap)]
    assert (done.left, len([key for key in sim.keyspace.values if ":base:" in key])) == (0, 1)
    for number in range(8, 40):
        snapshot = another(sim.connect()).read(D, id=f"id-{number}")
        assert snapshot is not None
        assert snapshot.raw == document(0, changed=number)


def test_a_base_that_another_endpoint_has_brought_is_not_wrongly_in_force() -> None:
    """Verify finds damage after a recompress: the base in force takes other bytes than the manifest says."""
    sim = SimulatedStore()
    store = sim.connect()
    rest = msgspec.structs.replace(store._context.policy, compression="delta", text_only=True)
    producer = Store(store._driver, msgspec.structs.replace(store._context, policy=rest))
    for number in range(3):
        producer.publish(D, document(0, changed=number), id=f"old-{number}", codec="bytes")
    sim.keyspace.values.pop(store._context.keys.manifest(D))
    another(store).repair(D, apply=True)
    assert stored(store).manifest.log.base is None
    fill(store, 8, "none")
    another(store).recompress(D, compression="delta")
    in_force = stored(store).manifest.log.base
    assert in_force is not None
    assert in_force.count > 1
    assert not [finding for finding in another(store).verify(D) if finding.wrong]


def stored_page(sim: SimulatedStore, *, first: int) -> str:
    return next(key for key in sim.keyspace.values if ":page:" in key and f".{first}-{first + 7}" in key)


def test_followers_and_readers_notice_nothing(store: Store) -> None:
    """A follower returns what it has returned, or tells of a gap; an old manifest leads nowhere."""
    fill(store, 40, "none")
    follower = another(store).follow(D, after=35, poll=0.01)
    assert [next(follower).id for _ in range(5)] == [f"id-{number}" for number in range(35, 40)]  # type: ignore[union-attr]
    history = another(store).history(D, limit=None)
    first = next(history)
    store.recompress(D, compression="delta")
    fill(store, 1, "delta", begin=40)
    assert next(follower).id == "id-40"  # type: ignore[union-attr]
    assert [first.id, *(row.id for row in history)] == [f"id-{number}" for number in range(39, -1, -1)]


def away() -> None:
    raise Unavailable("the store is away for a moment")


def test_producers_that_always_come_first_end_it(store: Store) -> None:
    """It goes on for ever beside a busy producer, or says that it is done."""
    fill(store, 3, "none")
    policy = msgspec.structs.replace(store._context.policy, commit_attempts=3)
    client, meddler = meddled(store, policy=policy)
    for number in range(40):
        meddler.before(number, lambda number=number: fill(store, 1, "none", begin=100 + number))  # type: ignore[misc]
    with pytest.raises(Contended, match="stays so"):
        client.recompress(D, compression="delta")
    stored(store)


@pytest.mark.parametrize("arrived", [True, False])
def test_a_swap_whose_outcome_is_unknown_does_not_end_it(*, arrived: bool) -> None:
    """One lost reply ends the recompression of a long history, or what was stored anew is counted as left."""
    store = SimulatedStore().connect()
    fill(store, 40, "none")
    client, meddler = meddled(store)
    carry_out, swaps = meddler.execute, list[int]()

    def execute(commands: Sequence[Command[Any]]) -> list[Any]:
        if not swaps and isinstance(commands[-1], Swap):
            swaps.append(len(meddler.batches))
            (meddler.after if arrived else meddler.before)(swaps[0], lose)
            meddler.before(swaps[0] + 1, away)
        return carry_out(commands)

    meddler.execute = execute  # type: ignore[method-assign]
    done = client.recompress(D, compression="delta")
    assert (done.left, done.unreadable) == (0, 0)
    assert stored(store).encodings == {("zstd", True)}


def test_wrong_arguments_are_refused(store: Store) -> None:
    """A typo stores all history in a way that nobody asked for."""
    with pytest.raises(NotFound, match="nothing is published"):
        store.recompress(D, compression="delta")
    fill(store, 1, "none")
    for wrong in ("gzip", "", None, 3):
        with pytest.raises(InvalidInput, match="compression must be"):
            store.recompress(D, compression=wrong)  # type: ignore[arg-type]
    for number in (0, -1, 1.5, "2"):
        with pytest.raises(InvalidInput, match="limit"):
            store.recompress(D, compression="delta", limit=number)  # type: ignore[arg-type]


@pytest.mark.parametrize("committer", [ByCompareAndSet, UnderLease])
def test_without_scripts_it_says_what_to_do(committer: Any) -> None:
    """Two requests where one step is needed: a reader between them finds a record without its base."""
    store = SimulatedStore().connect()
    fill(store, 10, "none")
    store._context.capabilities.committer = committer()
    before = stored(store).manifest.etag
    with pytest.raises(Unsupported, match=r"Allow EVAL.*rediss://"):
        store.recompress(D, compression="delta")
    assert (stored(store).manifest.etag, stored(store).encodings) == (before, NONE)


def test_with_asyncio(tmp_path: Path) -> None:
    """The method of `AsyncStore` does something else."""
    url = f"sqlite:///{tmp_path}/store.db"

    async def main() -> Recompressed:
        async with swapstore.aio.connect(url) as client:
            return await client.recompress(D, compression="delta")

    with swapstore.connect(url) as store:
        fill(store, 10, "none")
        assert asyncio.run(main()).stored_anew == 10
        assert stored(store).encodings == {("zstd", True)}
