"""Drivers that record or change what passes between a store and its real driver."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from swapstore import Store
from swapstore.cache import Cache
from swapstore.commands import Command, Swap
from swapstore.drivers.base import Driver, Listener
from swapstore.errors import ReplyLost
from swapstore.subscription import NullListener


class Meddler:
    """Records every batch; runs a planned function before or after the one with a given number (from 0).

    A planned function that raises makes the driver raise: before, so that nothing was sent; after, so that
    the reply is lost although everything was applied.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.where = driver.where
        self.kind = driver.kind
        self.binary_safe = driver.binary_safe
        self.batches: list[tuple[Command[Any], ...]] = []
        self._before: dict[int, Callable[[], object]] = {}
        self._after: dict[int, Callable[[], object]] = {}
        self._replies: dict[int, Callable[[list[Any]], list[Any]]] = {}
        self._between: dict[tuple[int, int], Callable[[], object]] = {}

    def before(self, number: int, plan: Callable[[], object]) -> None:
        self._before[number] = plan

    def after(self, number: int, plan: Callable[[], object]) -> None:
        self._after[number] = plan

    def between(self, number: int, index: int, plan: Callable[[], object]) -> None:
        """Plan something right before one command of a batch; its commands are then sent one by one."""
        self._between[number, index] = plan

    def replies(self, number: int, change: Callable[[list[Any]], list[Any]]) -> None:
        self._replies[number] = change

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        number = len(self.batches)
        self.batches.append(tuple(commands))
        if number in self._before:
            self._before[number]()
        replies = self._carry_out(number, commands)
        if number in self._after:
            self._after[number]()
        return self._replies.get(number, list)(replies)

    def _carry_out(self, number: int, commands: Sequence[Command[Any]]) -> list[Any]:
        if not any(planned == number for planned, _ in self._between):
            return self._driver.execute(commands)
        replies = []
        for index, command in enumerate(commands):
            self._between.get((number, index), int)()
            replies += self._driver.execute([command])
        return replies

    def listen(self, channels: Sequence[str], pattern: str = "") -> Listener:
        listen = getattr(self._driver, "listen", None)
        return listen(channels, pattern) if listen else NullListener()

    def commits(self) -> int:
        return sum(isinstance(command, Swap) for batch in self.batches for command in batch)

    def close(self) -> None:
        """The driver belongs to another store."""


def lose() -> None:
    """Lose the reply."""
    raise ReplyLost("the reply was lost, on purpose")


def meddled(store: Store, *, cache_bytes: int = 1 << 20, **changes: Any) -> tuple[Store, Meddler]:
    """Return another client of the same store, with an empty cache, behind a meddler."""
    meddler = Meddler(store._driver)
    context = msgspec.structs.replace(store._context, cache=Cache(cache_bytes), **changes)
    return Store(meddler, context), meddler


def another(store: Store) -> Store:
    """Return another client of the same store, with an empty cache."""
    return meddled(store)[0]


def cold_trips(store: Store) -> int:
    """How many round trips a first read takes, once it is known whether the store combines its two."""
    another(store).read_latest("nowhere")
    return 1 if store._driver.kind == "redis" and store._context.capabilities.serves else 2


@contextmanager
def sqlite_connection(driver: Any, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
    """Lend a connection of a SQLite driver, to look at its file or to spoil it.

    `writes`: it creates the file if there is none.
    """
    with driver._lend(writes=writes) as opened:
        yield opened.connection
