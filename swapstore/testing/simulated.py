"""A simulated store: keys in memory, a clock that is moved by hand, and seeded randomness.

Equal seeds and equal calls give equal states, byte for byte. `Keyspace` is the contract of drivers in its
plainest form. It has no clock: the caller passes the time. A copy of it is cheap, so tests can explore many
futures of one state.
"""

from __future__ import annotations

import fnmatch
import itertools
import random
from typing import TYPE_CHECKING, Any

import attrs

from swapstore.cache import Cache
from swapstore.commands import (
    ABSENT,
    PERMANENT,
    Already,
    AwaitReplicas,
    Command,
    Committed,
    CompareAndSet,
    Drop,
    Expire,
    Get,
    GetAll,
    GetServed,
    Held,
    Keep,
    Members,
    Mismatch,
    Peek,
    Put,
    ReadCommand,
    Register,
    Remove,
    Replace,
    Rewritten,
    Scan,
    Scanned,
    Served,
    Stage,
    Staged,
    Swap,
    Time,
    Ttl,
    Ttls,
    Unregister,
    Unstaged,
    Write,
)
from swapstore.format.keys import Keys
from swapstore.protocol.context import Context, Policy
from swapstore.store import Store
from swapstore.testing.faults import Fault, faulty

if TYPE_CHECKING:
    from collections.abc import Sequence

START_MS = 1_800_000_000_000
_NUMBERS = itertools.count(1)


class SimulatedStore:
    """A store in memory, with a clock that is moved by hand and randomness from a seed.

    `connect` makes any number of clients. Equal seeds and equal calls give equal bytes. `seed`: default: 0.
    `policy`: the bounds of the clients; default: `Policy()`. `replicas`: how many replicas have everything at
    once, for publishes with a `Durability`; it can be set at any time.
    """

    def __init__(self, *, seed: int = 0, policy: Policy | None = None, replicas: int = 0) -> None:
        self.keyspace = Keyspace()
        self.replicas = replicas
        self.clock = VirtualClock()
        self._where = f"simulated store {next(_NUMBERS)}"
        self._random = random.Random(seed)  # noqa: S311 - a simulation must be repeatable
        self._policy = policy or Policy()

    def connect(self, *faults: Fault, namespace: str = "swapstore") -> Store:
        """Return a client with a cache of its own, to which these faults happen. Default: none."""
        context = Context(
            keys=Keys(namespace),
            cache=Cache(1 << 20),
            policy=self._policy,
            clock=self.clock,
            random=random.Random(self._random.getrandbits(64)),  # noqa: S311
        )
        driver = SimulatedDriver(self.keyspace, self.clock)
        driver.where = self._where  # two of them are not taken for one
        store = Store(driver, context)
        return faulty(store, *faults)[0] if faults else store

    @property
    def replicas(self) -> int:
        """How many replicas have everything at once."""
        return self.keyspace.replicas

    @replicas.setter
    def replicas(self, number: int) -> None:
        self.keyspace.replicas = number

    def evict(self, key: str) -> None:
        """Delete a key, committed or not, as a server that is short of memory may."""
        self.keyspace.values.pop(key, None)


@attrs.define
class VirtualClock:
    """A clock that is moved by hand. A wait returns at once and moves it."""

    ms: int = START_MS

    def now_ms(self) -> int:
        """Return the time in milliseconds since the Unix epoch."""
        return self.ms

    def monotonic(self) -> float:
        """Return the same time in seconds."""
        return self.ms / 1000

    def sleep(self, seconds: float) -> None:
        """Let time pass, in seconds."""
        self.advance(int(seconds * 1000))

    def advance(self, ms: int) -> None:
        """Let time pass, in milliseconds."""
        self.ms += ms


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

    def listen(self, _channels: Sequence[str], _pattern: str = "") -> SimulatedListener:
        """Return a listener without hints; see `Listener`."""
        return SimulatedListener(self.clock)

    def expire(self) -> None:
        """Let everything that has a TTL expire now."""
        self.keyspace.expire_all()

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class SimulatedListener:
    """A listener without hints: its waits return at once, and move the clock."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock

    def wait(self, seconds: float) -> list[str]:
        """Let the time pass; see `Listener.wait`."""
        self._clock.sleep(seconds)
        return []

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


# --- the keys of a store, and what each command means ----------------------------------------------


@attrs.frozen(cache_hash=True)
class Value:
    """A stored value, and when it expires, in ms (None: never, it is permanent)."""

    data: bytes = attrs.field(repr=False)
    expires_at: int | None


class Keyspace:
    """Keys with their values and TTLs, and what each command does to them."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.sets: dict[str, frozenset[str]] = {}
        self.replicas = 0

    def copy(self) -> Keyspace:
        """Return an independent copy."""
        twin = Keyspace()
        twin.values = self.values.copy()
        twin.sets = self.sets.copy()
        twin.replicas = self.replicas
        return twin

    def fingerprint(self) -> tuple[frozenset[tuple[str, Value]], frozenset[tuple[str, frozenset[str]]]]:
        """Return a hashable value that is equal for equal contents."""
        return frozenset(self.values.items()), frozenset(self.sets.items())

    def expire(self, now_ms: int) -> None:
        """Delete the expired keys."""
        for key in [key for key, value in self.values.items() if _has_expired(value, now_ms)]:
            del self.values[key]

    def expire_all(self) -> None:
        """Delete every key that has a TTL, as if the TTL had passed."""
        self.values = {key: value for key, value in self.values.items() if value.expires_at is None}

    def apply(self, command: Command[Any], now_ms: int) -> Any:
        """Carry out one command at a time, and return its reply."""
        self.expire(now_ms)
        if isinstance(command, Swap):
            return self.commit(command, now_ms)
        return (
            self._read(command, now_ms) if isinstance(command, ReadCommand) else self._write(command, now_ms)
        )

    def _read(self, command: Command[Any], now_ms: int) -> Any:
        match command:
            case Get(key):
                return self._data(key)
            case GetAll(keys):
                return [self._data(key) for key in keys]
            case GetServed(key):
                return Served(self._data(key))
            case Peek(key, size):
                return (self._data(key) or b"")[:size]
            case Members(key):
                return self.sets.get(key, frozenset())
            case Ttl(key):
                return self._ttl(key, now_ms)
            case Ttls(keys):
                return [self._ttl(key, now_ms) for key in keys]
            case Time():
                return now_ms
            case AwaitReplicas():
                return self.replicas
            case Scan(pattern, cursor, limit):
                return self._scan(pattern, cursor, limit)
            case _:
                raise TypeError(f"unknown command {command!r}")

    def _write(self, command: Command[Any], now_ms: int) -> bool | None:
        match command:
            case Stage(key, record, ttl_ms, body):
                return key not in self.values and self._set(key, record + body, now_ms + ttl_ms)
            case Replace(key, record, ttl_ms):
                return not self._is_permanent(key) and self._set(key, record, now_ms + ttl_ms)
            case Put(key, value, ttl_ms):
                self._set(key, value, now_ms + ttl_ms)
                return None
            case Write(key, value):
                self._set(key, value, None)
                return None
            case Register(key, member):
                self.sets[key] = self.sets.get(key, frozenset()) | {member}
                return None
            case Unregister(key, member):
                self.sets[key] = self.sets.get(key, frozenset()) - {member}
                return None
            case _:
                return self._write_plain(command, now_ms)

    def _write_plain(self, command: Command[Any], now_ms: int) -> bool | None:
        match command:
            case Keep(key, value):
                return key not in self.values and self._set(key, value, None)
            case CompareAndSet(key, expected, value, ttl_ms):
                expires_at = None if ttl_ms is None else now_ms + ttl_ms
                return self._data(key) == expected and self._set(key, value, expires_at)
            case Drop(key):
                if not self._is_permanent(key):
                    self.values.pop(key, None)
            case Expire(key, ttl_ms):
                if key in self.values:
                    self.values[key] = attrs.evolve(self.values[key], expires_at=now_ms + ttl_ms)
            case Remove(key):
                self.values.pop(key, None)
            case _:
                raise TypeError(f"unknown command {command!r}")
        return None

    def commit(self, commit: Swap, now_ms: int, *, writes: int | None = None) -> Any:
        """Carry out a commit, or only its first `writes` writes, like a server that dies in between."""
        refusal = self._refusal(commit)
        if refusal is not None:
            return refusal
        steps = [
            *(("persist", staged.key) for staged in commit.staged),
            *(("rewrite", each.key) for each in commit.rewritten if not each.needs_base),
            ("swap", commit.key),
            *(("rewrite", each.key) for each in commit.rewritten if each.needs_base),
            *(("unlink", key) for key in commit.unlinked),
            ("remove", commit.live_key),
        ]
        records = {each.key: each.record for each in commit.rewritten}
        for what, key in steps[:writes]:
            if what == "swap":
                self._set(key, commit.manifest, None)
            elif what == "rewrite":
                self._set(key, records[key], None)
            elif what == "remove":
                self.values.pop(key, None)
            elif key in self.values:
                expires_at = None if what == "persist" else now_ms + commit.grace_ms
                self.values[key] = attrs.evolve(self.values[key], expires_at=expires_at)
        return Committed()

    def _refusal(self, commit: Swap) -> Already | Mismatch | Unstaged | Held | None:
        stored = self._data(commit.key)
        if stored is not None and stored.startswith(commit.prefix):
            return Already()
        if commit.whole:
            as_expected = stored == commit.expected
        elif commit.expected:
            as_expected = stored is not None and stored.startswith(commit.expected)
        else:
            as_expected = stored is None
        if not as_expected:
            return Mismatch(stored)
        faults = [
            *(self._fault(staged) for staged in commit.staged),
            *(self._fault_of_rewritten(each) for each in commit.rewritten),
        ]
        return next((fault for fault in faults if fault is not None), None)

    def _fault_of_rewritten(self, each: Rewritten) -> Unstaged | None:
        value = self.values.get(each.key)
        if value is not None and value.expires_at is None and value.data.startswith(each.header):
            return None
        return Unstaged(each.key, present=value is not None)

    def _fault(self, staged: Staged) -> Unstaged | Held | None:
        value = self.values.get(staged.key)
        if value is None:
            return Unstaged(staged.key, present=False)
        if value.expires_at is None and not staged.shared:
            return Held(staged.key)
        return None if value.data.startswith(staged.header) else Unstaged(staged.key, present=True)

    def _ttl(self, key: str, now_ms: int) -> int:
        value = self.values.get(key)
        if value is None:
            return ABSENT
        return PERMANENT if value.expires_at is None else value.expires_at - now_ms

    def _scan(self, pattern: str, cursor: str, limit: int) -> Scanned:
        names = [key for key in self.values if key > cursor and fnmatch.fnmatchcase(key, pattern)]
        found = sorted(names)[:limit]
        return Scanned(tuple(found), found[-1] if len(found) == limit else None)

    def _data(self, key: str) -> bytes | None:
        value = self.values.get(key)
        return None if value is None else value.data

    def _set(self, key: str, data: bytes, expires_at: int | None) -> bool:
        self.values[key] = Value(data, expires_at)
        return True

    def _is_permanent(self, key: str) -> bool:
        value = self.values.get(key)
        return value is not None and value.expires_at is None


def _has_expired(value: Value, now_ms: int) -> bool:
    return value.expires_at is not None and value.expires_at <= now_ms
