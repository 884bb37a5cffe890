"""What failed, and where: errors that name the dataset, and events for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from swapstore import arguments
from swapstore.errors import (
    InvalidInput,
    LeaseLost,
    OutcomeUnknown,
    Rejected,
    StoreClosed,
    SwapstoreError,
    UnderReplicated,
)
from swapstore.events import CallFailed

if TYPE_CHECKING:
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation, Steps

T = TypeVar("T")

NO_DATASET: Any = object()


class about:  # noqa: N801 - it reads as a sentence: with about(context, "publish", dataset) as name
    """Check a dataset's name, set it on each error that passes through, and emit an event for the error.

    An error of a publish also says if anything was published. `NO_DATASET`: the call is about none, or all.
    """

    __slots__ = ("_began", "_call", "_context", "_name")

    def __init__(self, context: Context, call: str, dataset: Any) -> None:
        self._context = context
        self._call = call
        self._name = ""
        self._began = 0.0 if context.hook is None else context.clock.monotonic()
        if dataset is not NO_DATASET:
            try:
                self._name = arguments.dataset(dataset)
            except InvalidInput as error:
                error.published = False if call == "publish" else None
                self._emit(error)
                raise

    def __enter__(self) -> str:
        return self._name

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SwapstoreError):
            if error.dataset is None and self._name:
                error.dataset = self._name
            if self._call == "publish" and not isinstance(
                error, OutcomeUnknown | LeaseLost | UnderReplicated
            ):
                error.published = False
            if not isinstance(error, Rejected | StoreClosed):  # a rejection has an event of its own
                self._emit(error)

    def _emit(self, error: SwapstoreError) -> None:
        if self._context.hook is not None:
            elapsed_s = self._context.clock.monotonic() - self._began
            failed = CallFailed(
                dataset=self._name, call=self._call, error=type(error).__name__, elapsed_s=elapsed_s
            )
            self._context.emit(failed)


class Named(Generic[T]):
    """Steps whose errors name the dataset, if they are about one."""

    def __init__(self, context: Context, call: str, dataset: Any, steps: Steps[T]) -> None:
        self._context = context
        self._call = call
        self._dataset = dataset
        self._steps = steps

    def step(self) -> Operation[list[T] | None]:
        """Take one step."""
        with about(self._context, self._call, self._dataset):
            return (yield from self._steps.step())
