"""A driver whose store can be taken away, for a while."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import msgspec

from swapstore import Store, SwapstoreError, Unavailable
from swapstore.aio import AsyncStore
from swapstore.cache import Cache
from swapstore.commands import Command
from swapstore.drivers.base import Driver


class Breakable:
    """Carries out batches while `error` is None, and raises it otherwise. `tries` counts the batches.

    `hold`: batches wait for it before they fail. `broken_for`: a batch with such a command fails; None: all.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.where, self.kind, self.binary_safe = driver.where, driver.kind, driver.binary_safe
        self.error: SwapstoreError | None = None
        self.broken_for: Callable[[Command[Any]], bool] | None = None
        self.hold: threading.Event | None = None
        self.waiting = 0
        self.tries = 0

    def go_down(self, error: SwapstoreError | None = None) -> None:
        self.error = error or Unavailable("the store was taken away, on purpose")

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        self.tries += 1
        broken = self.broken_for is None or any(map(self.broken_for, commands))
        if self.error is not None and broken:
            if self.hold is not None:
                self.waiting += 1
                assert self.hold.wait(60)
                self.waiting -= 1
            raise copy(self.error)
        return self._driver.execute(commands)

    def close(self) -> None:
        """The driver belongs to another store."""


class AsyncBreakable:
    """The same for asyncio, where batches wait for `held`."""

    def __init__(self, breakable: Breakable) -> None:
        self.breakable = breakable
        self.held: asyncio.Event | None = None
        self.where, self.kind = breakable.where, breakable.kind
        self.binary_safe = breakable.binary_safe

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        if self.held is not None:
            self.breakable.waiting += 1
            await self.held.wait()
            self.breakable.waiting -= 1
        return self.breakable.execute(commands)

    async def close(self) -> None:
        """The driver belongs to another store."""


def breakable(store: Store, *, cache_bytes: int = 1 << 20, **changes: Any) -> tuple[Store, Breakable]:
    """Return another client of a store, with an empty cache, and the driver that can take it away."""
    driver = Breakable(store._driver)
    context = msgspec.structs.replace(store._context, cache=Cache(cache_bytes), **changes)
    return Store(driver, context), driver


def async_breakable(store: Store, **changes: Any) -> tuple[AsyncStore, AsyncBreakable]:
    """Return another client of a store, for asyncio."""
    driver = AsyncBreakable(Breakable(store._driver))
    context = msgspec.structs.replace(store._context, cache=Cache(1 << 20), **changes)
    return AsyncStore(driver, context), driver
