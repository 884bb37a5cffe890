"""Store and AsyncStore: every method is a call of `Maintenance`, run on a driver.

A call checks its arguments and returns an operation. A decorator below makes a method of it: `Store` runs the
operation and blocks, `AsyncStore` awaits it. The method keeps the signature and the docstring of the call.
The stores also own the driver: closing a store closes the driver and ends all followers.
"""

from __future__ import annotations

import weakref
from functools import wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar

import msgspec

from swapstore.calls import Calls
from swapstore.drivers.base import AsyncDriver, Driver, Endpoint
from swapstore.engine import arun, run
from swapstore.errors import InvalidInput, StoreClosed
from swapstore.maintenance import Maintenance
from swapstore.protocol import last_good
from swapstore.protocol.load import own
from swapstore.recovery import Patience
from swapstore.single_flight import AsyncSingleFlight, SingleFlight
from swapstore.subscription import AsyncForOnly, Follower, Subscription
from swapstore.turns import Turns

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Generator,
        Iterable,
        Iterator,
        Mapping,
    )
    from datetime import timedelta
    from types import TracebackType

    from swapstore.models import Snapshot
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation, Steps
    from swapstore.views import AsyncView, View

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
M = TypeVar("M")
D = TypeVar("D", bound=Endpoint)


# --- calls to methods -------------------------------------------------------------------------------


def _shown(method: M, call: Any, returned: str, store: str = "Store") -> M:
    """Let `help()` show what the method of a store returns, and not the operation that the call is.

    `returned`: with `{}` in place of the type of the operation's result, or of an item.
    """
    item = call.__annotations__["return"].partition("[")[2].removesuffix("]")
    shown: Any = FunctionType(call.__code__, call.__globals__, call.__name__, call.__defaults__)
    shown.__kwdefaults__ = call.__kwdefaults__
    shown.__annotations__ = {**call.__annotations__, "return": returned.format(item)}
    changed: Any = method
    changed.__qualname__ = f"{store}.{call.__name__}"  # as in the warning about a forgotten await
    changed.__annotations__ = shown.__annotations__
    changed.__wrapped__ = shown
    return method


def blocking(call: Callable[Concatenate[C, P], Operation[T]]) -> Callable[Concatenate[Any, P], T]:
    """Make a method of `Store` that runs a call to its end."""

    @wraps(call)
    def method(self: Store, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(call(self._calls, *args, **kwargs))  # type: ignore[arg-type]

    return _shown(method, call, "{}")  # type: ignore[return-value]


def iterating(call: Callable[Concatenate[C, P], Steps[T]]) -> Callable[Concatenate[Any, P], Iterator[T]]:
    """Make a method of `Store` that iterates over the items of a call, step by step."""

    @wraps(call)
    def method(self: Store, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        self._refuse_if_closed()
        return self._iterate(call(self._calls, *args, **kwargs))  # type: ignore[arg-type]

    return _shown(method, call, "Iterator[{}]")  # type: ignore[return-value]


def awaiting(
    call: Callable[Concatenate[C, P], Operation[T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Make a method of `AsyncStore` that awaits a call to its end."""

    @wraps(call)
    async def method(self: AsyncStore, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(call(self._calls, *args, **kwargs))  # type: ignore[arg-type]

    return _shown(method, call, "{}", "AsyncStore")  # type: ignore[return-value]


def aiterating(
    call: Callable[Concatenate[C, P], Steps[T]],
) -> Callable[Concatenate[Any, P], AsyncIterator[T]]:
    """Make a method of `AsyncStore` that iterates over the items of a call, step by step."""

    @wraps(call)
    def method(self: AsyncStore, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        self._refuse_if_closed()
        return _Items(call.__name__, self._run, call(self._calls, *args, **kwargs))  # type: ignore[arg-type]

    return _shown(method, call, "AsyncIterator[{}]", "AsyncStore")  # type: ignore[return-value]


def sharing(
    call: Callable[Concatenate[Calls, P], Operation[T]],
) -> Callable[Concatenate[Any, P], T]:
    """Make a method of `Store` that reads: from the cache, or with one load for concurrent callers.

    The load asks the store, whatever staleness each caller allows: those who allow none get its result too.
    A caller that names a `min_version` loads by itself: another one's load may find an older version.
    Callers who have something to serve in an outage share loads with each other: they have no patience.
    Each caller gets a snapshot of its own, because its labels can be changed, and decodes it to its own type.
    """

    @wraps(call)
    def method(self: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        self._refuse_if_closed()
        found: Snapshot | None = self._calls.remembered(*args, **kwargs)
        if found is not None:
            return found
        if kwargs.get("min_version"):
            return self._run(call(self._calls, *args, **kwargs))
        dataset: Any = args[0] if args else kwargs["dataset"]
        terms = self._calls.terms(kwargs.get("stale_if_error"), kwargs.get("max_age"))
        if terms is None:
            found = self._flights.share(dataset, lambda: self._run(self._calls.read_latest(dataset)))
            found = None if found is None else own(found)
        else:
            key, load = last_good.shared(self._context, dataset, terms)
            outcome = self._flights.share(key, lambda: self._run(load()))
            found = last_good.shared_answer(self._context, dataset, outcome, terms)
        wanted = kwargs.get("type")
        return found if wanted is None else self._calls.typed(dataset, found, wanted)

    return _shown(method, call, "{}")  # type: ignore[return-value]


def asharing(
    call: Callable[Concatenate[Calls, P], Operation[T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """Make a method of `AsyncStore` that reads, like `sharing`."""

    @wraps(call)
    async def method(self: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        self._refuse_if_closed()
        found: Snapshot | None = self._calls.remembered(*args, **kwargs)
        if found is not None:
            return found
        if kwargs.get("min_version"):
            return await self._run(call(self._calls, *args, **kwargs))
        dataset: Any = args[0] if args else kwargs["dataset"]
        terms = self._calls.terms(kwargs.get("stale_if_error"), kwargs.get("max_age"))
        if terms is None:
            found = await self._flights.share(dataset, lambda: self._run(self._calls.read_latest(dataset)))
            found = None if found is None else own(found)
        else:
            key, load = last_good.shared(self._context, dataset, terms)
            outcome = await self._flights.share(key, lambda: self._run(load()))
            found = last_good.shared_answer(self._context, dataset, outcome, terms)
        wanted = kwargs.get("type")
        return found if wanted is None else self._calls.typed(dataset, found, wanted)

    return _shown(method, call, "{}", "AsyncStore")  # type: ignore[return-value]


def following(
    call: Callable[Concatenate[Calls, P], Steps[T]],
) -> Callable[Concatenate[Any, P], Generator[T, None, None]]:
    """Make a method of `Store` that finds its starting point at once, and then iterates without an end."""

    @wraps(call)
    def method(self: Store, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        steps = call(self._calls, *args, **kwargs)
        self._run(steps.step())  # at once: the iterator must return what is published after this call
        return self._follow(steps)

    return _shown(method, call, "Generator[{}, None, None]")  # type: ignore[return-value]


def afollowing(
    call: Callable[Concatenate[Calls, P], Steps[T]],
) -> Callable[Concatenate[Any, P], Follower[T]]:
    """Make a method of `AsyncStore` that iterates without an end. It starts when it is first awaited."""

    @wraps(call)
    def method(self: Any, *args: P.args, **kwargs: P.kwargs) -> Follower[T]:
        self._refuse_if_closed()
        follower: Follower[T] = Follower(self, call.__name__, call(self._calls, *args, **kwargs))
        self._followers.add(follower)
        return follower

    return _shown(method, call, "Follower[{}]", "AsyncStore")  # type: ignore[return-value]


# --- the stores -------------------------------------------------------------------------------------


class _BaseStore(Generic[D]):
    """What both stores have in common: drivers, a context and the calls on it, and the closed flag.

    `replicas`: the driver for reads that a replica may answer; None: the primary answers all.
    """

    _name = ""

    def __init__(self, driver: D, context: Context, replicas: D | None = None) -> None:
        self._driver = driver
        self._replicas = replicas
        self._context = context = msgspec.structs.replace(context, where=driver.where)
        self._calls = Maintenance(context, driver.kind)
        self._turns = Turns()
        self._patience = Patience(context.policy.patience_s)
        self._closed = False

    def __repr__(self) -> str:
        return f"<{self._name} {self.where}, namespace {self.namespace!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {self._name} cannot be pickled or copied, because it has connections: connect in each process"
        )

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


class Store(_BaseStore[Driver]):
    """The datasets in one namespace of one store. `swapstore.connect` makes it. It is a context manager.

    Threads may share a store. Every method raises `InvalidInput` for arguments that it cannot use (then
    nothing was written), `Unavailable` or a subclass if the server or file cannot serve now, `Misconfigured`
    or a subclass if it refuses or cannot do what is needed, and `Damaged` or a subclass if what is stored is
    not what swapstore wrote. After `close`, methods raise `StoreClosed`.
    """

    _name = "swapstore.Store"

    def __init__(self, driver: Driver, context: Context, replicas: Driver | None = None) -> None:
        super().__init__(driver, context, replicas)
        self._flights: SingleFlight[Any] = SingleFlight()
        self._subscriptions: set[Subscription] = set()
        self._views: set[View] = set()

    publish = blocking(Calls.publish)
    publish_group = blocking(Calls.publish_group)
    publish_many = blocking(Calls.publish_many)
    published = blocking(Calls.published)
    confirm = blocking(Calls.confirm)

    read_latest = sharing(Calls.read_latest)
    read_group = blocking(Calls.read_group)
    read_latest_many = blocking(Calls.read_latest_many)
    read = blocking(Calls.read)
    history = iterating(Calls.history)
    follow = following(Calls.follow)
    follow_many = following(Calls.follow_many)
    datasets = blocking(Calls.datasets)
    status = blocking(Calls.status)
    health = blocking(Maintenance.health)

    put_live = blocking(Calls.put_live)
    read_live = blocking(Calls.read_live)

    pin = blocking(Maintenance.pin)
    unpin = blocking(Maintenance.unpin)
    rollback = blocking(Maintenance.rollback)

    prune = blocking(Maintenance.prune)
    recompress = blocking(Maintenance.recompress)
    erase = blocking(Maintenance.erase)
    drop = blocking(Maintenance.drop)
    verify = iterating(Maintenance.verify)
    repair = blocking(Maintenance.repair)
    backup = blocking(Maintenance.backup)
    restore = blocking(Maintenance.restore)
    doctor = blocking(Maintenance.doctor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that the store opened, and end its followers. Closing twice does no harm."""
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.close()
        self._close_drivers()
        for view in list(self._views):
            view.close()

    def view(
        self,
        datasets: Iterable[str] | None = None,
        *,
        prefix: str | None = None,
        poll: float | timedelta = 2.0,
        wait_ready: float | timedelta | None = None,
        on_change: Callable[[Mapping[str, Snapshot | None]], object] | None = None,
    ) -> View:
        """Keep datasets in memory, up to date with what `read_latest` serves. Use it in a with statement.

            with store.view(["mena", "europe"]) as view:
                view["mena"]  # Snapshot | None, without I/O

        `datasets` are names, published or not. `prefix`, in their place: all datasets whose names begin with
        it, those that are published later included. A thread (a task for asyncio) and one connection keep all
        of them up to date. On Redis and Valkey a hint brings a change within milliseconds; `poll` (seconds,
        or a timedelta) is the longest time until a change is seen on other stores, or if a hint was lost.

        `wait_ready`: how long to wait for the first load, in seconds or a timedelta, and then go on without
        it, while the view tries on; 0: do not wait. Default: load at once, and raise what `read_latest`
        would.

        `on_change` is called in that thread with a mapping of datasets to their new snapshots, at the first
        load too. For asyncio it may be a coroutine function. What it raises is logged.
        """
        self._refuse_if_closed()
        from swapstore.views import View  # noqa: PLC0415 - a producer has none

        return View(self, datasets, prefix=prefix, poll=poll, wait_ready=wait_ready, on_change=on_change)

    def _close_drivers(self) -> None:
        try:
            self._driver.close()
        finally:
            if self._replicas is not None:
                self._replicas.close()

    def _run(self, operation: Operation[T]) -> T:
        self._refuse_if_closed()
        ctx = self._context
        return run(
            operation,
            self._driver,
            ctx.clock.sleep,
            turns=self._turns,
            tally=ctx.tally(),
            total_s=ctx.policy.total_s,
            patience=self._patience,
            replicas=self._replicas,
        )

    def _iterate(self, steps: Steps[T]) -> Iterator[T]:
        while (items := self._run(steps.step())) is not None:
            yield from items

    def _follow(self, steps: Steps[T]) -> Generator[T, None, None]:
        """Iterate until the store is closed. Raises `StoreClosed` if it was closed before the first item."""
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
                self._close_drivers()  # again: a step that was under way may have opened a connection

    def _next(self, steps: Steps[T], subscription: Subscription) -> list[T]:
        try:
            return (
                run(steps.step(), self._driver, self._context.clock.sleep, listen=subscription.listen) or []
            )
        except Exception:
            if self._is_closed():
                return []  # the error comes from closing the connections
            raise

    def _is_closed(self) -> bool:
        """Whether the store is closed. A method, not a local: another thread may close it at any time."""
        return self._closed


class AsyncStore(_BaseStore[AsyncDriver]):
    """A `Store` for asyncio: the same methods, awaited. `swapstore.aio.connect` makes it.

    It is an asynchronous context manager. The tasks of one event loop may share it. A call can be cancelled
    at any moment: it leaves what a process leaves that is killed there, and the store can still be used. A
    publish that was cancelled may be committed or not: publish again with its `id`.

    Every method raises the errors of the same method of `Store`.
    """

    _name = "swapstore.aio.AsyncStore"

    def __init__(
        self,
        driver: AsyncDriver,
        context: Context,
        replicas: AsyncDriver | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        import asyncio  # noqa: PLC0415 - a blocking program does not need it

        super().__init__(driver, context, replicas)
        self._sleep: Callable[[float], Awaitable[None]] = sleep or asyncio.sleep
        self._flights: AsyncSingleFlight[Any] = AsyncSingleFlight()
        self._followers: weakref.WeakSet[Follower[Any]] = weakref.WeakSet()
        self._views: set[AsyncView] = set()

    publish = awaiting(Calls.publish)
    publish_group = awaiting(Calls.publish_group)
    publish_many = awaiting(Calls.publish_many)
    published = awaiting(Calls.published)
    confirm = awaiting(Calls.confirm)

    read_latest = asharing(Calls.read_latest)
    read_group = awaiting(Calls.read_group)
    read_latest_many = awaiting(Calls.read_latest_many)
    read = awaiting(Calls.read)
    history = aiterating(Calls.history)
    follow = afollowing(Calls.follow)
    follow_many = afollowing(Calls.follow_many)
    datasets = awaiting(Calls.datasets)
    status = awaiting(Calls.status)
    health = awaiting(Maintenance.health)

    put_live = awaiting(Calls.put_live)
    read_live = awaiting(Calls.read_live)

    pin = awaiting(Maintenance.pin)
    unpin = awaiting(Maintenance.unpin)
    rollback = awaiting(Maintenance.rollback)

    prune = awaiting(Maintenance.prune)
    recompress = awaiting(Maintenance.recompress)
    erase = awaiting(Maintenance.erase)
    drop = awaiting(Maintenance.drop)
    verify = aiterating(Maintenance.verify)
    repair = awaiting(Maintenance.repair)
    backup = awaiting(Maintenance.backup)
    restore = awaiting(Maintenance.restore)
    doctor = awaiting(Maintenance.doctor)

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
        """Close the connections that the store opened, and end its followers. Closing twice does no harm."""
        self._closed = True
        for follower in list(self._followers):
            await follower.aclose()
        for view in list(self._views):
            await view.close()
        try:
            await self._driver.close()
        finally:
            if self._replicas is not None:
                await self._replicas.close()

    def view(
        self,
        datasets: Iterable[str] | None = None,
        *,
        prefix: str | None = None,
        poll: float | timedelta = 2.0,
        wait_ready: float | timedelta | None = None,
        on_change: Callable[[Mapping[str, Snapshot | None]], object] | None = None,
    ) -> AsyncView:
        """See `Store.view`."""
        self._refuse_if_closed()
        from swapstore.views import AsyncView  # noqa: PLC0415 - a producer has none

        return AsyncView(self, datasets, prefix=prefix, poll=poll, wait_ready=wait_ready, on_change=on_change)

    view.__doc__ = Store.view.__doc__

    async def _run(self, operation: Operation[T]) -> T:
        self._refuse_if_closed()
        ctx = self._context
        return await arun(
            operation,
            self._driver,
            self._sleep,
            turns=self._turns,
            tally=ctx.tally(),
            total_s=ctx.policy.total_s,
            patience=self._patience,
            replicas=self._replicas,
        )


class _Items(AsyncForOnly, Generic[T]):
    """Iterates over the items of steps.

    It is not an async generator, because a cancelled generator ends as if there were no more items. A step
    that did not end has lost its position, so this iteration cannot go on, and raises `InvalidInput`.
    """

    def __init__(
        self,
        name: str,
        run_one: Callable[[Operation[list[T] | None]], Awaitable[list[T] | None]],
        steps: Steps[T],
    ) -> None:
        self._what = f"the iterator that AsyncStore.{name} returns"
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
                raise InvalidInput("this iteration was interrupted, or another task uses it; begin a new one")
            self._under_way = True
            items = await self._run(self._steps.step())
            self._under_way = False
            self._over = items is None
            self._ready = (items or [])[::-1]
        return self._ready.pop()
