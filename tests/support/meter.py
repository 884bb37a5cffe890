"""The cost of an operation: round trips, commands and bytes, counted between a store and its driver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from swapstore.commands import Command, Get, Mismatch, Put, Replace, Stage, Swap, Write
from swapstore.drivers.base import Driver
from tests.support.proxy import Proxy


@attrs.frozen
class Tally:
    """Counts of one operation, or of several."""

    round_trips: float = 0
    commands: float = 0
    sent: float = 0
    received: float = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(attrs.astuple(self), attrs.astuple(other), strict=True)))

    def __truediv__(self, by: int) -> Tally:
        return Tally(*(count / by for count in attrs.astuple(self)))

    @property
    def bytes(self) -> float:
        return self.sent + self.received


@attrs.frozen
class Cost:
    """The cost of an operation: its page reads, and the rest."""

    rest: Tally = Tally()
    pages: Tally = Tally()

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.rest + other.rest, self.pages + other.pages)

    def __truediv__(self, by: int) -> Cost:
        return Cost(self.rest / by, self.pages / by)


class Meter:
    """A driver that counts what goes through it.

    Behind a proxy it counts the bytes on the wire. Without one it counts those of the values that are
    written and read, which is all that there is to count on SQLite.
    """

    def __init__(self, driver: Driver, proxy: Proxy | None = None) -> None:
        self._driver = driver
        self._proxy = proxy
        self.where = driver.where
        self.kind = driver.kind
        self.binary_safe = driver.binary_safe
        self.cost = Cost()
        self.staged: list[str] = []

    def of(self, act: Callable[[], object]) -> Cost:
        """The cost of a call."""
        self.cost = Cost()
        act()
        return self.cost

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        before = (self._proxy.sent, self._proxy.received) if self._proxy else (0, 0)
        replies = self._driver.execute(commands)
        if self._proxy:
            sent, received = self._proxy.sent - before[0], self._proxy.received - before[1]
        else:
            sent, received = sum(map(_written, commands)), sum(map(_read, replies))
        tally = Tally(1, len(commands), sent, received)
        is_page = all(isinstance(command, Get) and ":page:" in command.key for command in commands)
        self.cost += Cost(pages=tally) if is_page else Cost(rest=tally)
        self.staged += [command.key for command in commands if isinstance(command, Stage)]
        return replies

    def close(self) -> None:
        """The driver belongs to another store."""


def _written(command: Command[Any]) -> int:
    match command:
        case Stage():
            return len(command.record) + len(command.body)
        case Replace():
            return len(command.record)
        case Put() | Write():
            return len(command.value)
        case Swap():
            return len(command.manifest)
    return 0


def _read(reply: Any) -> int:
    value = reply.current if isinstance(reply, Mismatch) else reply
    return len(value) if isinstance(value, bytes) else 0
