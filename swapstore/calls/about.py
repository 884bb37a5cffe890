"""Errors say which dataset they are about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from swapstore import checks
from swapstore.errors import SwapstoreError

if TYPE_CHECKING:
    from swapstore.protocol.operation import Operation, Steps

T = TypeVar("T")


class about:  # noqa: N801 - it reads as a sentence: with about(dataset) as name
    """Check a dataset's name, and put it on every error that passes."""

    __slots__ = ("_name",)

    def __init__(self, dataset: Any) -> None:
        self._name = checks.dataset(dataset)

    def __enter__(self) -> str:
        return self._name

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SwapstoreError) and error.dataset is None:
            error.dataset = self._name


class Named(Generic[T]):
    """Steps whose errors say which dataset they are about."""

    def __init__(self, dataset: str, steps: Steps[T]) -> None:
        self._dataset = dataset
        self._steps = steps

    def step(self) -> Operation[list[T] | None]:
        """Take a step."""
        with about(self._dataset):
            return (yield from self._steps.step())
