"""`erase` as an operator uses it: one snapshot is gone from every key, and nothing else has changed."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

import swapstore
from swapstore import Retention, Store
from swapstore.commands import Swap
from swapstore.errors import Contended, Corrupt, InvalidInput, NotFound, PayloadMissing, Refused, Unavailable
from swapstore.format import manifest, records
from swapstore.models import Compression, Row
from swapstore.protocol import copies
from swapstore.protocol.context import Policy
from swapstore.protocol.erase import ROWS_A_SWAP
from swapstore.testing import Crash, Fault, Kind, SimulatedStore, faulty
from tests.erase.model import Traces, fill, left_of, name_of, payload_of
from tests.follow.followers import take, versions
from tests.recompress.model import D, check, stored, storing
from tests.support import invariants
from tests.support.drivers import another, meddled, sqlite_connection

HOW: list[Compression] = ["none", "zstd", "delta"]


def seen(store: Store, *, without: str = "") -> list[tuple[Row, bytes]]:
    """What a new client reads of the history, but for one snapshot."""
    reader = another(store)
    found = []
    for row in reader.history(D, limit=None):
        if row.id != without:
            snapshot = reader.read(D, id=row.id)
            assert snapshot is not None
            found.append((attrs.evolve(row, base=None), snapshot.raw))
    return found


def traces(store: Store, number: int) -> Traces:
    snapshot = another(store).read(D, id=name_of(number))
    assert snapshot is not None
    return Traces.of(snapshot)


def wrong(store: Store) -> list[object]:
    """What verify finds wrong."""
    return [finding for finding in another(store).verify(D) if finding.wrong]


@pytest.mark.every_store
@pytest.mark.parametrize("how", HOW)
def test_nothing_of_it_is_left_and_nothing_else_changes(store: Store, how: Compression) -> None:
    """Its bytes stay in a page, or in the base of others; or another snapshot is lost with it."""
    for begin in range(0, 40, 20):
        fill(store, 20, how, begin=begin, like=begin)
    for number in (0, 3, 17, 20, 38):
        gone = traces(store, number)
        before = seen(store, without=gone.id)
        assert left_of(gone, store)
        done = storing(store, how).erase(D, id=gone.id)
        assert (done.id, done.version, done.latest) == (gone.id, number + 1, 40)
        assert left_of(gone, store) == []
        stored(store)
        assert seen(store) == before
        assert another(store).read(D, version=number + 1) is None
        assert wrong(store) == []


@pytest.mark.parametrize("how", HOW)
def test_all_of_a_history_can_be_erased_but_one(how: Compression, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages with few rows, or none, cannot be read, or stand for ever."""
    for name, size in (("F", 2), ("G", 2), ("RECENT", 1)):
        monkeypatch.setattr(manifest, name, size)
    store = SimulatedStore().connect()
    fill(store, 50, how)
    client = storing(store, how)
    for number in [*range(48, -1, -3), *range(0, 49, 3), *range(49)]:
        try:
            client.erase(D, version=number + 1)
        except NotFound:
            continue
        stored(store)
    found = stored(store)
    assert [row.id for row in found.rows] == [name_of(49)]
    assert not found.manifest.log.pages
    fill(store, 9, how, begin=50)
    assert len(stored(store).rows) == 10


# --- what is refused -------------------------------------------------------------------------------


def test_what_is_served_is_refused_unless_forced(store: Store) -> None:
    """A typo takes from readers what they are served."""
    fill(store, 12, "delta")
    store.pin(D, id=name_of(4))
    etag = stored(store).manifest.etag
    for number, why in ((11, "is the latest snapshot"), (4, "is pinned")):
        with pytest.raises(Refused, match=f"{why}, and nothing was erased.*force"):
            store.erase(D, id=name_of(number))
    assert stored(store).manifest.etag == etag
    gone = traces(store, 4)
    assert store.erase(D, version=5, force=True).latest == 12
    assert (store.read_latest(D).id, left_of(gone, store)) == (name_of(11), [])  # type: ignore[union-attr]
    gone = traces(store, 11)
    assert store.erase(D, version=12, force=True).latest == 11
    assert (another(store).read_latest(D).id, left_of(gone, store)) == (name_of(10), [])  # type: ignore[union-attr]
    stored(store)


def test_the_latest_after_it_has_the_greatest_ts(store: Store) -> None:
    """Readers are served what was published last, although it is older."""
    for number, ts in ((1, 3), (2, 9), (3, 9), (4, 5)):
        store.publish(D, number, id=f"id-{number}", ts=1_700_000_000_000 + ts)
    assert store.erase(D, id="id-3", force=True).latest == 2
    assert store.erase(D, id="id-2", force=True).latest == 4
    store.rollback(D, id="id-1")
    assert store.erase(D, id="id-1", force=True).latest == 4
    with pytest.raises(Refused, match="only snapshot.*drop"):
        store.erase(D, id="id-4", force=True)
    assert store.read_latest(D).id == "id-4"  # type: ignore[union-attr]


def test_a_rollback_stays_when_another_is_erased(store: Store) -> None:
    """The latest moves although what was erased was not served."""
    fill(store, 5, "none")
    store.rollback(D, id=name_of(1))
    assert store.erase(D, id=name_of(4)).latest == 2


def test_hidden_snapshots_do_not_come_back(store: Store) -> None:
    """What retention has hidden is served once more, because it has not been unlinked yet."""
    fill(store, 5, "none")
    store.prune(D, retention=Retention(max_count=1))
    with pytest.raises(Refused, match="only snapshot"):
        store.erase(D, id=name_of(4), force=True)
    gone = traces_of_hidden(store, 2)
    store.erase(D, id=name_of(2))
    assert left_of(gone, store) == []


def test_the_pinned_snapshot_is_the_latest_if_no_other_is_left(store: Store) -> None:
    """The latest cannot be erased, although readers are served another one."""
    fill(store, 80, "none")
    store.pin(D, id=name_of(0))
    store.prune(D, retention=Retention(max_count=1))
    gone = traces_of_hidden(store, 79)
    assert store.erase(D, id=gone.id, force=True).latest == 1
    assert left_of(gone, store) == []
    assert another(store).read_latest(D).id == name_of(0)  # type: ignore[union-attr]
    store.unpin(D)
    assert another(store).read_latest(D).id == name_of(0)  # type: ignore[union-attr]
    assert wrong(store) == []


def traces_of_hidden(store: Store, number: int) -> Traces:
    raw = payload_of(number, 0)
    return Traces(name_of(number), raw, records.digest(raw), (f"label {number:04}",))


def test_wrong_arguments_are_refused(store: Store) -> None:
    """A typo erases another snapshot, or reports that one is gone which is not."""
    with pytest.raises(NotFound, match="nothing is published"):
        store.erase(D, id="a")
    fill(store, 2, "none")
    for wrong_ones in ({}, {"id": "a", "version": 1}):
        with pytest.raises(InvalidInput, match="exactly one of"):
            store.erase(D, **wrong_ones)  # type: ignore[arg-type]
    for wrong_one in ({"id": "a b"}, {"version": 0}, {"version": 1, "force": 1}):
        with pytest.raises(InvalidInput):
            store.erase(D, **wrong_one)
    for missing in ({"id": "other"}, {"version": 7}):
        with pytest.raises(NotFound, match="no committed snapshot has"):
            store.erase(D, **missing)
    assert store.read_latest(D).id == name_of(1)  # type: ignore[union-attr]


# --- copies that nothing leads to ------------------------------------------------------------------


@pytest.mark.parametrize("how", HOW)
def test_unlinked_copies_go_too(store: Store, how: Compression, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row is in a page, or its content in a base, that was unlinked before and waits for its TTL."""
    monkeypatch.setattr(copies, "SCAN_KEYS", 5)
    for begin in (0, 20):
        fill(store, 20, how, begin=begin, like=begin)
    store.recompress(D, compression="none" if how != "none" else "zstd")
    gone = traces(store, 0)
    if how == "delta":
        assert [key for key in invariants.contents(store) if ":base:" in key]
    store.erase(D, id=gone.id)
    assert left_of(gone, store) == []


def test_what_was_unlinked_with_it_goes_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention has unlinked the snapshot, so it cannot be erased, and stays for its grace."""
    monkeypatch.setattr(copies, "SCAN_KEYS", 50)
    for by in ("id", "version"):
        fill(store, 80, "delta", begin=0 if by == "id" else 80)
        version = next(store.history(D)).version - 78
        gone = Traces.of(store.read(D, version=version))  # type: ignore[arg-type]
        store.prune(D, retention=Retention(max_count=2))
        assert left_of(gone, store)
        done = store.erase(D, id=gone.id) if by == "id" else store.erase(D, version=version)
        assert gone.id == done.id
        assert left_of(gone, store) == []
        with pytest.raises(NotFound, match="no key there holds anything of one"):
            store.erase(D, id=gone.id)


def test_a_pinned_snapshot_that_has_left_the_log(store: Store) -> None:
    """Only the header names it, and it cannot be erased; or the base that it needs stays."""
    fill(store, 80, "delta")
    store.pin(D, id=name_of(0))
    store.prune(D, retention=Retention(max_count=2))
    gone = traces(store, 0)
    store.erase(D, id=gone.id, force=True)
    assert left_of(gone, store) == []
    stored(store)


def test_a_base_that_more_snapshots_need_than_one_swap_stores_anew() -> None:
    """The base goes when the first of them are stored anew: a cut then loses the others."""
    store = SimulatedStore().connect()
    fill(store, ROWS_A_SWAP + 13, "delta")
    gone = traces(store, 0)
    before = seen(store, without=gone.id)
    client, meddler = meddled(store)
    for batch in range(30):
        meddler.before(batch, lambda: stored(store))
    assert client.erase(D, id=gone.id).stored_anew == ROWS_A_SWAP + 12
    assert len(meddler.batches) <= 30
    assert left_of(gone, store) == []
    stored(store)
    assert seen(store) == before


def test_a_base_that_only_a_pinned_snapshot_still_needs() -> None:
    """The last row that shares a base with the pinned one is erased, and readers are served nothing."""
    store = SimulatedStore().connect()
    fill(store, 20, "delta")
    store.pin(D, id=name_of(0))
    fill(store, 60, "delta", begin=20, like=20)
    store.prune(D, retention=Retention(max_count=65))
    (pinned,) = [row for row in stored(store).manifest.head.kept if row.id == name_of(0)]
    found = stored(store).rows
    assert pinned not in found
    sharing = [row for row in found if row.base == pinned.base]
    assert sharing
    for row in sharing:
        store.erase(D, version=row.version)
        assert another(store).read_latest(D).raw == payload_of(0, 0)  # type: ignore[union-attr]
        stored(store)


def test_a_base_with_its_content_that_another_has_brought() -> None:
    """Its bytes stay in a base that others need: a snapshot with the same content, since gone, brought it."""
    store = SimulatedStore().connect()
    fill(store, 1, "delta")
    store.pin(D, id=name_of(0))
    fill(store, 9, "delta", begin=1, like=1)
    fill(store, 1, "delta", begin=10)  # a single payload that is unlike the others brings no base
    storing(store, "delta").publish(D, payload_of(0, 0), id="the-same", codec="bytes")
    for begin, like, count in ((11, 0, 60), (71, 2, 30)):
        fill(store, count, "delta", begin=begin, like=like)
    store.prune(D, retention=Retention(max_count=75))
    gone = traces(store, 0)
    assert store.read(D, id="the-same") is None
    bases_of_it = {row.base for row in stored(store).rows if row.base and gone.sha256[:16] in row.base}
    assert len(bases_of_it) == 1
    before = seen(store, without=gone.id)
    done = store.erase(D, id=gone.id, force=True)
    assert left_of(gone, store) == []
    stored(store)
    assert seen(store) == before
    assert done.stored_anew > ROWS_A_SWAP  # it took several swaps


def test_an_id_with_two_rows() -> None:
    """Its records were lost, and its id was published again: the later snapshot is lost with the earlier."""
    sim = SimulatedStore()
    client = sim.connect()
    fill(client, 40, "none")
    for key in client._context.keys.records(D, stored(client).rows[1]):
        sim.evict(key)
    again = sim.connect().publish(D, "again", id=name_of(1))
    assert client.erase(D, version=2).version == 2
    assert client.read(D, id=name_of(1)).version == again.version  # type: ignore[union-attr]
    assert wrong(client) == []


def test_the_same_content_under_another_id_stays(store: Store) -> None:
    """A base is deleted that the other one needs."""
    client = storing(store, "delta")
    for number in range(6):
        client.publish(D, payload_of(number % 2, 0), id=name_of(number), codec="bytes")
    before = seen(store, without=name_of(0))
    client.erase(D, id=name_of(0))
    stored(store)
    assert seen(store) == before


def test_the_id_and_the_dedupe_key_can_be_published_again(store: Store) -> None:
    """A producer that repeats its publish is told that it was published, and nobody can read it."""
    fill(store, 30, "none")
    for number in (2, 27):
        store.erase(D, id=name_of(number))
        commit = store.publish(D, "again", id=name_of(number))
        assert commit.created
        commit = store.publish(D, "once more", dedupe_key=f"key-of-{name_of(number)}")
        assert commit.created
    stored(store)


# --- others at the same time -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [10, 40, 90])
def test_followers_go_on_without_a_gap(store: Store, count: int) -> None:
    """A follower is told that the store went back, or that commits are missing, and loads everything anew."""
    fill(store, count, "none")
    ahead = another(store).follow(D, after=count - 3, poll=0.01)
    assert [item.id for item in take(ahead, 3)] == [name_of(n) for n in range(count - 3, count)]  # type: ignore[union-attr]
    for number in (count - 1, count - 2, 0, 2, 3):  # what one has returned last, and what one has not
        store.erase(D, id=name_of(number), force=True)
    fill(store, 1, "none", begin=count)
    assert versions(take(ahead, 1)) == [count + 6]
    ahead.close()
    for after in range(5):  # what it has, and what comes next, may be erased
        behind = another(store).follow(D, after=after, poll=0.01)
        assert versions(take(behind, 2)) == ([2, 5] if after < 2 else [5, 6])
        behind.close()


def test_producers_that_always_come_first_end_it(store: Store) -> None:
    """It goes on for ever beside a busy producer, or says that it is done."""
    fill(store, 3, "none")
    policy = msgspec.structs.replace(store._context.policy, commit_attempts=3)
    client, meddler = meddled(store, policy=policy)
    for number in range(40):
        meddler.before(number, lambda number=number: fill(store, 1, "none", begin=100 + number))  # type: ignore[misc]
    with pytest.raises(Contended, match="not erased"):
        client.erase(D, id=name_of(1))
    stored(store)


def test_a_record_that_is_about_to_expire_is_no_race() -> None:
    """It tries for ever to store a snapshot anew that will be gone, or takes away the base that it needs."""
    sim = SimulatedStore()
    store = sim.connect()
    fill(store, 9, "delta")
    key = store._context.keys.id(D, name_of(5))
    value = sim.keyspace.values[key]
    sim.keyspace.values[key] = attrs.evolve(value, expires_at=sim.clock.ms + 600_000)
    before = seen(store)
    client, meddler = meddled(store)
    meddler.before(60, _give_up)
    with pytest.raises(Corrupt, match="about to expire.*nothing was erased; run swapstore repair"):
        client.erase(D, id=name_of(0))
    assert seen(store) == before


def test_what_an_unreadable_page_may_name_stays() -> None:
    """A record that repair could keep is deleted, because a lost page hides that it is committed."""
    sim = SimulatedStore()
    store = sim.connect()
    fill(store, 30, "none")
    key = store._context.keys.id(D, name_of(2))
    value = sim.keyspace.values[key]
    sim.keyspace.values[key] = attrs.evolve(value, expires_at=sim.clock.ms + 600_000)
    sim.evict(next(each for each in sim.keyspace.values if ":page:" in each and each.endswith(".1-8")))
    with suppress(PayloadMissing):
        sim.connect().erase(D, version=29)
    assert sim.keyspace.values[key].data == value.data
    sim.connect().repair(D, apply=True)
    assert sim.connect().read(D, id=name_of(2)).raw == payload_of(2, 0)  # type: ignore[union-attr]


def _give_up() -> None:
    pytest.fail("it goes on for ever")


@pytest.mark.parametrize("how", HOW)
def test_whatever_happens_between_its_steps(how: Compression) -> None:
    """A page with the row is sealed anew, or unlinked, between two steps, and is not looked at."""
    at, done = 0, False
    while not done:
        sim = SimulatedStore(policy=Policy(max_batch_bytes=3000))
        store = sim.connect()
        fill(store, 30, how)
        gone = traces(store, 3)
        client, meddler = meddled(store)
        meddler.before(at, lambda store=store: _meddle(store, how))  # type: ignore[misc]
        client.erase(D, id=gone.id)
        assert left_of(gone, store) == []
        stored(store)
        at, done = at + 1, at >= len(meddler.batches)
    assert at > 6


def _meddle(store: Store, how: Compression) -> None:
    fill(store, 2, how, begin=100)
    store.recompress(D, compression="zstd" if how == "none" else "none")
    store.recompress(D, compression="delta")


@pytest.mark.parametrize("how", HOW)
def test_readers_get_a_whole_snapshot_or_none(how: Compression) -> None:
    """A reader in flight is told that the store is damaged."""
    at, done = 0, False
    while not done:
        store = SimulatedStore().connect()
        fill(store, 30, how)
        client, meddler = meddled(store)
        meddler.before(at, lambda store=store: store.erase(D, id=name_of(20)))  # type: ignore[misc]
        found = [client.read(D, id=name_of(number)) for number in (20, 21, 20)]
        assert [each is None or each.raw == payload_of(20 + at % 2, 0) for at, each in enumerate(found)]
        assert found[1] is not None
        at, done = at + 1, at >= len(meddler.batches)


# --- cut short -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "by"),
    [
        pytest.param("delta", "id", marks=pytest.mark.slow),
        *(pytest.param(how, by, marks=pytest.mark.nightly) for how in HOW for by in ("id", "version")),
    ],
)
def test_a_fault_at_any_command_loses_nothing_and_can_be_finished(how: Compression, by: str) -> None:
    """Cut short, it has lost another snapshot, or what is left of its own cannot be found again."""
    commands = 0
    while True:
        done = [_cut(how, by, Fault(kind, commands)) for kind in Kind]
        commands += 1
        if not any(done):
            break
    assert commands > 7


def filled(how: Compression) -> tuple[SimulatedStore, Traces, list[tuple[Row, bytes]]]:
    """A store with a few snapshots, the first of them, and what is read of the others."""
    made, gone, before = _template(how)
    sim = SimulatedStore(policy=made._policy, seed=1)
    sim.keyspace, sim.clock.ms = made.keyspace.copy(), made.clock.ms
    return sim, gone, before


@cache
def _template(how: Compression) -> tuple[SimulatedStore, Traces, list[tuple[Row, bytes]]]:
    sim = SimulatedStore(policy=Policy(max_batch_bytes=3000))
    store = sim.connect()
    fill(store, 9, how)
    gone = traces(store, 0)
    return sim, gone, seen(store, without=gone.id)


def _cut(how: Compression, by: str, fault: Fault) -> bool:
    """Cut it, and call it again. Returns whether it came so far."""
    sim, gone, before = filled(how)
    store = sim.connect()
    broken, driver = faulty(storing(store, how), fault)
    which: dict[str, Any] = {"id": gone.id} if by == "id" else {"version": 1}
    with suppress(Unavailable, Crash):
        broken.erase(D, **which)
    came_so_far = driver._number > fault.at
    assert {row.version for row in stored(store).rows} >= set(range(2, 10))
    driver.deliver_late()
    with suppress(NotFound):
        sim.connect().erase(D, **which)
    assert left_of(gone, store) == []
    stored(store)
    assert seen(store) == before
    return came_so_far


@pytest.mark.parametrize("how", HOW)
def test_a_server_that_stops_inside_the_swap(how: Compression) -> None:
    """Keys without a TTL stay that no row names, and nothing shows what they belong to."""
    writes, ended = 0, False
    while not ended:
        sim, gone, before = filled(how)
        store = sim.connect()
        commit = sim.keyspace.commit

        def stop(swap: Swap, now_ms: int, *, writes: int = writes, commit: Any = commit) -> Any:
            commit(swap, now_ms, writes=writes)
            raise Crash

        sim.keyspace.commit = stop  # type: ignore[method-assign, assignment]
        with suppress(Crash):
            sim.connect().erase(D, id=gone.id)
        del sim.keyspace.commit
        ended = writes > 15
        with suppress(NotFound):
            sim.connect().erase(D, id=gone.id)
        assert left_of(gone, store) == []
        check(invariants.contents(store), store._context.keys, leaks=True)
        assert seen(store) == before
        writes += 1


# --- the bytes of a file ---------------------------------------------------------------------------


def test_nothing_of_it_is_in_the_file(tmp_path: Path) -> None:
    """What was erased can be read from the file of a SQLite store with any editor."""
    with swapstore.connect(f"sqlite:///{tmp_path}/store.db") as store:
        with sqlite_connection(store._driver, writes=True) as connection:
            connection.execute("PRAGMA secure_delete = ON")  # as it is built on many systems
        fill(store, 20, "none")
        gone = traces(store, 3)
        in_file = [each for each in gone.needles().values() if each in _bytes_of(tmp_path)]
        assert gone.content[300:332] in in_file
        store.erase(D, id=gone.id)
        assert [what for what, each in gone.needles().items() if each in _bytes_of(tmp_path)] == []


def _bytes_of(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir() if not path.name.endswith("-shm"))
