"""A store without a server, a clock without time, and randomness with a seed: the same run, every time."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import attrs

from swapstore.cache import Cache
from swapstore.format.keys import Keys
from swapstore.protocol.context import Context, Policy
from swapstore.store import Store
from swapstore.testing.faults import Fault, faulty
from swapstore.testing.keyspace import Keyspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command

START_MS = 1_800_000_000_000


@attrs.define
class VirtualClock:
    """A clock that moves when it is told to. A wait passes at once and moves it."""

    ms: int = START_MS

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        return self.ms

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self.ms / 1000

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.advance(int(seconds * 1000))

    def advance(self, ms: int) -> None:
        """Let time pass, in milliseconds."""
        self.ms += ms


class SimulatedListener:
    """Hears nothing: its waits pass at once, and move the clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._clock.sleep(seconds)

    def close(self) -> None:
        """There is nothing to close."""


class SimulatedDriver:
    """A driver on a keyspace in memory."""

    where = "simulated store"
    kind = "simulated"
    binary_safe = True

    def __init__(self, keyspace: Keyspace, clock: VirtualClock) -> None:
        self.keyspace = keyspace
        self.clock = clock

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out the commands; see `Driver.execute`."""
        return [self.keyspace.apply(command, self.clock.now_ms()) for command in commands]

    def listen(self, channel: str) -> SimulatedListener:  # noqa: ARG002 - no hints come here
        """Let time pass, see `Listener`."""
        return SimulatedListener(self.clock)

    def expire(self) -> None:
        """Let everything that has a TTL expire now."""
        self.keyspace.expire_all()

    def close(self) -> None:
        """There is nothing to close."""


class SimulatedStore:
    """A store in memory, with a clock that is moved by hand and randomness that a seed decides.

    `connect` makes any number of clients. Equal seeds and equal calls give equal bytes.
    """

    def __init__(self, *, seed: int = 0, policy: Policy | None = None) -> None:
        self.keyspace = Keyspace()
        self.clock = VirtualClock()
        self._random = random.Random(seed)  # noqa: S311 - a simulation repeats itself on purpose
        self._policy = policy or Policy()

    def connect(self, *faults: Fault, namespace: str = "swapstore") -> Store:
        """Return a client with a memory of its own, to which these faults happen."""
        context = Context(
            keys=Keys(namespace),
            cache=Cache(1 << 20),
            policy=self._policy,
            clock=self.clock,
            random=random.Random(self._random.getrandbits(64)),  # noqa: S311
        )
        store = Store(SimulatedDriver(self.keyspace, self.clock), context)
        return faulty(store, *faults)[0] if faults else store

    def evict(self, key: str) -> None:
        """Drop a key, committed or not, as a server short of memory may."""
        self.keyspace.values.pop(key, None)
