"""A limiter for asyncio: at most so many batches at a time, in the order in which they came."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from swapstore.drivers.base import closed
from swapstore.errors import InvalidInput, StoreClosed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable


class Limiter:
    """A context manager for each batch. It belongs to the event loop that first enters it.

    redis-py's `BlockingConnectionPool` cannot replace it: if the next task in its queue is cancelled, the
    pool may wake no other task, and they wait while a connection is free (seen with Python 3.11).

    Entering raises `StoreClosed` after `close`, `InvalidInput` in another event loop, and what `exhausted`
    returns after `wait_s` seconds without a free slot.
    """

    def __init__(self, where: str, size: int, wait_s: float, *, exhausted: Callable[[], Unavailable]) -> None:
        self._where = where
        self._wait_s = wait_s
        self._exhausted = exhausted
        self._slots = asyncio.Semaphore(size)
        self._inside = 0
        self._empty = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        self.require_own_loop()
        self._refuse_if_closed()
        await self._take_slot()
        try:
            self._refuse_if_closed()
        except StoreClosed:
            self._slots.release()
            raise
        self._inside += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._slots.release()
        self._inside -= 1
        if not self._inside:
            self._empty.set()

    async def close(self) -> None:
        """Refuse new batches, and wait for those in progress."""
        self._closed = True
        while self._inside and not self.loop_is_closed:
            self._empty.clear()
            await self._empty.wait()

    @property
    def loop_is_closed(self) -> bool:
        """Whether its event loop is closed: no batch of it can end any more."""
        return self._loop is not None and self._loop.is_closed()

    async def _take_slot(self) -> None:
        if not self._slots.locked():
            await self._slots.acquire()
            return
        try:
            async with asyncio.timeout(self._wait_s):
                await self._slots.acquire()
        except TimeoutError:
            failure = self._exhausted()
        else:
            return
        raise failure

    def require_own_loop(self) -> None:
        """Raise `InvalidInput` in any event loop but the first."""
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise InvalidInput.misuse(
                f"the store on {self._where} belongs to another event loop, the one that used it first; "
                "connect once in each event loop, and close the store before its loop ends"
            )

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise closed()
