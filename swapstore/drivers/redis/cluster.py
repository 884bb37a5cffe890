"""The drivers for Redis Cluster and Valkey Cluster, blocking and for asyncio: one driver a node.

All keys of a dataset are in one slot, so a commit goes whole to the primary of that slot. A batch is divided
into groups, one for each node: all are sent before any is read. Commands of one group take effect in their
order; there is no order between groups. What becomes of a command whose slot has moved: see `topology.py`.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import redis
import redis.asyncio

from swapstore.commands import Ask, Command, Failed, Scan, Scanned
from swapstore.drivers.base import closed
from swapstore.drivers.redis import address, aio, driver, replicas
from swapstore.drivers.redis.aio import AsyncRedisDriver
from swapstore.drivers.redis.driver import RedisDriver
from swapstore.drivers.redis.pool import Pool
from swapstore.drivers.redis.slots import Address, Place, is_scan, open_slots
from swapstore.drivers.redis.subscription import AsyncRedisListener, RedisListener
from swapstore.drivers.redis.topology import Group, Topology
from swapstore.errors import SwapstoreError
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.drivers.redis.address import ClusterAddress
    from swapstore.models import Timeout

PASSES = 3  # of a scan, at most, while slots move

_SLOTS = Ask(("CLUSTER", "SLOTS"))
_NODES = Ask(("CLUSTER", "NODES"))


class ClusterDriver(Topology):
    """Carries out commands on a cluster. All connections are its own, those for a caller's client too."""

    def __init__(self, place: ClusterAddress) -> None:
        super().__init__(place)
        self._nodes: dict[Address, RedisDriver] = {}

    @classmethod
    def from_url(
        cls, url: str, *, timeout: Timeout | None = None, to_replicas: bool = False
    ) -> ClusterDriver:
        """Make a driver for `redis+cluster://` or `rediss+cluster://`. Connects at the first command.

        `to_replicas`: commands go to the replicas of a slot's primary, and are refused where it has none.
        """
        place = address.parse_cluster(
            url, redis.BlockingConnectionPool, driver.no_retry(), driver.Parser, timeout
        )
        kind = driver.SSLConnection if place.kind is redis.SSLConnection else place.kind
        place = attrs.evolve(place, kind=kind)
        return cls(replicas.of_cluster(place) if to_replicas else place)

    @classmethod
    def from_client(
        cls,
        client: Any,
        *,
        timeout: Timeout | None = None,  # noqa: ARG003 - the client has its own
        to_replicas: bool = False,
    ) -> ClusterDriver:
        """Make a driver with the nodes, credentials and settings of a `redis.cluster.RedisCluster`."""
        kinds = (redis.Connection, driver.SSLConnection)
        fixed = {"retry": driver.no_retry(), "parser_class": driver.Parser}
        place = address.cluster_of_client(client, kinds, **fixed)
        return cls(replicas.of_cluster(place) if to_replicas else place)

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out the commands, each on the node that has its key; see `Driver.execute`."""
        if is_scan(commands):
            return [
                self._scan(each) if isinstance(each, Scan) else self.execute([each])[0] for each in commands
            ]
        if refusal := self._refresh_if_outdated():
            return [refusal] * len(commands)
        groups, found = self._groups(commands)
        self._run(groups)
        return self._outcome(groups, found)

    def _run(self, groups: list[Group]) -> None:
        """Send every group, then read the replies to each; after that, alike, what an ASK sends elsewhere.

        A batch never holds a connection to a node while it waits for another one to the same node.
        """
        try:
            for asking in (False, True):
                some = [group for group in groups if group.asking is asking]
                for group in some:
                    self._send(group)
                for group in some:
                    if group.request is not None:
                        self._receive(group)
        except BaseException:
            for group in groups:
                if group.request is not None:
                    group.request.pool.discard(group.request.connection)
            raise

        for group in groups:
            if group.replies is not None and self._lasting(group):
                with suppress(SwapstoreError):
                    (said,) = group.driver.execute([_NODES])
                    group.moving = _moving(said)

    def _send(self, group: Group) -> None:
        try:
            group.driver = self._node(group.node)
            group.request = group.driver.send(group.units, asking=group.asking)
        except SwapstoreError as error:
            group.failure = error

    def _receive(self, group: Group) -> None:
        try:
            group.replies = group.driver.receive(group.request)
        except SwapstoreError as error:
            group.failure = error
        finally:
            group.request = None  # its connection is the pool's again, or closed

    def _refresh_if_outdated(self) -> Failed | None:
        """Read the table if need be. Returns the refusal of every command if nobody can be asked now."""
        if self._is_outdated():
            try:
                self._refresh()
            except SwapstoreError as error:
                return self._without_refresh(error)
        return None

    def _refresh(self) -> None:
        """Read the table from the first node that answers, and forget the nodes that are not in it."""
        asking = self._refreshing()
        node = next(asking)
        with suppress(StopIteration):
            while True:
                node = asking.send(self._answer(node, _SLOTS))
        known = self._known()
        for gone in [each for each in list(self._nodes) if each not in known]:
            if (node_driver := self._nodes.pop(gone, None)) is not None:  # else another thread was quicker
                node_driver.retire()

    def _answer(self, node: Address, question: Ask) -> Any:
        """Ask one node. Returns its answer, or the error."""
        try:
            (reply,) = self._node(node).execute([question])
        except SwapstoreError as error:
            return error
        return reply.error if isinstance(reply, Failed) else reply

    def _node(self, node: Address) -> RedisDriver:
        """Return the driver of a node. It connects at its first command."""
        made = self._nodes.get(node)
        if made is None:

            def pool() -> Pool:
                place = self._place
                return Pool(place.kind, self._options_of(node), size=place.size, wait_s=place.wait_s)

            made = self._nodes.setdefault(node, RedisDriver(pool(), where=self._where_of(node), renew=pool))
        if self._closed:
            made.close()
            raise closed()
        return made

    def _scan(self, scan: Scan) -> Any:
        """Answer with some keys of one primary. Each key that stays is found, even if its slot moves."""
        place = Place.parse(scan.cursor)
        if refusal := self._refresh_if_outdated():
            return refusal
        if place is None or not self._is_here(place):
            place = self._begin(0, self._look())
        group = Group(place.node, asking=False, places=[0])
        group.commands = group.units = [msgspec.structs.replace(scan, cursor=place.cursor)]
        self._run([group])
        (reply,) = self._outcome([group], [None])
        if not isinstance(reply, Scanned):
            return reply
        following = self._next_place(place, reply.cursor)
        if following is None and place.number + 1 < PASSES:
            state = self._look()
            if state != place.state or state.startswith("+"):
                following = self._begin(place.number + 1, state)
        return Scanned(reply.keys, None if following is None else str(following))

    def _look(self) -> str:
        """Return the state of the cluster, as its primaries tell it now."""
        self._refresh()
        moving: dict[int, str] = {}
        for node in self._table.primaries if self._table else []:
            moving |= _moving(self._answer(node, _NODES))
        return self._state(moving)

    def listen(self, channels: Sequence[str], pattern: str = "") -> RedisListener:
        """Subscribe to hints on channels; see `Listener`. The connection is not one of a pool's."""
        node = self._subscribers(channels)
        return RedisListener(lambda: self._place.kind(**self._options_of(node())), channels, pattern)

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for node in list(self._nodes.values()):
            node.close()


def _moving(said: Any) -> dict[int, str]:
    """Return the slots on their way, of a node's reply to `CLUSTER NODES`. None are known if it refused."""
    return open_slots(said.decode("utf-8", "replace")) if isinstance(said, bytes) else {}


class AsyncClusterDriver(Topology):
    """Carries out commands on a cluster, in one event loop. All connections are its own."""

    def __init__(self, place: ClusterAddress) -> None:
        super().__init__(place)
        self._nodes: dict[Address, AsyncRedisDriver] = {}
        self._loading: asyncio.Future[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        survive_forks(self)

    def after_fork(self) -> None:
        """Forget the tasks of the parent: they never end here."""
        self._loading = None
        self._closing = set()

    @classmethod
    def from_url(
        cls, url: str, *, timeout: Timeout | None = None, to_replicas: bool = False
    ) -> AsyncClusterDriver:
        """Make a driver for `redis+cluster://` or `rediss+cluster://`; see `ClusterDriver.from_url`."""
        pool = redis.asyncio.BlockingConnectionPool
        place = address.parse_cluster(url, pool, aio.no_retry(), aio.Parser, timeout)
        return cls(replicas.of_cluster(place, is_async=True) if to_replicas else place)

    @classmethod
    def from_client(
        cls,
        client: Any,
        *,
        timeout: Timeout | None = None,  # noqa: ARG003 - the client has its own
        to_replicas: bool = False,
    ) -> AsyncClusterDriver:
        """Make a driver with the nodes, credentials and settings of a `redis.asyncio.RedisCluster`."""
        kinds = (redis.asyncio.Connection, redis.asyncio.SSLConnection)
        fixed = {"retry": aio.no_retry(), "parser_class": aio.Parser}
        place = address.cluster_of_client(client, kinds, **fixed)
        return cls(replicas.of_cluster(place, is_async=True) if to_replicas else place)

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out the commands, each on the node that has its key; see `AsyncDriver.execute`."""
        if is_scan(commands):
            return [
                await self._scan(each) if isinstance(each, Scan) else (await self.execute([each]))[0]
                for each in commands
            ]
        if refusal := await self._refresh_if_outdated():
            return [refusal] * len(commands)
        groups, found = self._groups(commands)
        if len(groups) == 1:
            await self._run(groups[0])
        else:
            await asyncio.gather(*map(self._run, groups))
        return self._outcome(groups, found)

    async def _run(self, group: Group) -> None:
        """Send a group and read its replies."""
        try:
            node = group.driver = self._node(group.node)
            group.replies = await node.exchange(group.units, asking=group.asking)
        except SwapstoreError as error:
            group.failure = self._left(group.node, error)
            return
        if self._lasting(group):
            with suppress(SwapstoreError):
                (said,) = await node.execute([_NODES])
                group.moving = _moving(said)

    async def _refresh_if_outdated(self) -> Failed | None:
        """Read the table if need be. Returns the refusal of every command if nobody can be asked now."""
        if self._is_outdated():
            try:
                await self._refresh()
            except SwapstoreError as error:
                return self._without_refresh(error)
        return None

    async def _refresh(self) -> None:
        """Read the table; tasks that want it at the same time share one reading."""
        if self._loading is None or self._loading.done():
            self._loading = asyncio.ensure_future(self._read_table())
            self._loading.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(self._loading)

    async def _read_table(self) -> None:
        """Read the table from the first node that answers, and close the nodes that are not in it."""
        asking = self._refreshing()
        node = next(asking)
        with suppress(StopIteration):
            while True:
                node = asking.send(await self._answer(node, _SLOTS))
        known = self._known()
        for gone in [each for each in self._nodes if each not in known]:
            task = asyncio.ensure_future(self._nodes.pop(gone).close())  # it waits for its batches
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _answer(self, node: Address, question: Ask) -> Any:
        """Ask one node. Returns its answer, or the error."""
        try:
            (reply,) = await self._node(node).execute([question])
        except SwapstoreError as error:
            return error
        return reply.error if isinstance(reply, Failed) else reply

    def _node(self, node: Address) -> AsyncRedisDriver:
        """Return the driver of a node. It connects at its first command."""
        if self._closed:
            raise closed()
        if node not in self._nodes:

            def pool() -> Any:
                place = self._place
                return redis.asyncio.BlockingConnectionPool(
                    connection_class=place.kind,
                    max_connections=place.size,
                    timeout=place.wait_s,
                    **self._options_of(node),
                )

            self._nodes[node] = AsyncRedisDriver(pool(), where=self._where_of(node), renew=pool)
        return self._nodes[node]

    async def _scan(self, scan: Scan) -> Any:
        """Answer with some keys of one primary. Each key that stays is found, even if its slot moves."""
        place = Place.parse(scan.cursor)
        if refusal := await self._refresh_if_outdated():
            return refusal
        if place is None or not self._is_here(place):
            place = self._begin(0, await self._look())
        group = Group(place.node, asking=False, places=[0])
        group.commands = group.units = [msgspec.structs.replace(scan, cursor=place.cursor)]
        await self._run(group)
        (reply,) = self._outcome([group], [None])
        if not isinstance(reply, Scanned):
            return reply
        following = self._next_place(place, reply.cursor)
        if following is None and place.number + 1 < PASSES:
            state = await self._look()
            if state != place.state or state.startswith("+"):
                following = self._begin(place.number + 1, state)
        return Scanned(reply.keys, None if following is None else str(following))

    async def _look(self) -> str:
        """Return the state of the cluster, as its primaries tell it now."""
        await self._refresh()
        moving: dict[int, str] = {}
        for node in self._table.primaries if self._table else []:
            moving |= _moving(await self._answer(node, _NODES))
        return self._state(moving)

    def listen(self, channels: Sequence[str], pattern: str = "") -> AsyncRedisListener:
        """Subscribe to hints on channels; see `AsyncListener`. The connection is not one of a pool's."""
        node = self._subscribers(channels)
        return AsyncRedisListener(lambda: self._place.kind(**self._options_of(node())), channels, pattern)

    async def close(self) -> None:
        """Wait for the batches in progress, then close all connections."""
        self._closed = True
        nodes = [node.close() for node in self._nodes.values()]
        await asyncio.gather(*nodes)  # refused in another event loop
        if self._loading is not None and self._loading.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([self._loading])  # not cancelled: the calls that wait for it would be, too
        await asyncio.gather(*self._closing)
