"""A small proxy that allows a list of commands: everything that it lacks is found out and replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

import swapstore
import swapstore.aio
from swapstore import PayloadTooLarge, Retention, Store, Unsupported
from swapstore.doctor.check import Verdict
from tests.support.committers import Way
from tests.support.rest_proxy import ALLOWED, SmallProxy
from tests.support.valkey import Server


@pytest.fixture(params=list(Way), ids=lambda way: way.name)
def way(request: pytest.FixtureRequest) -> Way:
    """Whether the server behind the proxy compares and sets."""
    chosen: Way = request.param
    return chosen


@pytest.fixture
def proxy(valkey: Server, way: Way) -> Iterator[SmallProxy]:
    """A proxy in front of an empty server."""
    with SmallProxy(valkey, compares=way is Way.COMPARE) as running:
        yield running


@pytest.fixture
def connect(proxy: SmallProxy) -> Iterator[Callable[..., Store]]:
    """Make clients of the proxy."""
    made: list[Store] = []

    def connected(**options: object) -> Store:
        made.append(swapstore.connect(proxy.url, token=proxy.token, single_writer=True, **options))  # type: ignore[arg-type]
        return made[-1]

    yield connected
    for store in made:
        store.close()


def test_everything_works_behind_it(connect: Callable[..., Store], way: Way) -> None:
    """Nothing can be published behind such a proxy, and a reader works exactly once."""
    store, reader = connect(retention=Retention(max_count=40)), connect()
    assert isinstance(store._context.capabilities.committer, way.committer)
    for number in range(70):  # far enough to seal a page, and to unlink rows
        assert store.publish("mena", {"n": number}, id=f"id-{number}").version == number + 1
        assert reader.read_latest("mena").value == {"n": number}  # type: ignore[union-attr]
    assert connect().read("mena", id="id-60").value == {"n": 60}  # type: ignore[union-attr]
    assert store.publish("mena", {"n": 69}, id="id-69").created is False
    store.put_live("mena", {"view": 1}, ttl=60)
    assert store.read_live("mena").value == {"view": 1}  # type: ignore[union-attr]
    store.rollback("mena", id="id-68")
    store.prune("mena", retention=Retention(max_count=5))
    assert store.publish("bytes", b"\xff\x00", codec="bytes").version == 1
    assert reader.read_latest("bytes").value == b"\xff\x00"  # type: ignore[union-attr]
    assert reader.datasets() == ["bytes", "mena"]
    assert [each for each in store.verify() if each.wrong] == []


def test_the_first_refusal_is_remembered(connect: Callable[..., Store], proxy: SmallProxy) -> None:
    """Every read asks for a command that the endpoint lacks, and costs a second request."""
    store, reader = connect(), connect()
    store.publish("mena", 1)
    reader.read_latest("mena")
    reader.read_latest("mena")
    before = len(proxy.requests)
    for _ in range(5):
        reader.read_latest("mena")
    assert proxy.requests[before:] == [["GET"]] * 5


REQUESTS = {Way.COMPARE: 3, Way.LEASE: 4}


@pytest.mark.parametrize("named", [False, True])
def test_a_warm_publish_takes_few_requests(
    connect: Callable[..., Store], proxy: SmallProxy, way: Way, *, named: bool
) -> None:
    """A producer pays one round trip more for each publish than the commit needs."""
    store = connect()
    store.publish("mena", 0)
    store.publish("mena", 1)
    for number in range(3):
        before = len(proxy.requests)
        store.publish("mena", number, id=f"id-{number}" if named else None)
        assert len(proxy.requests) - before == REQUESTS[way]


def test_asyncio_behind_it(proxy: SmallProxy) -> None:
    """Only the blocking client replaces what the endpoint lacks."""

    async def both() -> list[object]:
        async with swapstore.aio.connect(proxy.url, token=proxy.token, single_writer=True) as store:
            found = []
            for number in range(3):
                await store.publish("mena", number)
                found.append((await store.read_latest("mena")).value)  # type: ignore[union-attr]
            return found

    assert asyncio.run(both()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("denied", "named"),
    [
        ({"DEL"}, ["DEL"]),
        ({"TTL", "SET"}, ["SET", "TTL"]),
        ({"EXPIRE", "PEXPIRE", "DEL"}, ["DEL", "PEXPIRE"]),
    ],
)
def test_connecting_names_all_that_is_missing(
    proxy: SmallProxy, denied: set[str], named: list[str], connect: Callable[..., Store]
) -> None:
    """A job finds out command by command, one deployment after the other, what the proxy has to allow."""
    proxy.allowed = ALLOWED - denied
    with pytest.raises(Unsupported) as caught:
        connect()
    for name in named:
        assert name in str(caught.value)


def test_a_payload_above_the_limit_of_the_body(connect: Callable[..., Store], valkey: Server) -> None:
    """A publish of which only records were sent is reported as perhaps committed, and blocks the next one."""
    store = connect()
    store.publish("mena", 1)
    with pytest.raises(PayloadTooLarge, match="Nothing was published") as caught:
        store.publish("mena", "x" * 2_000_000)
    assert caught.value.size_bytes > 2_000_000
    with valkey.client() as client:
        assert client.keys("*lease*") == []
    assert store.publish("mena", 2).version == 2


def test_the_doctor_says_how_it_commits(connect: Callable[..., Store], proxy: SmallProxy, way: Way) -> None:
    """An operator cannot tell which way a producer commits, or what the proxy has to allow."""
    store = connect()
    checks = {check.name: check for check in store.doctor()}
    assert ("compare-and-set" if way is Way.COMPARE else "lease") in checks["commit"].found
    assert checks["commands"].verdict is Verdict.OK
    proxy.allowed = ALLOWED - {"DEL"}
    checks = {check.name: check for check in store.doctor()}
    assert (checks["commands"].verdict, "DEL" in checks["commands"].found) == (Verdict.PROBLEM, True)
