"""Errors say which dataset they are about."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from swapstore import checks
from swapstore.errors import SwapstoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swapstore.operations.steps import Operation, Steps

T = TypeVar("T")


@contextmanager
def about(dataset: Any) -> Iterator[str]:
    """Check a dataset's name, and put it on every error that passes."""
    name = checks.dataset(dataset)
    try:
        yield name
    except SwapstoreError as error:
        if error.dataset is None:
            error.dataset = name
        raise


class Named(Generic[T]):
    """Steps whose errors say which dataset they are about."""

    def __init__(self, dataset: str, steps: Steps[T]) -> None:
        self._dataset = dataset
        self._steps = steps

    def step(self) -> Operation[list[T] | None]:
        """Take a step."""
        with about(self._dataset):
            return (yield from self._steps.step())
