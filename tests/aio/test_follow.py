"""`AsyncStore.follow`: every commit in order, also when the consumer waits with a time-out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

import swapstore.aio
from swapstore import Row
from swapstore.errors import Corrupt, InvalidInput, StoreClosed, Unavailable
from tests.aio.support import Place
from tests.support.valkey import Server, free_port

pytestmark = pytest.mark.every_store


async def take(follower: AsyncIterator[Any], count: int) -> list[int]:
    async with asyncio.timeout(20):
        return [(await anext(follower)).version for _ in range(count)]


def test_every_commit_in_order(place: Place) -> None:
    """A follower beside five publishing tasks skips a commit, or gets one twice or out of order."""

    async def main() -> None:
        async with place.open() as store:
            everything, next_ones = store.follow("mena", after=0, poll=0.02), store.follow("mena", poll=0.02)
            await store.publish("mena", 1)
            beginning = asyncio.ensure_future(take(next_ones, 40))
            await asyncio.sleep(0.1)
            await asyncio.gather(*(store.publish("mena", n) for n in range(40)))
            assert await take(everything, 41) == list(range(1, 42))
            assert await beginning == list(range(2, 42))

    asyncio.run(main())


def test_a_time_out_loses_nothing(place: Place) -> None:
    """A consumer that waits for the next commit with a time-out loses commits."""

    async def main() -> None:
        async with place.open() as store:
            follower: AsyncIterator[Any] = store.follow("mena", after=0, poll=0.01)
            seen: list[int] = []
            producing = asyncio.ensure_future(produce(store))
            while len(seen) < 30:
                try:
                    async with asyncio.timeout(0.003):
                        seen.append((await anext(follower)).version)
                except TimeoutError:
                    pass
            await producing
            assert seen == list(range(1, 31))

    async def produce(store: Any) -> None:
        for number in range(30):
            await store.publish("mena", number)

    asyncio.run(main())


def test_a_hint_wakes_a_follower(valkey: Server) -> None:
    """A follower on a server gets a commit only at its next poll."""

    async def main() -> None:
        async with swapstore.aio.connect(valkey.url) as store, swapstore.aio.connect(valkey.url) as producer:
            follower = store.follow("mena", after=0, poll=60)
            for number in range(1, 6):
                waiting = asyncio.ensure_future(take(follower, 1))
                await asyncio.sleep(0.2)
                began = time.monotonic()
                await producer.publish("mena", number)
                assert await waiting == [number]
                assert time.monotonic() - began < 5

    asyncio.run(main())


def test_closing_the_store_ends_its_followers(place: Place) -> None:
    """A shutdown waits for the next commit, or leaves a connection open."""

    async def main() -> None:
        async with place.open() as store:
            await store.publish("mena", 1)
            follower = store.follow("mena", after=0, poll=60)
            seen = []

            async def follow() -> None:
                async for row in follower:
                    assert isinstance(row, Row)
                    seen.append(row.version)

            following = asyncio.ensure_future(follow())
            await asyncio.sleep(0.2)
            unused = store.follow("mena")
            async with asyncio.timeout(5):
                await store.close()
                await following
            assert seen == [1]
            with pytest.raises(StoreClosed):
                await anext(unused)
            with pytest.raises(StoreClosed):
                store.follow("mena")

    asyncio.run(main())


def test_abandoned_followers_leave_no_connection(valkey: Server) -> None:
    """A service that leaves the loop without `close` runs out of connections."""

    async def main() -> None:
        async with swapstore.aio.connect(valkey.url) as store:
            await store.publish("mena", 1)
            with valkey.client() as admin:
                before = len(admin.client_list())
                for _ in range(10):
                    async for _row in store.follow("mena", after=0, poll=0.01):
                        break
                for _ in range(10):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await anext(store.follow("mena", poll=0.1))
                await asyncio.sleep(0.5)
                assert len(admin.client_list()) <= before + 1

    asyncio.run(main())


@pytest.mark.server
def test_an_outage_is_waited_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A follower does not go on after a restart, or retries an address that never worked."""
    server = Server(tmp_path, "--appendonly", "yes", "--appendfsync", "always").start()

    async def main() -> None:
        async with swapstore.aio.connect(server.url) as store:
            await store.publish("mena", 1)
            follower = store.follow("mena", after=0, poll=0.1)
            assert await take(follower, 1) == [1]
            waiting = asyncio.ensure_future(take(follower, 1))
            await asyncio.sleep(0.2)
            server.stop()
            await asyncio.sleep(0.3)
            server.start()
            await store.publish("mena", 2)
            assert await waiting == [2]
        async with swapstore.aio.connect(f"redis://127.0.0.1:{free_port()}", patience=0) as nowhere:
            with pytest.raises(Unavailable):
                await anext(nowhere.follow("mena"))
            with pytest.raises(InvalidInput):
                nowhere.follow("mena", after=-1)

    try:
        asyncio.run(main())
    finally:
        server.stop()
    assert "cannot be followed now" in caplog.text


def test_a_follower_can_be_closed_like_an_asynchronous_generator(place: Place) -> None:
    """`contextlib.aclosing` fails, or a task that awaits the next commit of a closed follower hangs."""

    async def main() -> None:
        async with place.open() as store:
            await store.publish("mena", 1)
            async with aclosing(store.follow("mena", after=0, poll=60)) as follower:
                assert await take(follower, 1) == [1]
                waiting = asyncio.ensure_future(anext(follower, None))
                await asyncio.sleep(0.05)
            async with asyncio.timeout(20):
                assert await waiting is None
                assert [commit async for commit in follower] == []
            await follower.aclose()
            assert (await store.publish("mena", 2)).version == 2

    asyncio.run(main())


def test_two_tasks_that_share_a_follower_get_each_commit_once(place: Place) -> None:
    """Two workers that take from one follower both get the commits of a step."""

    async def main() -> None:
        async with place.open() as store:
            for number in range(10):
                await store.publish("mena", number)
            follower = store.follow("mena", after=0)
            one, other = await asyncio.gather(take(follower, 5), take(follower, 5))
            assert sorted([*one, *other]) == list(range(1, 11))

    asyncio.run(main())


def test_a_closed_follower_leaves_no_task(place: Place) -> None:
    """What a follower waits for goes on after `aclose`, and uses a connection of a store that is closed."""

    async def main() -> None:
        async with place.open() as store:
            await store.publish("mena", 1)
            follower = store.follow("mena")
            before = asyncio.all_tasks()
            taking = asyncio.ensure_future(anext(follower))
            await asyncio.sleep(0.1)
            taking.cancel()
            await asyncio.wait({taking})
            await follower.aclose()
            assert asyncio.all_tasks() == before

    asyncio.run(main())


def test_a_store_is_closed_in_another_event_loop_than_its_follower(tmp_path: Path) -> None:
    """A program that closes its store after the loop of its follower gets an error, and closes nothing."""
    store = swapstore.aio.connect(f"sqlite:///{tmp_path / 'store.db'}")

    async def follow() -> Any:
        follower = store.follow("mena", poll=60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(follower)
        return follower

    follower = asyncio.run(follow())  # the step that is under way is cancelled at the end
    asyncio.run(store.close())
    with pytest.raises(StopAsyncIteration):
        asyncio.run(anext(follower))


def test_a_follower_that_waits_keeps_no_tasks(place: Place) -> None:
    """Each poll leaves a task, until a service that follows for a week has no memory left."""

    async def main() -> None:
        async with place.open() as store:
            before = len(asyncio.all_tasks())
            follower = store.follow("mena", poll=0.001)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(follower), 0.3)
            assert len(asyncio.all_tasks()) <= before + 4

    asyncio.run(main())


def test_a_batch_that_closing_the_store_breaks_is_no_error(place: Place, monkeypatch: Any) -> None:
    """A service that shuts down while its follower looks dies with an error."""

    async def main() -> None:
        async with place.open() as store:
            await store.publish("mena", 1)
            follower = store.follow("mena", after=0)
            assert await take(follower, 1) == [1]
            looking, closed = asyncio.Event(), asyncio.Event()

            async def execute(_: object) -> list[Any]:
                looking.set()
                await closed.wait()
                raise StoreClosed("closed")

            monkeypatch.setattr(store._driver, "execute", execute)
            taking = asyncio.ensure_future(anext(follower, None))
            await looking.wait()
            closing = asyncio.ensure_future(store.close())
            await asyncio.sleep(0)
            closed.set()
            async with asyncio.timeout(20):
                await closing
                assert await taking is None

    asyncio.run(main())


def test_a_follower_is_over_after_an_error(place: Place, monkeypatch: Any) -> None:
    """A loop around a follower gets the error of damage again and again, where the iteration has ended."""

    async def main() -> None:
        async with place.open() as store:
            await store.publish("mena", 1)
            follower = store.follow("mena", after=0)
            assert await take(follower, 1) == [1]

            async def execute(_: object) -> list[Any]:
                raise Corrupt("on purpose")

            with monkeypatch.context() as patch:
                patch.setattr(store._driver, "execute", execute)
                with pytest.raises(Corrupt):
                    await take(follower, 1)
            await store.publish("mena", 2)
            assert await anext(follower, None) is None

    asyncio.run(main())
