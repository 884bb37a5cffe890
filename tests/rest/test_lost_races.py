"""By compare-and-set, a publish that lost a race or died binds no id, and what it left can be deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

import swapstore
from swapstore import Conflict, Contended, IdConflict, Retention, Store
from swapstore.commands import Command, CompareAndSet
from swapstore.fsck.findings import Problem
from tests.support.drivers import meddled
from tests.support.rest_proxy import SmallProxy
from tests.support.times import at
from tests.support.valkey import Server


@pytest.fixture
def connect(valkey: Server) -> Iterator[Callable[..., Store]]:
    """Make clients of a small proxy in front of a server that compares and sets."""
    made: list[Store] = []
    with SmallProxy(valkey) as proxy:

        def connected(**options: object) -> Store:
            made.append(swapstore.connect(proxy.url, token=proxy.token, **options))  # type: ignore[arg-type]
            return made[-1]

        yield connected
        for store in made:
            store.close()


def lose(connect: Callable[..., Store], value: object, **options: object) -> None:
    """Publish `run-1`, be overtaken right before the swap by a snapshot that is ahead, and die."""
    store = connect()
    loser, meddler = meddled(store)
    ahead = time.time_ns() // 1_000_000 + 60_000

    def overtaken() -> None:
        connect().publish("mena", "ahead", ts=ahead)
        raise SystemExit

    meddler.before(len(meddler.batches) + 2, overtaken)
    with pytest.raises(SystemExit):
        loser.publish("mena", value, id="run-1", **options)  # type: ignore[arg-type]


def wrong(store: Store) -> list[Problem]:
    return [each.problem for each in store.verify() if each.wrong]


@pytest.mark.parametrize("ts", [None, at(5)])
@pytest.mark.parametrize("value", [{"n": 1}, {"n": "other"}])
def test_the_id_can_be_published(connect: Callable[..., Store], ts: int | None, value: object) -> None:
    """After a lost race a cron job is refused its id permanently, also with the same content."""
    lose(connect, {"n": 1}, ts=ts)
    store = connect()
    assert wrong(store) == [Problem.LEAKED, Problem.LEAKED]
    commit = store.publish("mena", value, id="run-1", ts=ts)
    assert (commit.created, commit.is_latest) == (True, ts is None)
    assert store.read("mena", id="run-1").value == value  # type: ignore[union-attr]
    assert wrong(store) == []


def test_it_can_be_published_after_retention_has_passed(connect: Callable[..., Store]) -> None:
    """What a lost race left is taken for what retention is unlinking, and binds its id permanently."""
    lose(connect, {"n": 1}, ts=at(5))
    store = connect(retention=Retention(max_count=2))
    for number in range(70):
        store.publish("mena", number)
    assert connect().publish("mena", {"n": 1}, id="run-1").created
    assert wrong(store) == []


@pytest.mark.parametrize("ts", [None, at(5)])
def test_a_repair_deletes_what_was_left(
    connect: Callable[..., Store], valkey: Server, ts: int | None
) -> None:
    """Every lost race leaves permanent records that no repair over REST can remove."""
    lose(connect, {"n": 1}, ts=ts)
    store = connect()
    (planned,) = store.repair("mena", apply=False)
    assert planned.left == ()
    (report,) = store.repair("mena", apply=True)
    assert (report.left, report.dropped, report.restored) == ((), (), ())
    with valkey.client() as client:
        assert client.keys("*run-1*") == []
    assert wrong(store) == []
    assert store.publish("mena", {"n": 1}, id="run-1", ts=ts).created


def conflict(store: Store) -> None:
    with pytest.raises(Conflict):
        store.publish("mena", {"n": 2}, id="run-2", expected_version=1)


def id_conflict(store: Store) -> None:
    with pytest.raises(IdConflict):
        store.publish("mena", {"n": 2}, id="ahead", ts=at(7))


def dedupe(store: Store) -> None:
    assert store.publish("mena", {"n": 2}, id="run-2", dedupe_key="k").id == "ahead"


@pytest.mark.parametrize("ending", [conflict, id_conflict, dedupe])
def test_a_publish_that_ends_without_a_commit_deletes_what_it_wrote(
    connect: Callable[..., Store], valkey: Server, ending: Callable[[Store], None]
) -> None:
    """A producer with an old manifest in memory leaves permanent records each time that it is refused."""
    behind, store = connect(), connect()
    behind.publish("mena", 1, id="first")
    store.publish("mena", 2, id="ahead", dedupe_key="k")
    ending(behind)
    with valkey.client() as client:
        records = [key for kind in ("id", "ts") for key in client.keys(f"*:{kind}:*")]
    assert len(records) == 4  # those of both snapshots
    assert wrong(store) == []
    assert [row.id for row in store.history("mena")] == ["ahead", "first"]


def test_a_publish_whose_time_has_moved_up_leaves_nothing_behind(connect: Callable[..., Store]) -> None:
    """A publish that lost a race, and got a later ts, leaves the ts record of its first attempt."""
    behind = connect()
    behind.publish("mena", 0, id="first")
    lose(connect, {"n": 1}, ts=at(5))  # it leaves an id record, and a snapshot that is ahead
    assert behind.publish("mena", {"n": 2}, id="run-1").is_latest
    assert wrong(behind) == []


@pytest.mark.parametrize("value", [0, "other"])
def test_a_retry_of_what_is_deep_in_the_history_leaves_nothing_behind(
    connect: Callable[..., Store], value: object
) -> None:
    """A retry that lost a race before it found its id in a page leaves the ts record of its first attempt."""
    behind = connect()
    for number in range(70):
        behind.publish("mena", number, id=f"id-{number}")
    connect().publish("mena", "ahead", ts=time.time_ns() // 1_000_000 + 60_000)
    if value == 0:
        assert behind.publish("mena", value, id="id-0").created is False
    else:
        with pytest.raises(IdConflict):
            behind.publish("mena", value, id="id-0")
    leaked = [each.key for each in behind.verify() if each.wrong]
    assert [key for key in leaked if ":page:" not in key] == []  # the next publish uses the page


def test_what_an_equal_publish_wrote_is_not_withdrawn(connect: Callable[..., Store]) -> None:
    """The one of two equal publishes that comes later deletes the records that the other has committed."""
    behind, store = connect(), connect()
    behind.publish("mena", 1, id="first")
    commits = [each.publish("mena", 2, id="second", ts=at(7)) for each in (store, behind)]
    assert [commit.created for commit in commits] == [True, False]
    assert store.read("mena", id="second").value == 2  # type: ignore[union-attr]
    assert wrong(store) == []


def dies_after_its_swap(store: Store) -> Store:
    """A producer whose process dies before it can send what follows a swap."""
    client, meddler = meddled(store)
    carry_out = meddler.execute

    def execute(commands: Sequence[Command[Any]]) -> list[Any]:
        replies = carry_out(commands)
        if any(isinstance(each, CompareAndSet) and ":manifest:" in each.key for each in commands):
            raise SystemExit
        return replies

    meddler.execute = execute  # type: ignore[method-assign]
    return client


def test_an_equal_publish_keeps_the_record_that_it_took_over(connect: Callable[..., Store]) -> None:
    """Of two equal publishes the one that loses deletes a record of the other, which is committed by then."""
    lose(connect, {"n": 1}, ts=at(5))
    slow, meddler = meddled(connect())

    def overtaken() -> None:
        connect().repair("mena", apply=True)  # the id is free again
        with pytest.raises(SystemExit):
            dies_after_its_swap(connect()).publish("mena", {"n": 1}, id="run-1", ts=at(6))

    # It reads the manifest, writes its ts record, and sees that the id is taken. Then it takes that back.
    meddler.before(len(meddler.batches) + 3, overtaken)
    meddler.after(len(meddler.batches) + 3, lambda: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        slow.publish("mena", {"n": 1}, id="run-1", ts=at(6))
    store = connect()
    assert store.read("mena", id="run-1").value == {"n": 1}  # type: ignore[union-attr]
    assert wrong(store) == []


def test_what_may_be_under_way_is_left_for_ten_minutes(connect: Callable[..., Store]) -> None:
    """A repair takes away the records of a publish that is about to commit."""
    store = connect()
    store.publish("mena", 0)
    slow, meddler = meddled(connect())
    reports: list[swapstore.Repair] = []
    meddler.before(len(meddler.batches) + 2, lambda: reports.extend(store.repair("mena", apply=True)))
    assert slow.publish("mena", {"n": 1}, id="run-1").version == 2
    assert len(reports) == 1

    other, meddler = meddled(connect())
    meddler.before(len(meddler.batches) + 2, lambda: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        other.publish("mena", {"n": 2}, id="run-2", ts=at(7))
    with pytest.raises(Contended, match="run-2"):
        connect().publish("mena", {"n": "other"}, id="run-2", ts=at(7))
    (report,) = store.repair("mena", apply=True)
    assert [each.problem for each in report.left] == [Problem.LEAKED, Problem.LEAKED]
    later = Store(store._driver, msgspec.structs.replace(store._context, clock=_Later()))
    before = store.status("mena")
    later.repair("mena", apply=False)
    assert store.status("mena") == before, "a repair that only looks swaps nothing"
    assert wrong(store) == [Problem.LEAKED, Problem.LEAKED]
    (report,) = later.repair("mena", apply=True)
    assert report.left == ()
    assert later.publish("mena", {"n": "other"}, id="run-2", ts=at(7)).created


class _Later:
    """A clock ten minutes ahead."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + 600_001

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
