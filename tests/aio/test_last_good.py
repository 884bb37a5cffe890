"""Last good for asyncio: tasks share an attempt, and one that is cancelled leaves it to the next."""

from __future__ import annotations

import asyncio

import pytest

from swapstore import StoreClosed, Unavailable
from swapstore.aio import AsyncStore
from swapstore.testing import SimulatedStore
from tests.support.outage import AsyncBreakable, async_breakable

HOUR = 3600


async def made() -> tuple[AsyncStore, AsyncBreakable]:
    """A store that has read a dataset."""
    producer = SimulatedStore().connect()
    producer.publish("mena", {"regime": "calm"})
    producer.publish_group("g", {"EG": 1})
    store, driver = async_breakable(producer)
    for name in ("mena", "g"):
        assert await store.read_latest(name, stale_if_error=HOUR) is not None
    return store, driver


async def stale(store: AsyncStore) -> bool:
    found = await store.read_latest("mena", stale_if_error=HOUR)
    assert found is not None
    return found.stale


async def waiting(driver: AsyncBreakable, number: int) -> None:
    async with asyncio.timeout(30):
        while driver.breakable.waiting != number:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0)


def test_an_outage_serves_what_was_seen() -> None:
    """An application for asyncio goes dark with its store."""

    async def main() -> None:
        store, driver = await made()
        driver.breakable.go_down()
        assert await stale(store)
        group = await store.read_group("g", stale_if_error=HOUR)
        assert group is not None
        assert (group.value, group.stale) == ({"EG": 1}, True)
        many = await store.read_latest_many(["mena", "g"], stale_if_error=HOUR)
        assert [each is not None and each.stale for each in many.values()] == [True, True]
        with pytest.raises(Unavailable):
            await store.read_latest("mena")
        driver.breakable.error = None
        assert not await stale(store)

    asyncio.run(main())


def test_one_task_tries_and_the_others_are_served_at_once() -> None:
    """Every request hangs for the time-out."""

    async def main() -> None:
        store, driver = await made()
        driver.breakable.go_down()
        driver.held = asyncio.Event()
        before = driver.breakable.tries
        first = [asyncio.create_task(stale(store)) for _ in range(20)]
        await waiting(driver, 1)
        driver.held.set()
        assert await asyncio.gather(*first) == [True] * 20
        assert driver.breakable.tries - before <= 2
        driver.held = asyncio.Event()
        trying = asyncio.create_task(stale(store))
        await waiting(driver, 1)
        tries = driver.breakable.tries
        assert await asyncio.gather(*(stale(store) for _ in range(20))) == [True] * 20
        assert driver.breakable.tries == tries
        driver.held.set()
        assert await trying

    asyncio.run(main())


def test_a_task_that_is_cancelled_while_it_tries_leaves_that_to_the_next() -> None:
    """A client that hangs up leaves all others with stale data, for as long as they may be served it."""

    async def main() -> None:
        store, driver = await made()
        driver.breakable.go_down()
        assert await stale(store)
        driver.held = asyncio.Event()
        trying = asyncio.create_task(stale(store))
        await waiting(driver, 1)
        trying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trying
        driver.held = None
        driver.breakable.error = None
        assert not await stale(store)

    asyncio.run(main())


def test_min_version_holds() -> None:
    """A reader that has to see what was just published gets what another one's load has found."""

    async def main() -> None:
        store, _ = await made()
        for stale_s in (None, HOUR):
            with pytest.raises(Unavailable, match="version 7 is not there"):
                await store.read_latest("mena", min_version=7, stale_if_error=stale_s)

    asyncio.run(main())


def test_each_task_gets_a_snapshot_of_its_own() -> None:
    """A task that changes the labels of what it was given changes those of all who shared the load."""

    async def main() -> None:
        store, driver = await made()
        driver.held = asyncio.Event()
        readers = [asyncio.ensure_future(store.read_latest("mena")) for _ in range(4)]
        await waiting(driver, 1)
        driver.held.set()
        found = [each for each in await asyncio.gather(*readers) if each is not None]
        found[1].labels["note"] = "mine"
        assert [each.labels for each in found] == [{}, {"note": "mine"}, {}, {}]

    asyncio.run(main())


def test_a_closed_store_serves_nothing_from_memory() -> None:
    """An application goes on to read a store that it has closed, and never sees a new version."""

    async def main() -> None:
        store, _ = await made()
        assert await store.read_latest("mena", max_staleness=HOUR) is not None
        await store.close()
        with pytest.raises(StoreClosed):
            await store.read_latest("mena", max_staleness=HOUR)

    asyncio.run(main())
