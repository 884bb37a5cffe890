"""How `follow` becomes a method: an iteration that waits, and that ends when its store is closed.

Each follower hears hints with ears of its own. A store that is closed wakes them all.
"""

from __future__ import annotations

import threading
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from swapstore.engine import arun, run
from swapstore.face import Face

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Generator

    from swapstore.calls import Calls
    from swapstore.drivers.base import AsyncListener, Driver, Listener
    from swapstore.face import AsyncFace
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Listen, Steps


P = ParamSpec("P")
T = TypeVar("T")


def following(
    call: Callable[Concatenate[Calls, P], Steps[T]],
) -> Callable[Concatenate[Any, P], Generator[T, None, None]]:
    """Make a method that finds the place to begin at, and then iterates over what comes."""

    @wraps(call)
    def method(self: FollowedFace, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        steps = call(self._calls, *args, **kwargs)
        self._run(steps.step())  # at once: what is published after the call must come
        return self._follow(steps)

    return method  # type: ignore[return-value]


class FollowedFace(Face):
    """A face whose followers end when it is closed."""

    def __init__(self, driver: Driver, context: Context) -> None:
        super().__init__(driver, context)
        self._ears: set[Subscription] = set()

    def close(self) -> None:
        """Close the connections that the store opened, and end its followers. Closing twice is harmless."""
        self._closed = True
        for ears in list(self._ears):
            ears.close()
        super().close()

    def _follow(self, steps: Steps[T]) -> Generator[T, None, None]:
        """Iterate until the store is closed. One that was closed before the first item is an error."""
        self._refuse_if_closed()
        ears = Subscription(self._driver)
        self._ears.add(ears)
        try:
            while not self._is_closed():
                for item in self._next(steps, ears):
                    yield item
                    if self._is_closed():
                        return
        finally:
            self._ears.discard(ears)
            ears.close()
            if self._is_closed():
                self._driver.close()  # what was under way meanwhile may have connected anew

    def _next(self, steps: Steps[T], ears: Subscription) -> list[T]:
        try:
            return run(steps.step(), self._driver, self._context.clock.sleep, ears.listen) or []
        except Exception:
            if self._is_closed():
                return []  # its connections were closed under our hands
            raise

    def _is_closed(self) -> bool:
        """Ask anew each time: another thread may close it."""
        return self._closed


class Silence:
    """A listener where there are no hints: it lets the time pass."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def wait(self, seconds: float) -> None:
        """Let the time pass, or less when it is closed."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """End the waits."""
        self._closed.set()


class Subscription:
    """What one follower hears with. It listens from its first wait on."""

    def __init__(self, driver: Driver) -> None:
        self._driver: Any = driver
        self._listener: Listener | None = None
        self._closed = False

    def listen(self, step: Listen) -> None:
        """Let a wait pass."""
        if self._listener is None:
            can_listen = hasattr(self._driver, "listen")
            self._listener = self._driver.listen(step.channel) if can_listen else Silence()
            if self._closed:  # meanwhile, by another thread
                self._listener.close()
        self._listener.wait(step.seconds)

    def close(self) -> None:
        """Hear no more. Any thread may call it."""
        self._closed = True
        listener = self._listener
        if listener is not None:
            listener.close()


# --- aio_following -----------------------------------------------------------------------------
#
# How `follow` becomes a method of the awaited store: an iteration that waits, and ends with its store.


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


def _asyncio() -> Any:
    """Import asyncio when it is first needed: it takes 40 ms, and a program that only blocks needs none."""
    return import_module("asyncio")


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
        self._closing = _asyncio().Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if not self._begun:
            self._store._refuse_if_closed()  # noqa: SLF001
        self._begun = True
        while not self._is_over():
            if self._ready:
                return self._ready.pop()
            self._step = step = self._step or _asyncio().ensure_future(self._take_step())
            try:
                await _asyncio().shield(step)
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
            self._loop, self._listener = _asyncio().get_running_loop(), driver.listen(step.channel)
        hearing = _asyncio().ensure_future(
            self._listener.wait(step.seconds) if self._listener else _asyncio().sleep(step.seconds)
        )
        closing = _asyncio().ensure_future(self._closing.wait())
        try:
            await _asyncio().wait({hearing, closing}, return_when=_asyncio().FIRST_COMPLETED)
        finally:
            hearing.cancel()
            closing.cancel()
            await _asyncio().gather(hearing, closing, return_exceptions=True)

    async def close(self) -> None:
        """End the iteration: who waits for it is told that it is over."""
        self._over = True
        self._closing.set()
        if self._step is not None:
            await _asyncio().wait({self._step})
        if self._listener is not None:
            self._listener.drop()

    def __del__(self) -> None:
        # Perhaps in another thread: whatever collects garbage.
        if self._listener is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._listener.drop)
