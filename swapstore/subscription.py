"""Subscriptions: how followers and views wait for the next commit.

Each of them listens to hints, the notifications that a dataset has a new version. A wait ends when a hint
comes, when its time is over, or when the store is closed. A driver without hints lets each wait take its full
time: the follower polls.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from swapstore.engine import arun

if TYPE_CHECKING:
    import asyncio

    from swapstore.drivers.base import AsyncDriver, AsyncListener, Driver, Listener
    from swapstore.protocol.operation import Listen, Steps
    from swapstore.store import AsyncStore

T = TypeVar("T")


class NullListener:
    """The listener for a driver without hints: each wait takes its full time."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def wait(self, seconds: float) -> list[str]:
        """Wait for this time, or until `close`."""
        self._closed.wait(seconds)
        return []

    def close(self) -> None:
        """End the waits."""
        self._closed.set()


class Subscription:
    """The subscription of one blocking follower or view. It begins with the first wait."""

    def __init__(self, driver: Driver) -> None:
        self._driver: Any = driver
        self._listener: Listener | None = None
        self._closed = False

    def listen(self, step: Listen) -> list[str]:
        """Wait until a hint comes, the time is over, or the subscription is closed."""
        listener = self._listener
        if listener is None:
            has_hints = hasattr(self._driver, "listen")
            listener = self._driver.listen(step.channels, step.pattern) if has_hints else NullListener()
            self._listener = listener
            if self._closed:  # by another thread, since this call began
                listener.close()
        return listener.wait(step.seconds)

    def close(self) -> None:
        """End the subscription, and a wait that is under way. Any thread may call it."""
        self._closed = True
        listener = self._listener
        if listener is not None:
            listener.close()


# --- asyncio ------------------------------------------------------------------------------------------


def lazy_asyncio() -> Any:
    """Import asyncio at first use: it takes 40 ms, and a blocking program does not need it."""
    return import_module("asyncio")


class AsyncForOnly:
    """Says what to write where a program awaits an iteration, or iterates over it with a plain `for`."""

    _what = ""

    def __repr__(self) -> str:
        return f"<{self._what}: iterate over it with `async for`>"

    if not TYPE_CHECKING:  # a type checker refuses both by itself

        def __iter__(self) -> NoReturn:
            raise TypeError(f"{self._what} cannot be iterated over with `for`: write `async for`")

        def __await__(self) -> NoReturn:
            raise TypeError(f"{self._what} is not awaited: iterate over it with `async for`")


class AsyncSubscription:
    """The subscription of one follower or view for asyncio. It begins with the first wait."""

    def __init__(self, driver: AsyncDriver) -> None:
        self._driver: Any = driver
        self._listener: AsyncListener | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = lazy_asyncio().Event()

    async def listen(self, step: Listen) -> list[str]:
        """Wait until a hint comes, the time is over, or `end`."""
        if self._listener is None and hasattr(self._driver, "listen"):
            self._loop = lazy_asyncio().get_running_loop()
            self._listener = self._driver.listen(step.channels, step.pattern)
        waiting = lazy_asyncio().ensure_future(
            self._listener.wait(step.seconds) if self._listener else lazy_asyncio().sleep(step.seconds)
        )
        closing = lazy_asyncio().ensure_future(self._closing.wait())
        try:
            await lazy_asyncio().wait({waiting, closing}, return_when=lazy_asyncio().FIRST_COMPLETED)
            return (waiting.result() or []) if waiting.done() else []
        finally:
            waiting.cancel()
            closing.cancel()
            await lazy_asyncio().gather(waiting, closing, return_exceptions=True)

    def end(self) -> None:
        """End a wait that is under way, and all later ones."""
        self._closing.set()

    def drop(self) -> None:
        """Stop listening, without waiting for anything."""
        if self._listener is not None:
            self._listener.drop()

    def __del__(self) -> None:
        # The garbage collector may run this in another thread.
        if self._listener is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._listener.drop)


class Follower(AsyncForOnly, Generic[T]):
    """Iterates over the items of `follow` until its store is closed. It has a subscription of its own.

    Each step is a task of its own, which goes on if the task that awaits it is cancelled. So `anext` can have
    a time-out, and no item that comes during it is lost.
    """

    def __init__(self, store: AsyncStore, name: str, steps: Steps[T]) -> None:
        self._what = f"the iterator that AsyncStore.{name} returns"
        self._store = store
        self._steps = steps
        self._ready: list[T] = []
        self._step: asyncio.Task[list[T]] | None = None
        self._begun = self._placed = self._over = False
        self._subscription = AsyncSubscription(store._driver)  # noqa: SLF001

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if not self._begun:
            self._store._refuse_if_closed()  # noqa: SLF001
        self._begun = True
        while not self._is_over():
            if self._ready:
                return self._ready.pop()
            self._step = step = self._step or lazy_asyncio().ensure_future(self._take_step())
            try:
                await lazy_asyncio().shield(step)
            except Exception:
                self._over = True
                raise
            if self._step is step:
                self._step, self._ready = None, step.result()[::-1]
        raise StopAsyncIteration

    def _is_over(self) -> bool:
        return self._over or self._store._closed  # noqa: SLF001

    async def _take_step(self) -> list[T]:
        store = self._store
        # Later steps have a patience of their own, which does not end.
        patience = None if self._placed else store._patience  # noqa: SLF001
        try:
            step = self._steps.step()
            sleep = store._sleep  # noqa: SLF001
            listen = self._subscription.listen
            items = await arun(step, store._driver, sleep, listen=listen, patience=patience)  # noqa: SLF001
        except Exception:
            if store._closed:  # noqa: SLF001
                return []  # the error comes from closing the connections
            raise
        self._placed = True
        return items or []

    async def aclose(self) -> None:
        """End the iteration, for a task that awaits its next item too. Closing twice does no harm.

        `contextlib.aclosing` calls it at the end of a block.
        """
        self._over = True
        self._subscription.end()
        if self._step is not None and not self._step.done():  # it may be of a loop that is closed
            await lazy_asyncio().wait({self._step})
        self._subscription.drop()
