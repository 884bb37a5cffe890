"""How calls become methods: run at once, or awaited; and the life of a driver and a context."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from swapstore.calls import Calls
from swapstore.drivers.base import AsyncDriver, Driver, Place
from swapstore.engine import arun, run
from swapstore.errors import InvalidInput, StoreClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from types import TracebackType

    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation, Steps

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
D = TypeVar("D", bound=Place)


def blocking(call: Callable[Concatenate[C, P], Operation[T]]) -> Callable[Concatenate[Any, P], T]:
    """Make a method that runs a call to its end."""

    @wraps(call)
    def method(self: Face, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(call(self._calls, *args, **kwargs))  # type: ignore[arg-type]

    return method  # type: ignore[return-value]


def iterating(call: Callable[Concatenate[C, P], Steps[T]]) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """Make a method that iterates over what a call gives step by step."""

    @wraps(call)
    def method(self: Face, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        self._refuse_if_closed()
        return self._iterate(call(self._calls, *args, **kwargs))  # type: ignore[arg-type]

    return method  # type: ignore[return-value]


def awaiting(
    call: Callable[Concatenate[C, P], Operation[T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Make a method that, awaited, runs a call to its end."""

    @wraps(call)
    async def method(self: AsyncFace, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(call(self._calls, *args, **kwargs))  # type: ignore[arg-type]

    return method  # type: ignore[return-value]


def aiterating(
    call: Callable[Concatenate[C, P], Steps[T]],
) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """Make a method that asynchronously iterates over what a call gives step by step."""

    @wraps(call)
    def method(self: AsyncFace, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        self._refuse_if_closed()
        return _Items(self._run, call(self._calls, *args, **kwargs))  # type: ignore[arg-type]

    return method  # type: ignore[return-value]


class _Client(Generic[D]):
    """What both faces have: a driver, a context, the calls on it, and whether it is closed."""

    _name = ""

    def __init__(self, driver: D, context: Context) -> None:
        self._driver = driver
        self._context = context
        self._calls = Calls(context, driver.kind)
        self._closed = False

    def __repr__(self) -> str:
        return f"<{self._name} {self.where}, namespace {self.namespace!r}>"

    @property
    def where(self) -> str:
        """The store's address, for messages: without user, password and options."""
        return self._driver.where

    @property
    def namespace(self) -> str:
        """The first part of every key."""
        return self._context.keys.namespace

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed; connect() makes a new one")


class Face(_Client[Driver]):
    """A driver and a context, and the life of both."""

    _name = "swapstore.Store"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that the store opened. Closing twice is harmless."""
        self._closed = True
        self._driver.close()

    def _run(self, operation: Operation[T]) -> T:
        self._refuse_if_closed()
        return run(operation, self._driver, self._context.clock.sleep)

    def _iterate(self, steps: Steps[T]) -> Iterator[T]:
        while (items := self._run(steps.step())) is not None:
            yield from items


class AsyncFace(_Client[AsyncDriver]):
    """A driver for asyncio and a context, and the life of both. `sleep` lets the waits of operations pass."""

    _name = "swapstore.aio.AsyncStore"

    def __init__(
        self, driver: AsyncDriver, context: Context, *, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        super().__init__(driver, context)
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections that the store opened. Closing twice is harmless."""
        self._closed = True
        await self._driver.close()

    async def _run(self, operation: Operation[T]) -> T:
        self._refuse_if_closed()
        return await arun(operation, self._driver, self._sleep)


class _Items(Generic[T]):
    """Iterates over what steps give.

    Not an async generator: one of those, once cancelled, ends as if that had been all. A step that did not
    end has lost its place, so here the iteration cannot go on, and says so.
    """

    def __init__(
        self, run_one: Callable[[Operation[list[T] | None]], Awaitable[list[T] | None]], steps: Steps[T]
    ) -> None:
        self._run = run_one
        self._steps = steps
        self._ready: list[T] = []
        self._over = False
        self._under_way = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            if self._under_way:
                raise InvalidInput(
                    "this iteration was interrupted, or another task is at it; begin a new one"
                )
            self._under_way = True
            items = await self._run(self._steps.step())
            self._under_way = False
            self._over = items is None
            self._ready = (items or [])[::-1]
        return self._ready.pop()
