"""Runs a blocking driver in worker threads, for asyncio. SQLite uses it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from swapstore.drivers.base import closed
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command
    from swapstore.drivers.base import Driver

THREADS = 8  # concurrent readers; SQLite writes one at a time


class ThreadedDriver:
    """Carries out commands through another driver, each batch in one of its own threads.

    A batch that is cancelled before a thread takes it is never carried out. Once a thread has begun it, it
    runs to its end, and its outcome stays unknown. Works in any event loop.
    """

    def __init__(self, driver: Driver, *, threads: int = THREADS) -> None:
        self._driver = driver
        self._threads = threads
        self._executor = self._new_executor()
        self._inherited: list[ThreadPoolExecutor] = []
        self._closed = False
        self.where = driver.where
        self.kind = driver.kind
        self.binary_safe = driver.binary_safe
        survive_forks(self)

    def _new_executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._threads, thread_name_prefix="swapstore")

    def after_fork(self) -> None:
        """Make new threads: those of the parent do not exist in the child."""
        self._inherited.append(self._executor)
        self._executor = self._new_executor()

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out the commands in a thread; see `AsyncDriver.execute`."""
        if self._closed:
            raise closed()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, self._driver.execute, commands)

    async def close(self) -> None:
        """Wait for the batches in progress, then close the driver."""
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._executor.shutdown(wait=True)
        self._driver.close()
