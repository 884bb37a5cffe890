"""How calls become methods: run at once, or awaited; and the life of a driver and a context."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import attrs

from swapstore.calls import Calls
from swapstore.engine import run
from swapstore.errors import StoreClosed
from swapstore.flights import Flights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from swapstore.drivers.base import Driver
    from swapstore.models import Snapshot
    from swapstore.operations.context import Context
    from swapstore.operations.steps import Operation, Steps

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")


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


def sharing(
    call: Callable[Concatenate[Calls, P], Operation[Snapshot | None]],
) -> Callable[Concatenate[Any, P], Snapshot | None]:
    """Make a method of a read: answered from memory if it may be, or else together with its like."""

    @wraps(call)
    def method(self: Face, *args: P.args, **kwargs: P.kwargs) -> Snapshot | None:
        self._refuse_if_closed()
        found: Snapshot | None = self._calls.remembered(*args, **kwargs)  # type: ignore[arg-type]
        if found is not None:
            return found
        dataset = str(args[0] if args else kwargs["dataset"])
        found = self._flights.share(dataset, lambda: self._run(call(self._calls, *args, **kwargs)))
        return None if found is None else attrs.evolve(found, labels=dict(found.labels))

    return method  # type: ignore[return-value]


class Face:
    """A driver and a context, and the life of both."""

    def __init__(self, driver: Driver, context: Context) -> None:
        self._driver = driver
        self._context = context
        self._calls = Calls(context, driver.kind)
        self._flights: Flights[Snapshot | None] = Flights()
        self._closed = False

    def __repr__(self) -> str:
        return f"<swapstore.Store {self.where}, namespace {self.namespace!r}>"

    @property
    def where(self) -> str:
        """The store's address, for messages: without user, password and options."""
        return self._driver.where

    @property
    def namespace(self) -> str:
        """The first part of every key."""
        return self._context.keys.namespace

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

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed; connect() makes a new one")
