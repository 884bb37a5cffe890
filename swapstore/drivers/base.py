"""The interfaces of drivers, blocking and asyncio.

One suite tests every driver: `swapstore.testing.DriverContract`.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from swapstore.errors import StoreClosed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command


def closed() -> StoreClosed:
    """Build the error for a store that another thread has closed."""
    return StoreClosed("the store was closed; connect() makes a new one")


# How long the call that sends a batch may still wait in vain, in seconds; see `Timeout.total`. A driver that
# bounds its waits by it ends in time, and not only before the next batch.
LEFT_S: ContextVar[float] = ContextVar("left_s", default=float("inf"))


class Endpoint(Protocol):
    """What a driver says about its store."""

    @property
    def where(self) -> str:
        """The store's address, for messages. It contains no password."""

    @property
    def kind(self) -> str:
        """The kind of store, such as `redis` or `sqlite`. It decides which questions `doctor` asks."""

    @property
    def binary_safe(self) -> bool:
        """Whether every byte string can be sent. False: only UTF-8 text; other bytes raise `InvalidInput`."""


class Driver(Endpoint, Protocol):
    """Carries out batches of commands.

    Several threads may use a driver, and so may a child process after a fork. On SQLite a fork waits for the
    batches of other threads.
    """

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out the commands in order and return one reply each. That of a refused command is `Failed`.

        Each command is sent once: a driver never retries. Raises `Unavailable` (or a subclass) when nothing
        was sent, and `ReplyLost` when commands may have been applied and their replies are unknown.
        `Throttled`: nothing was carried out, and the endpoint asks the client to wait.
        """

    def close(self) -> None:
        """Close what the driver opened itself. Closing twice is harmless."""


class Listener(Protocol):
    """Receives hints on some channels, for one follower or view, over one connection.

    A driver that supports hints has `listen(channels, pattern)`. One thread at a time waits; any thread may
    close it.
    """

    def wait(self, seconds: float) -> list[str]:
        """Return as soon as a hint has come since the last wait, or after so many seconds.

        Returns the channels that had hints. If hints may have been missed (it was not subscribed yet, or the
        connection had failed), it returns as soon as it is subscribed, and names none. A failure is not
        raised: the wait then lasts its full time.
        """

    def close(self) -> None:
        """Stop listening. A wait in progress returns, and so does each later one."""


class AsyncDriver(Endpoint, Protocol):
    """Carries out batches of commands for asyncio. The same contract holds."""

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out the commands; see `Driver.execute`.

        Cancelling it is like the death of the client: what was sent may be applied, now or a little later,
        and the outcome stays unknown. Nothing more is sent, and the connection is not used for another batch.
        """

    async def close(self) -> None:
        """Wait for the batches in progress, then close what the driver opened itself.

        New batches raise `StoreClosed`. Closing twice is harmless.
        """


class AsyncListener(Protocol):
    """Receives hints on some channels, for one follower or view; see `Listener`."""

    async def wait(self, seconds: float) -> list[str]:
        """Wait for a hint; see `Listener.wait`. A cancelled wait unsubscribes; the next subscribes anew."""

    def drop(self) -> None:
        """Stop listening, without waiting for anything."""
