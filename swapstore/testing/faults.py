"""Planned faults: what can go wrong between a client and a store, at one command."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore.cache import Cache
from swapstore.commands import Command, Failed, ReadCommand
from swapstore.errors import ReplyLost, StoreFull
from swapstore.store import Store
from swapstore.subscription import NullListener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from swapstore.drivers.base import Driver, Listener


class Crash(BaseException):
    """The client died. Not an `Exception`, because a dead process handles none."""


class Kind(enum.Enum):
    """What goes wrong at a command. Unless the text says otherwise, the rest of its batch is not sent."""

    CRASH_BEFORE = "the client dies before the command is sent"
    CRASH_AFTER = "the client dies after the command was applied"
    LOST_BEFORE = "the connection fails before the command is applied"
    LOST_AFTER = "the connection fails after the command was applied"
    LATE = "the connection fails; the command and the rest of its batch arrive later"
    REFUSED = "the store is full and refuses the command; the rest of its batch is carried out"
    EXPIRED = "everything that has a TTL expires right before the command"


@attrs.frozen
class Fault:
    """A fault at one command. `at` is its number, from 0, among all commands that a client sends."""

    kind: Kind
    at: int


def failing_at(number: int, kind: Kind = Kind.CRASH_BEFORE) -> Fault:
    """Return a fault at the command with this number, counted from 0. Default: a crash before it is sent."""
    return Fault(kind, number)


def every_fault(commands: int) -> Iterator[Fault]:
    """Yield each kind of fault at each of so many commands, one fault at a time."""
    return (Fault(kind, number) for number in range(commands) for kind in Kind)


class FaultyDriver:
    """Sends commands one by one to another driver, and makes the planned faults happen.

    `done` lists the commands that were carried out, `late` the delayed ones that have not arrived yet.
    """

    def __init__(
        self, driver: Driver, faults: Sequence[Fault], expire: Callable[[], None] | None = None
    ) -> None:
        self._driver = driver
        self._expire = expire
        self._number = 0
        self._dead = False
        self.plan(*faults)
        self.done: list[Command[Any]] = []
        self.late: list[Command[Any]] = []
        self.where = driver.where
        self.kind = driver.kind
        self.binary_safe = driver.binary_safe

    def plan(self, *faults: Fault) -> None:
        """Replace the planned faults by these. Commands are counted from now on."""
        self._faults = {self._number + fault.at: fault.kind for fault in faults}

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out the commands up to a fault; see `Driver.execute`."""
        replies: list[Any] = []
        for index, command in enumerate(commands):
            kind = None if self._dead else self._faults.get(self._number)
            self._number += 1
            if self._dead or kind is Kind.CRASH_BEFORE:
                self._dead = True
                raise Crash(f"dead before command {self._number - 1}")
            if kind is Kind.LOST_BEFORE:
                raise ReplyLost("the connection failed, as planned")
            if kind is Kind.LATE:
                self.late += commands[index:]
                raise ReplyLost("the connection failed and its packets are delayed, as planned")
            if kind is Kind.EXPIRED and self._expire is not None:
                self._expire()
            replies.append(self._carry_out(command, kind))
            if kind is Kind.CRASH_AFTER:
                self._dead = True
                raise Crash(f"dead after command {self._number - 1}")
            if kind is Kind.LOST_AFTER:
                raise ReplyLost("the reply was lost, as planned")
        return replies

    def _carry_out(self, command: Command[Any], kind: Kind | None) -> Any:
        if kind is Kind.REFUSED and not isinstance(command, ReadCommand):
            return Failed(StoreFull("the store is full, as planned"))
        (reply,) = self._driver.execute([command])
        self.done.append(command)
        return reply

    def deliver_late(self) -> None:
        """Let the delayed commands arrive. Nobody gets their replies."""
        late, self.late = self.late, []
        for command in late:
            self._driver.execute([command])

    def listen(self, channels: Sequence[str], pattern: str = "") -> Listener:
        """Listen through the other driver. If it has no hints, the waits last their full time."""
        listen = getattr(self._driver, "listen", None)
        return listen(channels, pattern) if listen else NullListener()

    def close(self) -> None:
        """Do nothing: the other driver belongs to the store that it was taken from."""


def faulty(store: Store, *faults: Fault) -> tuple[Store, FaultyDriver]:
    """Return a new client of a store, to which the faults happen, and its driver. Its cache is empty.

    This works on any store, but `Kind.EXPIRED` only on a `SimulatedStore`, whose clock can be moved:
    elsewhere nothing expires.
    """
    driver = FaultyDriver(store._driver, faults, getattr(store._driver, "expire", None))  # noqa: SLF001
    context = msgspec.structs.replace(store._context, cache=Cache(0))  # noqa: SLF001
    return Store(driver, context), driver
