"""What every driver does. The contract is tested by one suite for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command


class Endpoint(Protocol):
    """What a driver says of the store that it serves."""

    @property
    def where(self) -> str:
        """The store's address, for messages. It holds no password."""

    @property
    def kind(self) -> str:
        """What kind of store it is, by whose words a diagnosis asks its questions: `redis`, `sqlite`."""

    @property
    def binary_safe(self) -> bool:
        """Whether every byte string can be sent. False: text (UTF-8) alone; the rest is `InvalidInput`."""


class Driver(Endpoint, Protocol):
    """Carries out batches of commands.

    A driver may be used by several threads, and in a child process after a fork (on SQLite: a fork while no
    other thread was using it, for SQLite has locks of its own inside).
    """

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out the commands in their order and return one reply each, refused ones as `Failed`.

        Sends each command once: a driver never tries again by itself. Raises `Unavailable` (or a child)
        when nothing was sent, and `ReplyLost` when something may have been applied and the replies are
        not known. `Throttled`: nothing was carried out, the endpoint asks to be left alone for a while.
        """

    def close(self) -> None:
        """Let go of what the driver opened itself. Closing twice is harmless."""


class Listener(Protocol):
    """Hears hints on one channel, for one follower. A driver that has it offers `listen(channel)`.

    It is used by one thread at a time, and closed by any.
    """

    def wait(self, seconds: float) -> None:
        """Return when a hint has come since the last wait, or after so many seconds.

        If hints may have been missed (it did not listen yet, or the connection had failed) it returns as
        soon as it listens. Never raises because it cannot: then it lets the time pass.
        """

    def close(self) -> None:
        """Stop listening. A wait that is under way returns, as does each later one."""


class AsyncDriver(Endpoint, Protocol):
    """Carries out batches of commands for asyncio. They mean the same, by the same contract."""

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out the commands; see `Driver.execute`.

        Cancelled, it is as if the client had died: what was sent may be applied, now or a little later, and
        nobody learns. It sends nothing more, and what carried the batch is used for no other.
        """

    async def close(self) -> None:
        """Let batches that are on their way end, then let go of what the driver opened itself.

        Refuses batches from then on (`StoreClosed`). Closing twice is harmless.
        """


class AsyncListener(Protocol):
    """Hears hints on one channel, for one follower. An `AsyncDriver` that has it offers `listen(channel)`."""

    async def wait(self, seconds: float) -> None:
        """Wait for a hint; see `Listener.wait`. Cancelled, it does not listen any more, and begins anew."""

    def drop(self) -> None:
        """Stop listening, at once."""
