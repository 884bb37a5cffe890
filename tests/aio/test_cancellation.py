"""Cancelled anywhere, a call leaves what a killed process leaves, and a store that can be used on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from swapstore import Retention
from swapstore.aio import AsyncStore
from swapstore.engine import arun
from swapstore.errors import NotFound
from swapstore.protocol.operation import Operation, Wait
from tests.aio.support import Place, When, cancelled_at, simulated
from tests.support import invariants

pytestmark = pytest.mark.every_store

MOMENTS = 400  # more than any call waits for


@pytest.fixture(params=[*When], ids=lambda when: when.name.lower())
def when(request: pytest.FixtureRequest) -> When:
    made: When = request.param
    return made


def lent(store: AsyncStore) -> int:
    """How many batches a driver for Redis thinks are under way, and connections its pool."""
    driver: Any = store._driver
    limiter, pool = getattr(driver, "_limiter", None), getattr(driver, "_pool", None)
    return limiter._inside + len(pool._in_use_connections) if limiter and pool else 0


async def let_go(store: AsyncStore) -> None:
    """Wait until nothing is lent any more: a connection is given back in a task of its own."""
    for _ in range(20):
        if not lent(store):
            return
        await asyncio.sleep(0)
    assert lent(store) == 0


async def fuzz(place: Place, when: When, store: AsyncStore, *, begin: int = 0) -> int:
    """Publish, cancelled at every wait there is; publish again. Returns how many waits there were."""
    for number in range(begin, begin + MOMENTS):
        wanted: dict[str, Any] = {"value": {"number": number}, "id": f"snap-{number}"}
        stopped = await cancelled_at(store.publish("mena", **wanted), number - begin, when)
        await let_go(store)
        before = place.ids()
        commit = await store.publish("mena", **wanted)
        ids = place.ids()
        assert ids.count(commit.id) == 1
        assert not (commit.created and commit.id in before)
        assert len(ids) == commit.version
        snap = await store.read_latest("mena")
        assert snap is not None
        assert snap.value == {"number": number}
        if not stopped:
            return number - begin
    raise AssertionError("a publish waits more often than anybody thought")


def test_a_publish_is_cancelled_at_each_of_its_awaits(place: Place, when: When) -> None:
    """Wherever the task was stopped: all is whole, the store works on, and a retry ends in one commit."""

    async def main() -> None:
        async with place.open() as store:
            await fuzz(place, when, store)  # connects first
            assert await fuzz(place, when, store, begin=1000) >= 1

    asyncio.run(main())


def test_the_first_publish_of_a_client_is_cancelled_at_each_of_its_awaits(place: Place, when: When) -> None:
    """Connecting, logging in, loading scripts, opening a file: none of it is left half-done in the pool."""

    async def main() -> None:
        for number in range(MOMENTS):
            async with place.open() as store:
                stopped = await cancelled_at(store.publish("mena", number, id=f"snap-{number}"), number, when)
                commit = await store.publish("mena", number, id=f"snap-{number}")
                assert place.ids().count(commit.id) == 1
                await let_go(store)
            if not stopped:
                return
        raise AssertionError("a publish waits more often than anybody thought")

    asyncio.run(main())


def test_a_simulated_publish_is_cancelled_between_any_two_commands(when: When) -> None:
    """The same with a moment between any two commands, sealing of pages and retention included."""

    async def main() -> None:
        place = simulated(Retention(max_count=40))
        async with place.open() as store:
            for number in range(75):
                await store.publish("mena", number)
            for number in range(MOMENTS):
                snap = f"snap-{number}"
                stopped = await cancelled_at(store.publish("mena", number, id=snap), number, when)
                invariants.check(place.look)
                await store.publish("mena", number, id=snap)
                assert [row.id for row in invariants.check(place.look)].count(snap) == 1
                if not stopped:
                    return
        raise AssertionError("a publish waits more often than anybody thought")

    asyncio.run(main())


CALLS: dict[str, Callable[[AsyncStore], Coroutine[Any, Any, Any]]] = {
    "pin": lambda store: store.pin("mena", id="snap-1"),
    "rollback": lambda store: store.rollback("mena", id="snap-1"),
    "confirm": lambda store: store.confirm("mena"),
    "put_live": lambda store: store.put_live("mena", 1, ttl=60),
    "prune": lambda store: store.prune("mena", retention=Retention(max_count=3)),
    "repair": lambda store: store.repair(apply=True),
    "publish_many": lambda store: store.publish_many({"mena": 1, "other": 2}),
    "read": lambda store: store.read("mena", version=1),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_other_call_is_cancelled_at_each_of_its_awaits(call: str, when: When) -> None:
    """What an operator interrupts with Ctrl-C is done or not done, and never half done."""

    async def main() -> None:
        place = simulated()
        for number in range(MOMENTS):
            async with place.open() as store:
                for each in range(3):
                    await store.publish("mena", each, id=f"snap-{each}")
                stopped = await cancelled_at(CALLS[call](store), number, when)
                invariants.check(place.look)
                invariants.check(place.look, "other")
                await CALLS[call](store)
                invariants.check(place.look)
            if not stopped:
                return
        raise AssertionError("a call waits more often than anybody thought")

    asyncio.run(main())


def test_publishes_run_into_random_time_outs(place: Place) -> None:
    """Twenty impatient producers on one dataset: whatever they gave up, one commit each in the end."""
    dice = random.Random(7)
    places = [(f"snap-{number}", dice.uniform(0, 0.05)) for number in range(60)]

    async def produce(store: AsyncStore, id: str, patience_s: float) -> bool:  # noqa: A002
        try:
            async with asyncio.timeout(patience_s):
                await store.publish("mena", id, id=id)
        except TimeoutError:
            return False
        return True

    async def main() -> None:
        async with place.open() as store:
            for start in range(0, len(places), 20):
                group = places[start : start + 20]
                done = await asyncio.gather(*(produce(store, *each) for each in group))
                await let_go(store)
                there = place.ids()
                assert {id for (id, _), published in zip(group, done, strict=True) if published} <= set(there)  # noqa: A001
            for id, _ in places:  # noqa: A001
                await store.publish("mena", id, id=id)
            ids = place.ids()
            assert sorted(ids) == sorted(id for id, _ in places)  # noqa: A001

    asyncio.run(main())


def test_an_iteration_that_was_cancelled_does_not_end_as_if_that_had_been_all(when: When) -> None:
    """A history that was cut short by a time-out must not pass for a short history."""

    async def main() -> None:
        place = simulated()
        async with place.open() as store:
            for number in range(100):
                await store.publish("mena", number)
            rows = store.history("mena", limit=None)
            assert (await anext(rows)).version == 100

            async def rest() -> list[int]:
                return [row.version async for row in rows]

            assert await cancelled_at(rest(), 0, when)
            with pytest.raises(ValueError, match="interrupted.*begin a new one"):
                await rest()
            assert len([row async for row in store.history("mena", limit=None)]) == 100

    asyncio.run(main())


def test_an_operation_that_was_cancelled_is_over() -> None:
    """What an operation does when it ends, it does when it is cancelled: not when somebody collects it."""
    ended = []

    def operation() -> Operation[None]:
        try:
            yield Wait(60)
        finally:
            ended.append(True)

    async def main() -> None:
        kept = operation()
        driver: Any = None
        assert await cancelled_at(arun(kept, driver, asyncio.sleep), 0, When.BEFORE)
        assert ended == [True]

    asyncio.run(main())


def test_a_call_that_fails_is_not_taken_for_a_cancelled_one() -> None:
    """An error of the library comes through as it is, also out of a task group."""

    async def main() -> None:
        async with simulated().open() as store:
            with pytest.raises(ExceptionGroup) as caught:
                async with asyncio.TaskGroup() as group:
                    group.create_task(store.pin("mena", id="none"))
            assert caught.group_contains(NotFound)

    asyncio.run(main())
