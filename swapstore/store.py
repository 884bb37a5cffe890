"""Store and AsyncStore: how a call becomes a method, run at once or awaited; and the life of a driver."""

from __future__ import annotations

import weakref
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from swapstore.calls import Calls
from swapstore.drivers.base import AsyncDriver, Driver, Endpoint
from swapstore.engine import arun, run
from swapstore.errors import InvalidInput, StoreClosed
from swapstore.protocol.load import own
from swapstore.single_flight import AsyncSingleFlight, SingleFlight
from swapstore.subscription import Follower, Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator
    from types import TracebackType

    from swapstore.models import Snapshot
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation, Steps

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
D = TypeVar("D", bound=Endpoint)


# --- from calls to methods --------------------------------------------------------------------------


def blocking(call: Callable[Concatenate[C, P], Operation[T]]) -> Callable[Concatenate[Any, P], T]:
    """Make a method that runs a call to its end."""

    @wraps(call)
    def method(self: Store, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(call(self._calls, *args, **kwargs))  # type: ignore[arg-type]

    return method  # type: ignore[return-value]


def iterating(call: Callable[Concatenate[C, P], Steps[T]]) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """Make a method that iterates over what a call gives step by step."""

    @wraps(call)
    def method(self: Store, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        self._refuse_if_closed()
        return self._iterate(call(self._calls, *args, **kwargs))  # type: ignore[arg-type]

    return method  # type: ignore[return-value]


def awaiting(
    call: Callable[Concatenate[C, P], Operation[T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Make a method that, awaited, runs a call to its end."""

    @wraps(call)
    async def method(self: AsyncStore, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(call(self._calls, *args, **kwargs))  # type: ignore[arg-type]

    return method  # type: ignore[return-value]


def aiterating(
    call: Callable[Concatenate[C, P], Steps[T]],
) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """Make a method that asynchronously iterates over what a call gives step by step."""

    @wraps(call)
    def method(self: AsyncStore, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        self._refuse_if_closed()
        return _Items(self._run, call(self._calls, *args, **kwargs))  # type: ignore[arg-type]

    return method  # type: ignore[return-value]


def sharing(
    call: Callable[Concatenate[Calls, P], Operation[Snapshot | None]],
) -> Callable[Concatenate[Any, P], Snapshot | None]:
    """Make a method of a read. Readers at the same time share a load, not what they are given."""

    @wraps(call)
    def method(self: Any, *args: P.args, **kwargs: P.kwargs) -> Snapshot | None:
        self._refuse_if_closed()
        found: Snapshot | None = self._calls.remembered(*args, **kwargs)
        if found is not None:
            return found
        dataset = args[0] if args else kwargs["dataset"]
        found = self._flights.share(dataset, lambda: self._run(call(self._calls, *args, **kwargs)))
        return None if found is None else own(found)

    return method  # type: ignore[return-value]


def asharing(
    call: Callable[Concatenate[Calls, P], Operation[Snapshot | None]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, Snapshot | None]]:
    """Make a method of a read that is awaited; otherwise like `sharing`."""

    @wraps(call)
    async def method(self: Any, *args: P.args, **kwargs: P.kwargs) -> Snapshot | None:
        self._refuse_if_closed()
        found: Snapshot | None = self._calls.remembered(*args, **kwargs)
        if found is not None:
            return found
        dataset = args[0] if args else kwargs["dataset"]
        found = await self._flights.share(dataset, lambda: self._run(call(self._calls, *args, **kwargs)))
        return None if found is None else own(found)

    return method  # type: ignore[return-value]


def following(
    call: Callable[Concatenate[Calls, P], Steps[T]],
) -> Callable[Concatenate[Any, P], Generator[T, None, None]]:
    """Make a method that finds the place to begin at, and then iterates over what comes."""

    @wraps(call)
    def method(self: Store, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        steps = call(self._calls, *args, **kwargs)
        self._run(steps.step())  # at once: what is published after the call must come
        return self._follow(steps)

    return method  # type: ignore[return-value]


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


# --- the stores -------------------------------------------------------------------------------------


class _Client(Generic[D]):
    """What both stores have: a driver, a context, the calls on it, and whether it is closed."""

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


class Store(_Client[Driver]):
    """Datasets in one namespace of one store. Made by `swapstore.connect`; also a context manager.

    A store may be shared by threads. Every method raises `InvalidInput` for arguments it cannot use (then
    nothing was written), `Unavailable` or one of its children when the server or file cannot serve, and
    `Damaged` or one of its children when what is stored is not what swapstore wrote.
    """

    _name = "swapstore.Store"

    def __init__(self, driver: Driver, context: Context) -> None:
        super().__init__(driver, context)
        self._flights: SingleFlight[Snapshot | None] = SingleFlight()
        self._subscriptions: set[Subscription] = set()

    publish = blocking(Calls.publish)
    publish_many = blocking(Calls.publish_many)
    confirm = blocking(Calls.confirm)

    read_latest = sharing(Calls.read_latest)
    read_latest_many = blocking(Calls.read_latest_many)
    read = blocking(Calls.read)
    history = iterating(Calls.history)
    follow = following(Calls.follow)
    datasets = blocking(Calls.datasets)
    status = blocking(Calls.status)

    put_live = blocking(Calls.put_live)
    read_live = blocking(Calls.read_live)

    pin = blocking(Calls.pin)
    unpin = blocking(Calls.unpin)
    rollback = blocking(Calls.rollback)

    prune = blocking(Calls.prune)
    verify = iterating(Calls.verify)
    repair = blocking(Calls.repair)
    doctor = blocking(Calls.doctor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, operation: Operation[T]) -> T:
        self._refuse_if_closed()
        return run(operation, self._driver, self._context.clock.sleep, tally=self._context.tally())

    def _iterate(self, steps: Steps[T]) -> Iterator[T]:
        while (items := self._run(steps.step())) is not None:
            yield from items

    def close(self) -> None:
        """Close the connections that the store opened, and end its followers. Closing twice is harmless."""
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.close()
        self._driver.close()

    def _follow(self, steps: Steps[T]) -> Generator[T, None, None]:
        """Iterate until the store is closed. One that was closed before the first item is an error."""
        self._refuse_if_closed()
        subscription = Subscription(self._driver)
        self._subscriptions.add(subscription)
        try:
            while not self._is_closed():
                for item in self._next(steps, subscription):
                    yield item
                    if self._is_closed():
                        return
        finally:
            self._subscriptions.discard(subscription)
            subscription.close()
            if self._is_closed():
                self._driver.close()  # what was under way meanwhile may have connected anew

    def _next(self, steps: Steps[T], subscription: Subscription) -> list[T]:
        try:
            return run(steps.step(), self._driver, self._context.clock.sleep, subscription.listen) or []
        except Exception:
            if self._is_closed():
                return []  # its connections were closed under our hands
            raise

    def _is_closed(self) -> bool:
        """Ask anew each time: another thread may close it."""
        return self._closed


class AsyncStore(_Client[AsyncDriver]):
    """A `Store` for asyncio: the same methods, awaited. Made by `swapstore.aio.connect`.

    It is an asynchronous context manager, and may be shared by the tasks of one event loop. Cancelling a call
    is safe at every moment: what it leaves is what a process leaves that is killed there, and the store can
    be used on. A publish that was cancelled may have been committed, or not: publish again with its `id`.

    Every method raises what that of `Store` raises.
    """

    _name = "swapstore.aio.AsyncStore"

    def __init__(
        self,
        driver: AsyncDriver,
        context: Context,
        *,
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        import asyncio  # noqa: PLC0415 - a program that only blocks does not need it

        super().__init__(driver, context)
        self._sleep: Callable[[float], Awaitable[None]] = sleep or asyncio.sleep
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
            if self._context.on_connect is not None:
                await self._run(self._context.on_connect(self._context))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections that the store opened, and end its followers. Closing twice is harmless."""
        self._closed = True
        for follower in list(self._followers):
            await follower.close()
        await self._driver.close()

    async def _run(self, operation: Operation[T]) -> T:
        self._refuse_if_closed()
        return await arun(operation, self._driver, self._sleep, tally=self._context.tally())


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
