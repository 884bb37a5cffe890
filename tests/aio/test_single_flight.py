"""Tasks that read concurrently share loads, get nothing that is too old, and never hang."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from swapstore import Unavailable, single_flight
from swapstore.single_flight import AsyncSingleFlight
from tests.support.interrupts import Threads


def test_a_thousand_readers_cause_two_loads() -> None:
    """A web server that has just started reads one payload a thousand times."""

    async def scenario() -> None:
        flights: AsyncSingleFlight[int] = AsyncSingleFlight()
        loads: list[int] = []

        async def load() -> int:
            loads.append(1)
            await asyncio.sleep(0.01)
            return 7

        found = await asyncio.gather(*(flights.share("mena", load) for _ in range(1000)))
        assert found == [7] * 1000
        assert len(loads) == 2
        assert flights._flights == {}

    asyncio.run(scenario())


def test_a_read_does_not_share_a_load_that_began_before_it() -> None:
    """A read misses what was published before it began, because an older load was in flight."""

    async def scenario() -> None:
        flights: AsyncSingleFlight[str] = AsyncSingleFlight()
        stored = "old"

        async def load() -> str:
            seen = stored
            await asyncio.sleep(0.01)
            return seen

        early = asyncio.create_task(flights.share("mena", load))
        await asyncio.sleep(0)
        stored = "new"
        late = asyncio.create_task(flights.share("mena", load))
        assert (await early, await late) == ("old", "new")

    asyncio.run(scenario())


def test_each_event_loop_has_its_own_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store on SQLite that several event loops share waits for a load in another loop."""
    monkeypatch.setattr(single_flight, "PATIENCE_S", 1000.0)
    flights: AsyncSingleFlight[int] = AsyncSingleFlight()
    held, release, threads = threading.Event(), threading.Event(), Threads()

    async def slow() -> int:
        held.set()
        return int(await asyncio.to_thread(release.wait, 60))

    async def quick() -> int:
        return 7

    threads.start(asyncio.run, flights.share("mena", slow))
    assert held.wait(30)
    try:
        assert asyncio.run(asyncio.wait_for(flights.share("mena", quick), 20)) == 7
    finally:
        release.set()
        threads.join()


@pytest.mark.parametrize("who", [0, 1])
def test_a_cancelled_reader_does_not_cancel_the_others(who: int) -> None:
    """A request that times out cancels all other requests that wait for the same load."""

    async def scenario() -> None:
        flights: AsyncSingleFlight[int] = AsyncSingleFlight()

        async def load() -> int:
            await asyncio.sleep(0.01)
            return 7

        tasks = [asyncio.create_task(flights.share("mena", load)) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[who].cancel()
        found: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found.pop(who), asyncio.CancelledError)
        assert found == [7, 7, 7]
        assert flights._flights == {}

    asyncio.run(scenario())


def test_waiting_readers_share_an_error() -> None:
    """When the store is down, a hundred tasks wait for a hundred time-outs in a row."""

    async def scenario() -> None:
        flights: AsyncSingleFlight[int] = AsyncSingleFlight()
        loads: list[int] = []

        async def fail() -> int:
            loads.append(1)
            await asyncio.sleep(0.01)
            raise Unavailable("down")

        found = await asyncio.gather(
            *(flights.share("mena", fail) for _ in range(100)), return_exceptions=True
        )
        assert all(isinstance(error, Unavailable) for error in found)
        assert len({id(error) for error in found}) == 100
        assert len(loads) == 2

    asyncio.run(scenario())
