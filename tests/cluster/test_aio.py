"""Many tasks on one asyncio store, while slots move and a shard fails over."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable

import pytest

import swapstore
import swapstore.aio
from swapstore import Row
from swapstore.aio import AsyncStore
from tests.support import invariants
from tests.support.cluster import Cluster, slot_of

pytestmark = [pytest.mark.server, pytest.mark.slow]


class Tasks:
    """Producers, a reader, one whose reads are cancelled, and a follower, all on one store."""

    def __init__(self, store: AsyncStore, names: list[str]) -> None:
        self.store = store
        self.names = names
        self.acknowledged: dict[str, list[str]] = {name: [] for name in names}
        self.followed: list[int] = []
        self.stopping = asyncio.Event()

    async def produce(self, name: str) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            commit = await self.store.publish(name, {"id": f"{name}-{number}"}, id=f"{name}-{number}")
            self.acknowledged[name].append(commit.id)

    async def read(self) -> None:
        seen = dict.fromkeys(self.names, 0)
        while not self.stopping.is_set():
            for name, snap in (await self.store.read_latest_many(self.names)).items():
                if snap is not None:
                    assert snap.value["id"] == snap.id
                    assert snap.version >= seen[name]
                    seen[name] = snap.version

    async def cut_short(self) -> None:
        while not self.stopping.is_set():
            task = asyncio.ensure_future(self.store.read_latest_many(self.names))
            await asyncio.sleep(0.003)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def follow(self) -> None:
        async for row in self.store.follow(self.names[0], after=0):
            assert isinstance(row, Row)
            self.followed.append(row.version)

    async def progress(self) -> None:
        wanted = {name: len(ids) + 3 for name, ids in self.acknowledged.items()}
        await eventually(lambda: all(len(ids) >= wanted[name] for name, ids in self.acknowledged.items()))


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def while_it_changes(cluster: Cluster, made: Tasks) -> None:
    """Let the tasks work while slots move and a shard fails over."""
    jobs = [made.produce(name) for name in made.names]
    tasks = [asyncio.create_task(job) for job in (*jobs, made.read(), made.cut_short())]
    following = asyncio.create_task(made.follow())
    await made.progress()
    for name in made.names[:2]:
        slot = slot_of(name)
        await asyncio.to_thread(cluster.move_slot, slot, cluster.other(cluster.owner(slot)))
        await made.progress()
    await asyncio.to_thread(cluster.fail_over, cluster.replicas[0])
    await made.progress()
    made.stopping.set()
    await asyncio.gather(*tasks)
    await eventually(lambda: len(made.followed) >= len(made.acknowledged[made.names[0]]))
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


def test_many_tasks_on_one_store(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Tasks that share a store get each other's replies, or all wait for the node of one of them."""

    async def main() -> Tasks:
        async with swapstore.aio.connect(cluster.url, patience=20) as store:
            made = Tasks(store, cluster.names(5))
            await while_it_changes(cluster, made)
            return made

    made = asyncio.run(main())
    with swapstore.connect(cluster.url) as fresh:
        for name in made.names:
            assert [row.id for row in invariants.check(fresh, name)] == made.acknowledged[name]
    assert made.followed == list(range(1, len(made.followed) + 1))
    gc.collect()
    told = [record for record in caplog.records if record.name == "asyncio"]
    assert not [record for record in told if record.levelno >= logging.ERROR]


def test_tasks_that_start_together_read_the_table_once(cluster: Cluster) -> None:
    """A service that starts asks the cluster for its table as often as it has tasks."""

    async def main() -> None:
        async with swapstore.aio.connect(cluster.url) as store:
            await asyncio.gather(*(store.read_latest(f"set-{number}") for number in range(50)))

    before = asked(cluster)
    asyncio.run(main())
    assert asked(cluster) - before == 1


def asked(cluster: Cluster) -> int:
    """How often the nodes were asked for their table, but by this."""
    count = 0
    for node in cluster.nodes:
        said = cluster.do(node, "INFO", "commandstats").decode()
        count += sum(
            int(line.split("calls=")[1].split(",")[0])
            for line in said.splitlines()
            if line.startswith("cmdstat_cluster|slots:")
        )
    return count
