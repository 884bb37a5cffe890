"""Tasks that publish to one dataset queue within a client: in order, and cancellable."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from swapstore import InvalidInput, turns
from swapstore.aio import AsyncStore, connect
from swapstore.events import Event, Published, Retried
from swapstore.protocol.operation import Turn
from swapstore.turns import AsyncPlace, Turns
from tests.support.interrupts import Threads
from tests.support.valkey import Server

MENA = Turn(("mena",))


@pytest.fixture(params=["sqlite", pytest.param("valkey", marks=pytest.mark.server)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    server: Server = request.getfixturevalue("valkey")
    return server.url


def queued(store: AsyncStore) -> int:
    return sum(map(len, store._turns.queues.values()))


def test_a_hundred_tasks_publish_without_losing_a_race(url: str) -> None:
    """A hundred tasks that publish to one dataset make 13 publishes a second instead of 300."""
    told: list[Event] = []

    async def main() -> None:
        async with connect(url, on_event=told.append) as store:
            commits = await asyncio.gather(*(store.publish("mena", number) for number in range(100)))
            assert [commit.version for commit in commits] == list(range(1, 101)), "in the order of the calls"
            assert store._turns.queues == {}

    asyncio.run(main())
    assert sum(isinstance(event, Published) for event in told) == 100
    assert not any(isinstance(event, Retried) for event in told)


def test_calls_that_name_several_datasets_queue_too(url: str) -> None:
    """Tasks that publish the same datasets in one call lose races, or wait for each other in a circle."""
    told: list[Event] = []
    both = {"mena": 1, "europe": 2}

    async def main() -> None:
        async with connect(url, on_event=told.append) as store:
            calls: list[Any] = []
            for number in range(20):
                calls += [store.publish_many(both if number % 2 else dict(reversed(both.items())))]
                calls += [store.publish("mena", number), store.confirm("mena")] if number else []
            async with asyncio.timeout(turns.PATIENCE_S * 3):
                await asyncio.gather(*calls)
            assert store._turns.queues == {}

    asyncio.run(main())
    assert not any(isinstance(event, Retried) for event in told)


def test_a_queueing_publish_can_be_cancelled(url: str) -> None:
    """A cancelled task keeps its place in the queue, and holds up all behind it."""

    async def main() -> None:
        async with connect(url) as store:
            place = AsyncPlace(store._turns)
            await place.wait(MENA)
            tasks = [asyncio.create_task(store.publish("mena", number)) for number in range(5)]
            while queued(store) < 6:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)
            for number in (1, 3):
                tasks[number].cancel()
            await asyncio.wait([tasks[1], tasks[3]])
            assert queued(store) == 4
            place.leave()
            ended: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
            assert [getattr(one, "version", None) for one in ended] == [1, None, 2, None, 3]
            assert store._turns.queues == {}

    asyncio.run(main())


@pytest.mark.parametrize("number", range(4))
def test_the_one_whose_turn_comes_may_be_cancelled_at_that_moment(number: int) -> None:
    """The task is cancelled just when it is woken, and wakes nobody else."""

    async def main() -> None:
        queues = Turns()

        async def publish(then: float = 0) -> None:
            place = AsyncPlace(queues)
            try:
                await place.wait(MENA)
                await asyncio.sleep(then)
            finally:
                place.leave()

        first = asyncio.create_task(publish(0.01))
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(publish()) for _ in range(3)]
        await first
        for _ in range(number):
            await asyncio.sleep(0)
        tasks[0].cancel()
        async with asyncio.timeout(turns.PATIENCE_S / 2):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert queues.queues == {}

    asyncio.run(main())


def test_an_operation_that_is_stuck_is_not_waited_for_without_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A publish whose server does not answer holds up all others of that dataset."""
    monkeypatch.setattr(turns, "PATIENCE_S", 0.01)

    async def main() -> None:
        queues = Turns()
        places = [AsyncPlace(queues) for _ in range(4)]
        for place in places:
            await place.wait(MENA)
        for place in places:
            place.leave()
        assert queues.queues == {}

    asyncio.run(main())


def test_each_event_loop_has_its_own_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store on SQLite that several event loops share waits for a task of another loop."""
    monkeypatch.setattr(turns, "PATIENCE_S", 1000.0)
    store = connect(f"sqlite:///{tmp_path}/store.db")
    held, release, threads = threading.Event(), threading.Event(), Threads()

    async def hold() -> None:
        place = AsyncPlace(store._turns)
        await place.wait(MENA)
        held.set()
        await asyncio.to_thread(release.wait, 60)
        place.leave()

    threads.start(asyncio.run, hold())
    assert held.wait(30)

    async def publish() -> int:
        return (await store.publish("mena", 1)).version

    try:
        assert asyncio.run(asyncio.wait_for(publish(), 30)) == 1
    finally:
        release.set()
        threads.join()
    asyncio.run(store.close())


def test_what_cannot_be_published_does_not_queue(tmp_path: Path) -> None:
    """A call with a wrong argument is answered after all others, or keeps its place."""

    async def main() -> None:
        async with connect(f"sqlite:///{tmp_path}/store.db") as store:
            place = AsyncPlace(store._turns)
            await place.wait(MENA)
            with pytest.raises(InvalidInput):
                await store.publish("mena", {1, 2})
            assert queued(store) == 1
            place.leave()

    asyncio.run(main())
