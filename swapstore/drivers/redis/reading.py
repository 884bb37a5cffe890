"""The drivers that read from replicas, blocking and for asyncio.

Reads that a replica may answer go there once. What fails goes to the primary: the operation sees to that. So
a driver that failed rests for a moment, in which it refuses at once, and reads take no longer than those from
the primary do.
"""

from __future__ import annotations

import copy
import logging
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from swapstore.commands import Failed
from swapstore.drivers.base import AsyncDriver, Driver
from swapstore.errors import StoreClosed, SwapstoreError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command
    from swapstore.models import Timeout

LOG = logging.getLogger("swapstore")

REST_S = 1.0
LOGGED_EVERY_S = 60.0

D = TypeVar("D", Driver, AsyncDriver)


class _Rests(Generic[D]):
    """What both have in common: the driver that leads to replicas, and why and how long it rests."""

    def __init__(self, driver: D) -> None:
        self._driver: D = driver
        self.where = driver.where
        self.kind = driver.kind
        self.binary_safe = driver.binary_safe
        self._failure: SwapstoreError | None = None
        self._rests_until = 0.0
        self._logged_at = float("-inf")

    def _refuse_while_resting(self) -> None:
        if self._failure is not None and time.monotonic() < self._rests_until:
            raise copy.copy(self._failure)

    def _rest(self, error: SwapstoreError) -> None:
        if not isinstance(error, StoreClosed):
            self._failure, self._rests_until = copy.copy(error), time.monotonic() + REST_S
            self._log(error)

    def _note(self, replies: list[Any]) -> list[Any]:
        for reply in replies:
            if type(reply) is Failed and isinstance(reply.error, Unavailable):
                self._log(reply.error)
                break
        return replies

    def _log(self, error: SwapstoreError) -> None:
        """Say so, now and then: nobody else notices that replicas are not read."""
        now = time.monotonic()
        if now - self._logged_at >= LOGGED_EVERY_S:
            self._logged_at = now
            LOG.warning("no replica was read, so the primary is: %s", error.args[0])


class ReplicaDriver(_Rests[Driver]):
    """Reads from replicas."""

    @classmethod
    def of(cls, target: Any, timeout: Timeout) -> ReplicaDriver:
        """Make a driver for a URL of sentinels or a cluster, or a `RedisCluster`. Connects at first use."""
        from swapstore.drivers.redis.cluster import ClusterDriver  # noqa: PLC0415
        from swapstore.drivers.redis.driver import RedisDriver  # noqa: PLC0415

        return cls(_leading_to_replicas(ClusterDriver, RedisDriver, target, timeout))

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send the commands to a replica; see `Driver.execute`."""
        self._refuse_while_resting()
        try:
            return self._note(self._driver.execute(commands))
        except SwapstoreError as error:
            self._rest(error)
            raise

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()


class AsyncReplicaDriver(_Rests[AsyncDriver]):
    """Reads from replicas, in one event loop."""

    @classmethod
    def of(cls, target: Any, timeout: Timeout) -> AsyncReplicaDriver:
        """Make a driver; see `ReplicaDriver.of`."""
        from swapstore.drivers.redis.aio import AsyncRedisDriver  # noqa: PLC0415
        from swapstore.drivers.redis.cluster import AsyncClusterDriver  # noqa: PLC0415

        return cls(_leading_to_replicas(AsyncClusterDriver, AsyncRedisDriver, target, timeout))

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send the commands to a replica; see `AsyncDriver.execute`."""
        self._refuse_while_resting()
        try:
            return self._note(await self._driver.execute(commands))
        except SwapstoreError as error:
            self._rest(error)
            raise

    async def close(self) -> None:
        """Close the connections."""
        await self._driver.close()


def _leading_to_replicas(cluster: Any, server: Any, target: Any, timeout: Timeout) -> Any:
    """Make a driver of the class for clusters, or of that for sentinels, that leads to replicas."""
    if not isinstance(target, str):
        return cluster.from_client(target, timeout=timeout, to_replicas=True)
    kind = cluster if target.partition("://")[0].endswith("+cluster") else server
    return kind.from_url(target, timeout=timeout, to_replicas=True)
