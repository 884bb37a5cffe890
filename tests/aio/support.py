"""Support for the tests of `AsyncStore`: a store of each kind, and tasks cancelled at a chosen await."""

from __future__ import annotations

import asyncio
import enum
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, Self, TypeVar

import attrs
import msgspec

from swapstore import Store
from swapstore.aio import AsyncStore
from swapstore.cache import Cache
from swapstore.commands import Command
from swapstore.drivers.base import AsyncDriver, Driver
from swapstore.models import Retention
from swapstore.testing import SimulatedStore
from tests.support import invariants

T = TypeVar("T")


@attrs.frozen
class Place:
    """A store of one kind: `open` makes asyncio clients of it, `look` a blocking client."""

    kind: str
    open: Callable[[], AbstractAsyncContextManager[AsyncStore]]
    look: Store

    def ids(self, dataset: str = "mena") -> list[str]:
        """The committed ids, oldest first; every invariant of the store is checked.

        A batch of a cancelled task may still arrive during the check, which reads one key after the other.
        """
        deadline = time.monotonic() + 2
        while True:
            try:
                return [row.id for row in invariants.check(self.look, dataset)]
            except (AssertionError, KeyError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


class Slow:
    """A simulated store for asyncio that yields to the event loop before and after each command."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.where = driver.where
        self.kind = driver.kind
        self.binary_safe = driver.binary_safe

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        replies: list[Any] = []
        for command in commands:
            await asyncio.sleep(0)
            replies += self._driver.execute([command])
        await asyncio.sleep(0)
        return replies

    async def close(self) -> None:
        """There is nothing to close."""


def simulated(retention: Retention | None = None) -> Place:
    """A deterministic store in memory."""
    sim = SimulatedStore(seed=1)
    look = sim.connect()

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(0)
        sim.clock.sleep(seconds)

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncStore]:
        store = sim.connect()
        context = msgspec.structs.replace(
            store._context, cache=Cache(1 << 20), retention=retention or Retention()
        )
        async with AsyncStore(Slow(store._driver), context, sleep=sleep) as made:
            yield made

    return Place("simulated", opened, look)


class When(enum.Enum):
    """When a task is cancelled, of the moments at which it awaits something."""

    BEFORE = "before that came"
    AS_DONE = "when it had come, and the task did not know yet"


class CancelledAt(Generic[T]):
    """Awaits something, and cancels the task at its n-th wait, counted from 0."""

    def __init__(self, coroutine: Coroutine[Any, Any, T], number: int, when: When) -> None:
        self._coroutine = coroutine
        self._number = number
        self._when = when
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, T]:
        inner = self._coroutine.__await__()
        thrown: BaseException | None = None
        while True:
            try:
                waiting = next(inner) if thrown is None else inner.throw(thrown)
            except StopIteration as stop:
                result: T = stop.value
                return result
            if self.waits == self._number:
                self._cancel(waiting)
            self.waits += 1
            thrown = None
            try:
                yield waiting
            except BaseException as error:  # noqa: BLE001 - it is passed on
                thrown = error

    def _cancel(self, waiting: asyncio.Future[Any] | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        if waiting is None or self._when is When.BEFORE:
            task.cancel()
        else:
            waiting.add_done_callback(lambda _: task.cancel())


async def cancelled_at(coroutine: Coroutine[Any, Any, Any], number: int, when: When) -> bool:
    """Run in a task and cancel it at its n-th wait. False: it does not wait that often."""
    stepping = CancelledAt(coroutine, number, when)

    async def run() -> None:
        await stepping

    task = asyncio.ensure_future(run())
    try:
        await task
    except asyncio.CancelledError:
        return True
    assert stepping.waits <= number, "it was cancelled and went on"
    return False


class InThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in that loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)


class Blocking:
    """An asyncio driver as a blocking one, so that the driver contract can be run on it."""

    def __init__(self, driver: AsyncDriver, home: InThread) -> None:
        self._async = driver
        self._home = home
        self.where = driver.where
        self.kind = driver.kind
        self.binary_safe = driver.binary_safe

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        return self._home.run(self._async.execute(commands))

    def close(self) -> None:
        self._home.run(self._async.close())
