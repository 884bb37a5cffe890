"""A call that is cancelled anywhere leaves what a killed process leaves, and a store that still works."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from swapstore import Retention
from swapstore.aio import AsyncStore
from swapstore.commands import Get
from swapstore.engine import arun
from swapstore.errors import NotFound
from swapstore.protocol.context import Context
from swapstore.protocol.operation import Batch, Operation, Wait
from swapstore.testing import SimulatedStore
from tests.aio.support import Place, When, cancelled_at, simulated
from tests.support import invariants

pytestmark = pytest.mark.every_store

MOMENTS = 400  # more than any call waits for


@pytest.fixture(params=[*When], ids=lambda when: when.name.lower())
def when(request: pytest.FixtureRequest) -> When:
    made: When = request.param
    return made


def lent(store: AsyncStore) -> int:
    """How many batches a Redis driver counts as in flight, and how many connections its pool has lent."""
    driver: Any = store._driver
    limiter, pool = getattr(driver, "_limiter", None), getattr(driver, "_pool", None)
    return limiter._inside + len(pool._in_use_connections) if limiter and pool else 0


async def until_returned(store: AsyncStore) -> None:
    """Wait until no connection is lent: one may be returned in a task of its own."""
    for _ in range(20):
        if not lent(store):
            return
        await asyncio.sleep(0)
    assert lent(store) == 0


async def fuzz(place: Place, when: When, store: AsyncStore, *, begin: int = 0) -> int:
    """Publish, cancelled at every wait in turn, then publish again. Returns how many waits there were."""
    for number in range(begin, begin + MOMENTS):
        wanted: dict[str, Any] = {"value": {"number": number}, "id": f"snap-{number}"}
        stopped = await cancelled_at(store.publish("mena", **wanted), number - begin, when)
        await until_returned(store)
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


def test_a_publish_can_be_cancelled_at_each_of_its_awaits(place: Place, when: When) -> None:
    """A cancelled publish leaves half a version, a store that hangs, or a retry that commits twice."""

    async def main() -> None:
        async with place.open() as store:
            await fuzz(place, when, store)  # connects first
            waits = await fuzz(place, when, store, begin=1000)
            assert waits or place.kind == "fakeredis"  # which answers at once

    asyncio.run(main())


def test_the_first_publish_of_a_client_can_be_cancelled_at_each_of_its_awaits(
    place: Place, when: When
) -> None:
    """A connection that was cancelled while it was set up goes back to the pool half-ready."""

    async def main() -> None:
        for number in range(MOMENTS):
            async with place.open() as store:
                stopped = await cancelled_at(store.publish("mena", number, id=f"snap-{number}"), number, when)
                commit = await store.publish("mena", number, id=f"snap-{number}")
                assert place.ids().count(commit.id) == 1
                await until_returned(store)
            if not stopped:
                return
        raise AssertionError("a publish waits more often than anybody thought")

    asyncio.run(main())


def test_a_publish_can_be_cancelled_between_any_two_commands(when: When) -> None:
    """Cancelled between two commands, a publish that seals pages or applies retention leaves damage."""

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
def test_every_other_call_can_be_cancelled_at_each_of_its_awaits(call: str, when: When) -> None:
    """What an operator interrupts with Ctrl-C is half done: a pin, a prune or a repair."""

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


def test_publishes_survive_random_time_outs(place: Place) -> None:
    """Producers whose calls time out at random moments lose a commit, or commit twice."""
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
                await until_returned(store)
                there = place.ids()
                assert {id for (id, _), published in zip(group, done, strict=True) if published} <= set(there)  # noqa: A001
            for id, _ in places:  # noqa: A001
                await store.publish("mena", id, id=id)
            ids = place.ids()
            assert sorted(ids) == sorted(id for id, _ in places)  # noqa: A001

    asyncio.run(main())


def test_a_cancelled_iteration_does_not_end_like_a_complete_one(when: When) -> None:
    """A history that a time-out cut short looks like a short history."""

    async def main() -> None:
        place = simulated()
        async with place.open() as store:
            for number in range(100):
                await store.publish("mena", number)
        async with place.open() as reader:  # which has no page in its cache
            rows = reader.history("mena", limit=None)
            assert (await anext(rows)).version == 100

            async def rest() -> list[int]:
                return [row.version async for row in rows]

            assert await cancelled_at(rest(), 0, when)
            with pytest.raises(ValueError, match="interrupted.*begin a new one"):
                await rest()
            assert len([row async for row in reader.history("mena", limit=None)]) == 100

    asyncio.run(main())


def test_a_cancelled_operation_ends_at_once() -> None:
    """The clean-up of a cancelled operation runs only when the garbage collector finds it."""
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
    """An error of the library is replaced by a cancellation inside a task group."""

    async def main() -> None:
        async with simulated().open() as store:
            with pytest.raises(ExceptionGroup) as caught:
                async with asyncio.TaskGroup() as group:
                    group.create_task(store.pin("mena", id="none"))
            assert caught.group_contains(NotFound)

    asyncio.run(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt, asyncio.CancelledError, ValueError])
def test_a_store_that_is_interrupted_while_it_connects_is_closed(error: type[BaseException]) -> None:
    """`async with connect(…)` that is cancelled leaves its connections open: no block will close them."""
    closed: list[bool] = []

    class Driver:
        where, kind, binary_safe = "nowhere", "upstash", False

        async def execute(self, commands: Any) -> list[Any]:
            raise error

        async def close(self) -> None:
            closed.append(True)

    def on_connect(ctx: Context) -> Operation[None]:
        yield Batch((Get("x"),))

    context = msgspec.structs.replace(SimulatedStore(seed=1).connect()._context, on_connect=on_connect)

    async def main() -> None:
        with pytest.raises(error):
            await AsyncStore(Driver(), context).__aenter__()
        assert closed == [True]

    asyncio.run(main())
