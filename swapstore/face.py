"""What every face of the library stands on: a driver, a context, and how an operation is run on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, TypeVar

from swapstore import checks
from swapstore.engine import run
from swapstore.errors import StoreClosed, SwapstoreError

if TYPE_CHECKING:
    from types import TracebackType

    from swapstore.drivers.base import Driver
    from swapstore.operations.context import Context
    from swapstore.operations.steps import Operation

T = TypeVar("T")


class Face:
    """A driver and a context, and the life of both."""

    def __init__(self, driver: Driver, context: Context) -> None:
        self._driver = driver
        self._context = context
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

    # --- inside ----------------------------------------------------------------------------------------

    def _run(self, operation: Operation[T]) -> T:
        return run(operation, self._driver, self._context.clock.sleep)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed; connect() makes a new one")

    def _about(self, dataset: str) -> _About:
        self._refuse_if_closed()
        return _About(checks.dataset(dataset))


class _About:
    """Puts the dataset's name on every error that passes."""

    __slots__ = ("_dataset",)

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset

    def __enter__(self) -> str:
        return self._dataset

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SwapstoreError) and error.dataset is None:
            error.dataset = self._dataset
