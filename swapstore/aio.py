"""swapstore for asyncio: the same calls, awaited.

import swapstore.aio

async with swapstore.aio.connect("redis://localhost:6379/0") as store:
    await store.publish("mena", {"regime": "calm"})
    (await store.read_latest("mena")).value
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, Self

from swapstore.calls import Calls
from swapstore.connect import (
    DEFAULT_CACHE_BYTES,
    DEFAULT_MAX_BATCH,
    DEFAULT_MAX_PAYLOAD,
    DEFAULT_MAX_REQUEST,
    DEFAULT_NAMESPACE,
    Makers,
    prepared,
    sqlite,
)
from swapstore.drivers.rest import address as rest_address
from swapstore.engine import arun
from swapstore.face import AsyncFace, aiterating, awaiting
from swapstore.protocol.scriptless import probe
from swapstore.sharing import asharing
from swapstore.single_flight import AsyncSingleFlight
from swapstore.subscription import Follower, afollowing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from swapstore.drivers.base import AsyncDriver
    from swapstore.drivers.rest.address import Address
    from swapstore.events import Event
    from swapstore.migration.layout import Mirror
    from swapstore.models import Retention, Snapshot, Validator
    from swapstore.protocol.context import Context

__all__ = ["AsyncStore", "connect"]


class AsyncStore(AsyncFace):
    """A `Store` for asyncio: the same methods, awaited. Made by `swapstore.aio.connect`.

    It is an asynchronous context manager, and may be shared by the tasks of one event loop. Cancelling a call
    is safe at every moment: what it leaves is what a process leaves that is killed there, and the store can
    be used on. A publish that was cancelled may have been committed, or not: publish again with its `id`.

    Every method raises what that of `Store` raises.
    """

    def __init__(
        self,
        driver: AsyncDriver,
        context: Context,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__(driver, context, sleep=sleep)
        self._flights: AsyncSingleFlight[Snapshot | None] = AsyncSingleFlight()
        self._followers: weakref.WeakSet[Follower[Any]] = weakref.WeakSet()

    publish = awaiting(Calls.publish)
    publish_many = awaiting(Calls.publish_many)
    confirm = awaiting(Calls.confirm)

    read_latest = asharing(Calls.read_latest)
    read_latest_many = awaiting(Calls.read_latest_many)
    read = awaiting(Calls.read)
    history = aiterating(Calls.history)
    follow = afollowing(Calls.follow)
    datasets = awaiting(Calls.datasets)
    status = awaiting(Calls.status)

    put_live = awaiting(Calls.put_live)
    read_live = awaiting(Calls.read_live)

    pin = awaiting(Calls.pin)
    unpin = awaiting(Calls.unpin)
    rollback = awaiting(Calls.rollback)

    prune = awaiting(Calls.prune)
    verify = aiterating(Calls.verify)
    repair = awaiting(Calls.repair)
    doctor = awaiting(Calls.doctor)

    async def __aenter__(self) -> Self:
        try:
            await arun(probe.at_connect(self._context, self._driver.kind), self._driver, self._sleep)
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Close the connections that the store opened, and end its followers. Closing twice is harmless."""
        self._closed = True
        for follower in list(self._followers):
            await follower.close()
        await super().close()


def connect(
    target: Any = None,
    *,
    token: str | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    max_payload: int = DEFAULT_MAX_PAYLOAD,
    max_batch: int = DEFAULT_MAX_BATCH,
    max_request: int = DEFAULT_MAX_REQUEST,
    allow_http: bool = False,
    single_writer: bool = False,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    retention: Retention | None = None,
    mirror: Mirror | None = None,
    validators: Sequence[Validator] = (),
    on_event: Callable[[Event], object] | None = None,
) -> AsyncStore:
    """Return an `AsyncStore`. It connects when it is first used.

    The arguments are those of `swapstore.connect`, but for a client: it must be a `redis.asyncio.Redis`. It
    is borrowed and never closed.

    A SQLite file is read and written in worker threads. On Redis and Valkey, and over REST, a store
    belongs to the event loop in which it is first used; `InvalidInput` in another one.
    """
    driver, context = prepared(
        _ASYNC,
        target,
        token=token,
        max_request=max_request,
        allow_http=allow_http,
        single_writer=single_writer,
        namespace=namespace,
        max_payload=max_payload,
        max_batch=max_batch,
        cache_bytes=cache_bytes,
        retention=retention,
        mirror=mirror,
        validators=validators,
        on_event=on_event,
    )
    return AsyncStore(driver, context)


def _redis_url(url: str) -> AsyncDriver:
    from swapstore.drivers.aioredis import AsyncRedisDriver  # noqa: PLC0415 - redis-py takes 0.1 s to import

    return AsyncRedisDriver.from_url(url)


def _redis_client(client: Any) -> AsyncDriver:
    from swapstore.drivers.aioredis import AsyncRedisDriver  # noqa: PLC0415

    return AsyncRedisDriver.from_client(client)


def _sqlite(path: Path) -> AsyncDriver:
    from swapstore.drivers.threaded import ThreadedDriver  # noqa: PLC0415

    return ThreadedDriver(sqlite(path))


def _rest(address: Address, max_request: int) -> AsyncDriver:
    with rest_address.installed():
        from swapstore.drivers.rest.aio import AsyncUpstashDriver  # noqa: PLC0415 - an extra
    return AsyncUpstashDriver(address, max_request=max_request)


_ASYNC: Makers[AsyncDriver] = Makers(_redis_url, _redis_client, _sqlite, _rest)
