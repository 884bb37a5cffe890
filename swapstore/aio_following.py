"""How `follow` becomes a method of the awaited store: an iteration that waits, and ends with its store."""

from __future__ import annotations

import asyncio
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from swapstore.engine import arun

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from swapstore.calls import Calls
    from swapstore.drivers.base import AsyncListener
    from swapstore.face import AsyncFace
    from swapstore.protocol.operation import Listen, Steps

P = ParamSpec("P")
T = TypeVar("T")


def afollowing(
    call: Callable[Concatenate[Calls, P], Steps[T]],
) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """Make a method that iterates over what comes, from the place that it finds when it is first awaited."""

    @wraps(call)
    def method(self: Any, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        self._refuse_if_closed()
        follower: Follower[T] = Follower(self, call(self._calls, *args, **kwargs))
        self._followers.add(follower)
        return follower

    return method  # type: ignore[return-value]


class Follower(Generic[T]):
    """Iterates over what comes, until its store is closed.

    Each step is a task of its own, which goes on when who waits for it is cancelled: so `anext` may be given
    a time-out, and nothing that came meanwhile is lost.
    """

    def __init__(self, store: AsyncFace, steps: Steps[T]) -> None:
        self._store = store
        self._steps = steps
        self._ready: list[T] = []
        self._step: asyncio.Task[list[T]] | None = None
        self._begun = self._over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: AsyncListener | None = None
        self._closing = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if not self._begun:
            self._store._refuse_if_closed()  # noqa: SLF001
        self._begun = True
        while not self._is_over():
            if self._ready:
                return self._ready.pop()
            self._step = step = self._step or asyncio.ensure_future(self._take_step())
            try:
                await asyncio.shield(step)
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
        try:
            return await arun(self._steps.step(), store._driver, store._sleep, self._listen) or []  # noqa: SLF001
        except Exception:
            if store._closed:  # noqa: SLF001
                return []  # its connections were closed under our hands
            raise

    async def _listen(self, step: Listen) -> None:
        """Let a wait pass, or less of it when a hint comes, or the store is closed."""
        driver: Any = self._store._driver  # noqa: SLF001
        if self._listener is None and hasattr(driver, "listen"):
            self._loop, self._listener = asyncio.get_running_loop(), driver.listen(step.channel)
        hearing = asyncio.ensure_future(
            self._listener.wait(step.seconds) if self._listener else asyncio.sleep(step.seconds)
        )
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({hearing, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hearing.cancel()
            closing.cancel()
            await asyncio.gather(hearing, closing, return_exceptions=True)

    async def close(self) -> None:
        """End the iteration: who waits for it is told that it is over."""
        self._over = True
        self._closing.set()
        if self._step is not None:
            await asyncio.wait({self._step})
        if self._listener is not None:
            self._listener.drop()

    def __del__(self) -> None:
        # Perhaps in another thread: whatever collects garbage.
        if self._listener is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._listener.drop)
