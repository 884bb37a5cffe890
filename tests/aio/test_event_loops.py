"""Which event loop, thread and process an asyncio store can be used in."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakeredis
import fakeredis.aioredis
import pytest

import swapstore
import swapstore.aio
from swapstore.errors import InvalidInput, StoreClosed
from tests.aio.support import InThread
from tests.support import invariants
from tests.support.valkey import Server


def test_use_in_another_event_loop_is_refused(valkey: Server) -> None:
    """A store that is used in another event loop fails without saying what to do."""
    store = swapstore.aio.connect(valkey.url)
    with InThread() as home:
        home.run(store.publish("mena", 1))
        with pytest.raises(InvalidInput, match="another event loop.*connect once in each event loop"):
            asyncio.run(store.read_latest("mena"))
        with pytest.raises(InvalidInput, match="another event loop"):
            asyncio.run(store.close())
        home.run(store.close())


def test_a_store_whose_event_loop_is_over_can_be_closed() -> None:
    """`close` fails after the event loop has ended, or the closed store can still be used."""
    store = swapstore.aio.connect(fakeredis.aioredis.FakeRedis(server=fakeredis.FakeServer()))
    asyncio.run(store.publish("mena", 1))
    with pytest.raises(InvalidInput, match="another event loop"):
        asyncio.run(store.read_latest("mena"))
    asyncio.run(store.close())
    with pytest.raises(StoreClosed):
        asyncio.run(store.read_latest("mena"))


def test_a_file_can_be_used_in_any_event_loop(tmp_path: Path) -> None:
    """A store on SQLite fails in the second `asyncio.run`."""
    store = swapstore.aio.connect(f"sqlite:///{tmp_path}/x.db")
    asyncio.run(store.publish("mena", 1))
    assert asyncio.run(store.read_latest("mena")) is not None
    asyncio.run(store.close())


def child(run: Callable[[], None], failed: Any) -> None:
    try:
        run()
    except BaseException as error:
        failed.put(repr(error))
        raise


@pytest.mark.every_store
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_store_works_on_after_a_fork(real_url: str) -> None:
    """After a fork the child shares connections with its parent, or one of them hangs."""
    store = swapstore.aio.connect(real_url)
    context = multiprocessing.get_context("fork")
    failed = context.SimpleQueue()

    async def in_child() -> None:
        assert (await store.publish("mena", "child", id="child")).version == 2
        await store.close()

    async def main() -> None:
        await store.publish("mena", "parent", id="parent")
        await asyncio.sleep(0.05)  # let the thread become idle, so that it is reused
        process = context.Process(target=child, args=(lambda: asyncio.run(in_child()), failed))
        process.start()
        await asyncio.to_thread(process.join, 20)
        if process.exitcode is None:
            process.kill()
        assert process.exitcode == 0, "it hangs" if failed.empty() else failed.get()
        assert (await store.publish("mena", "parent again", id="again")).version == 3
        await store.close()

    asyncio.run(main())
    with swapstore.connect(real_url) as look:
        assert [row.id for row in invariants.check(look)] == ["parent", "child", "again"]


def test_close_waits_for_a_cancelled_publish_that_still_runs(tmp_path: Path) -> None:
    """`close` cuts off a publish to a file that was cancelled while it ran."""

    async def main() -> None:
        for number in range(20):
            async with swapstore.aio.connect(f"sqlite:///{tmp_path}/x.db") as store:
                publishing = asyncio.ensure_future(store.publish("mena", number))
                await asyncio.sleep(0.0005 * number)
                publishing.cancel()
            with swapstore.connect(f"sqlite:///{tmp_path}/x.db") as look:
                before = len(invariants.check(look))
                await asyncio.sleep(0.01)
                assert len(invariants.check(look)) == before

    asyncio.run(main())


def test_close_leaves_no_file_open(tmp_path: Path) -> None:
    """A closed store keeps the log of its file, so a copy of the file alone lacks the newest commits."""

    async def main() -> None:
        async with swapstore.aio.connect(f"sqlite:///{tmp_path}/x.db") as store:
            await store.publish("mena", 1)

    asyncio.run(main())
    assert [file.name for file in tmp_path.iterdir()] == ["x.db"]
