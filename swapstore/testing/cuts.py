"""A client that dies after a number of commands, as a killed process does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.cache import Cache
from swapstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command
    from swapstore.drivers.base import Driver


class Crash(BaseException):
    """The client is gone. Not an `Exception`: a dead process handles nothing."""


class CutShort:
    """A driver that carries out `after` commands, one by one, and then raises `Crash` for ever.

    `done` lists the commands that were carried out.
    """

    def __init__(self, driver: Driver, *, after: int) -> None:
        self._driver = driver
        self._after = after
        self.done: list[Command[Any]] = []
        self.where = driver.where

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out what is still allowed; see `Driver.execute`."""
        replies: list[Any] = []
        for command in commands:
            if len(self.done) == self._after:
                raise Crash(f"cut short after {self._after} commands")
            replies += self._driver.execute([command])
            self.done.append(command)
        return replies

    def close(self) -> None:
        """The driver belongs to the store it was taken from."""


def cut_short(store: Store, *, after: int) -> tuple[Store, CutShort]:
    """Return a new client of the same store, with an empty memory, that dies after `after` commands."""
    driver = CutShort(store._driver, after=after)  # noqa: SLF001 - a test needs the inside of a store
    context = attrs.evolve(store._context, cache=Cache(0))  # noqa: SLF001
    return Store(driver, context), driver
