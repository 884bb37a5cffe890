"""Groups over REST: with scripts, by compare-and-set, under a lease, and on endpoints with small limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import swapstore
from swapstore import PayloadTooLarge, Retention, Store
from swapstore.commands import Command, CompareAndSet
from swapstore.fsck.findings import Problem
from swapstore.protocol.scriptless import members as scriptless
from tests.store.test_without_scripts import before, is_swap
from tests.support.bases import like
from tests.support.committers import Way
from tests.support.drivers import meddled
from tests.support.rest import RestServer
from tests.support.rest_switches import NO_SCRIPTS
from tests.support.times import at
from tests.support.valkey import Server

MEBIBYTE = 1024 * 1024
# The requests that a publish of a client without memory sends before it swaps, by their numbers.
BEFORE_THE_SWAP = [*((Way.COMPARE, number) for number in (2, 3)), *((Way.LEASE, number) for number in (3, 4))]
ONE = {"EG": b"1", "SG": b"2", "index": b"same"}
OTHER = {"EG": b"3", "IN": b"4", "index": b"same"}


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members are looked at in several requests before they go, as those of large groups are."""
    monkeypatch.setattr(scriptless, "AT_ONCE", 2)


@pytest.fixture(params=[None, Way.COMPARE, Way.LEASE])
def way(request: pytest.FixtureRequest, rest: RestServer) -> Way | None:
    """How the endpoint lets a store commit. None: with the script."""
    chosen: Way | None = request.param
    if chosen is not None:
        rest.switches.denied = NO_SCRIPTS
        rest.switches.compares = chosen is Way.COMPARE
    return chosen


@pytest.fixture
def connect(rest: RestServer, way: Way | None) -> Iterator[Callable[..., Store]]:
    """Make clients of the endpoint, which wait as long as a slow machine needs."""
    made: list[Store] = []

    def connected(**options: Any) -> Store:
        single = way is not None
        made.append(
            swapstore.connect(rest.url, token=rest.token, single_writer=single, timeout=60, **options)
        )
        return made[-1]

    yield connected
    for store in made:
        store.close()


def publish(store: Store, values: dict[str, bytes], id: str = "run-1", **options: Any) -> Any:  # noqa: A002
    """Publish a group of bytes."""
    return store.publish_group("mena", values, id=id, ts=at(5), codec="bytes", **options)


def values_of(store: Store, **options: Any) -> dict[str, bytes]:
    group = store.read_group("mena", **options)
    assert group is not None
    return {name: group[name].raw for name in group.members}


def wrong(store: Store) -> list[Any]:
    return [each for each in store.verify() if each.wrong]


def cut_at(store: Store, number: int, valkey: Server) -> Store:
    """A client that dies before it sends the request with this number, from 0. Its lease runs out."""
    dying, meddler = meddled(store)

    def die() -> None:
        with valkey.client() as client:
            client.delete("swapstore:lease:{mena}")
        raise SystemExit

    meddler.before(number, die)
    return dying


@pytest.mark.parametrize("compression", ["none", "delta"])
def test_groups_are_published_and_read(connect: Callable[..., Store], compression: Any) -> None:
    """A group cannot be published, read or unlinked on one kind of endpoint."""
    store = connect(compression=compression, retention=Retention(max_count=2))
    for number in range(26):
        values = {"EG": like(1, number), "SG": like(2, 0), "index": like(3, number // 5)}
        assert publish(store, values, f"run-{number}").version == number + 1
        assert values_of(store) == values_of(connect()) == values
    assert values_of(connect(), members=["SG"]) == {"SG": like(2, 0)}
    assert wrong(store) == []
    again = publish(store, values, "run-25")
    assert (again.created, again.version) == (False, 26)
    with pytest.raises(swapstore.IdConflict):
        publish(store, OTHER, "run-25")


@pytest.mark.parametrize("number", range(7))
def test_a_cut_group_is_published_again(connect: Callable[..., Store], number: int, valkey: Server) -> None:
    """A publish that dies at some request leaves members that block its retry, or that a reader sees."""
    publish(connect(), OTHER, "before")
    try:
        publish(cut_at(connect(), number, valkey), ONE)
    except SystemExit:
        assert values_of(connect()) in (OTHER, ONE)
    assert publish(connect(), ONE).version == 2
    assert values_of(connect()) == ONE
    assert wrong(connect()) == []


@pytest.mark.parametrize(("way", "number"), BEFORE_THE_SWAP, indirect=["way"])
def test_an_overtaken_group_gives_its_id_to_other_content(
    connect: Callable[..., Store], number: int, valkey: Server
) -> None:
    """What a cut has left binds an id for good, or its members are mixed with those of other content."""
    publish(connect(), OTHER, "before")
    with pytest.raises(SystemExit):
        publish(cut_at(connect(), number, valkey), ONE)
    publish(connect(), OTHER, "meanwhile")
    assert publish(connect(), OTHER).version == 3
    assert values_of(connect()) == OTHER
    left = wrong(connect())
    assert {each.problem for each in left} <= {Problem.LEAKED}
    connect().repair("mena", apply=True)
    assert wrong(connect()) == []
    assert values_of(connect()) == OTHER


@pytest.mark.parametrize(("way", "number"), BEFORE_THE_SWAP, indirect=["way"])
def test_a_repair_deletes_what_an_overtaken_group_has_left(
    connect: Callable[..., Store], number: int, valkey: Server
) -> None:
    """Members of a cut publish stay for good."""
    publish(connect(), OTHER, "before")
    with pytest.raises(SystemExit):
        publish(cut_at(connect(), number, valkey), ONE)
    publish(connect(), OTHER, "meanwhile")
    connect().repair("mena", apply=True)
    assert wrong(connect()) == []
    with valkey.client() as client:
        left = [key for key in client.scan_iter("*:member:*:run-1:*") if client.ttl(key) == -1]
    assert left == []
    assert publish(connect(), ONE).version >= 3
    assert values_of(connect()) == ONE


@pytest.mark.parametrize("way", [Way.COMPARE], indirect=True)
def test_a_group_that_loses_a_race_leaves_no_members(connect: Callable[..., Store], valkey: Server) -> None:
    """Each publish that is refused after it wrote its members leaks them."""
    publish(connect(), OTHER, "before")
    slow, meddler = meddled(connect())
    before(meddler, is_swap, lambda: publish(connect(), OTHER, "meanwhile"))
    with pytest.raises(swapstore.Conflict):
        publish(slow, ONE, expected_version=1)
    with valkey.client() as client:
        assert list(client.scan_iter("*:member:*:run-1:*")) == []
    assert wrong(connect()) == []


@pytest.mark.parametrize("way", [Way.COMPARE], indirect=True)
def test_a_late_deletion_of_members_meets_other_bytes(connect: Callable[..., Store], valkey: Server) -> None:
    """A repair that is delayed deletes the members of a retry that was committed meanwhile."""
    publish(connect(), OTHER, "before")
    with pytest.raises(SystemExit):
        publish(cut_at(connect(), 3, valkey), ONE)
    publish(connect(), OTHER, "meanwhile")
    with valkey.client() as client:  # only the members are left, as after a late request
        client.delete("swapstore:id:{mena}:run-1", "swapstore:ts:{mena}:5:run-1")
    slow, meddler = meddled(connect())
    before(meddler, deletes_members, lambda: publish(connect(), ONE))
    slow.repair("mena", apply=True)
    assert values_of(connect()) == ONE
    assert wrong(connect()) == []


def deletes_members(command: Command[Any]) -> bool:
    return isinstance(command, CompareAndSet) and ":member:" in command.key


# --- the limits of an endpoint -----------------------------------------------------------------------


def thousand(text: str) -> dict[str, bytes]:
    return {f"member-{number:03}": f"{number} {text} ".encode().ljust(2000, b'"') for number in range(1000)}


@pytest.mark.slow
def test_a_group_larger_than_a_request_goes_in_several(
    connect: Callable[..., Store], rest: RestServer
) -> None:
    """A group of 2 MB cannot be published on an endpoint that takes 1 MB."""
    rest.switches.cap_bytes = MEBIBYTE
    rest.switches.too_large = "413"
    store = connect(max_request=MEBIBYTE)
    values = thousand("first")
    assert publish(store, values).version == 1
    assert values_of(connect(max_request=MEBIBYTE)) == values
    assert values_of(store, members=["member-007"]) == {"member-007": values["member-007"]}
    assert wrong(store) == []


@pytest.mark.parametrize("way", [None], indirect=True)
def test_a_group_whose_commit_is_too_large_is_refused_before_anything_is_written(
    connect: Callable[..., Store], valkey: Server
) -> None:
    """Megabytes are sent for nothing, and the error does not say which limit to raise."""
    store = connect(max_request=100_000)
    with pytest.raises(PayloadTooLarge, match=r"1,000 members .* max_request is 100,000") as caught:
        publish(store, thousand("first"))
    assert caught.value.limit_bytes == 100_000
    with valkey.client() as client:
        assert client.dbsize() == 0
