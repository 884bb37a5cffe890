"""The store's side of the commands, in memory: what every driver promises, in its plainest form.

Time stands still between calls: whoever owns a keyspace says what time it is, so the same calls give the
same state, byte for byte. A copy is cheap, which is what exploring many futures of one state needs.
"""

from __future__ import annotations

import fnmatch
from typing import Any

import attrs

from swapstore.commands import (
    ABSENT,
    PERMANENT,
    Already,
    Command,
    Commit,
    Committed,
    CompareAndSet,
    Conflict,
    Drop,
    Expire,
    Get,
    GetServed,
    Held,
    Keep,
    Members,
    Peek,
    Put,
    Reading,
    Register,
    Remove,
    Replace,
    Scan,
    Scanned,
    Served,
    Stage,
    Staged,
    Ttl,
    Unstaged,
    Write,
)


@attrs.frozen
class Value:
    """A stored value, and when it expires (ms; None: never, which is to say: committed)."""

    data: bytes = attrs.field(repr=False)
    expires_at: int | None


class Keyspace:
    """Keys, their values and their times to live."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.sets: dict[str, frozenset[str]] = {}

    def copy(self) -> Keyspace:
        """Return a keyspace that goes its own way from here."""
        twin = Keyspace()
        twin.values = self.values.copy()
        twin.sets = self.sets.copy()
        return twin

    def fingerprint(self) -> tuple[frozenset[tuple[str, Value]], frozenset[tuple[str, frozenset[str]]]]:
        """Return a value that is equal for equal contents, and hashable."""
        return frozenset(self.values.items()), frozenset(self.sets.items())

    def expire(self, now_ms: int) -> None:
        """Drop what has expired."""
        for key in [key for key, value in self.values.items() if _is_over(value, now_ms)]:
            del self.values[key]

    def expire_all(self) -> None:
        """Drop all that has a TTL, as if it had passed."""
        self.values = {key: value for key, value in self.values.items() if value.expires_at is None}

    def apply(self, command: Command[Any], now_ms: int) -> Any:
        """Carry out one command at a moment, and return its reply."""
        self.expire(now_ms)
        if isinstance(command, Commit):
            return self.commit(command, now_ms)
        return self._read(command, now_ms) if isinstance(command, Reading) else self._write(command, now_ms)

    def _read(self, command: Command[Any], now_ms: int) -> Any:
        match command:
            case Get(key):
                return self._data(key)
            case GetServed(key):
                return Served(self._data(key))
            case Peek(key, size):
                return (self._data(key) or b"")[:size]
            case Members(key):
                return self.sets.get(key, frozenset())
            case Ttl(key):
                return self._ttl(key, now_ms)
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
            case _:
                return self._write_plainly(command, now_ms)

    def _write_plainly(self, command: Command[Any], now_ms: int) -> bool | None:
        match command:
            case Keep(key, value):
                return key not in self.values and self._set(key, value, None)
            case CompareAndSet(key, expected, value):
                return self._data(key) == expected and self._set(key, value, None)
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

    def commit(self, commit: Commit, now_ms: int, *, writes: int | None = None) -> Any:
        """Carry out a commit, or only its first `writes` writes, as a dying server would."""
        refusal = self._refusal(commit)
        if refusal is not None:
            return refusal
        steps = [
            *(("persist", staged.key) for staged in commit.staged),
            ("swap", commit.key),
            *(("unlink", key) for key in commit.unlinked),
            ("remove", commit.live_key),
        ]
        for what, key in steps[:writes]:
            if what == "swap":
                self._set(key, commit.manifest, None)
            elif what == "remove":
                self.values.pop(key, None)
            elif key in self.values:
                expires_at = None if what == "persist" else now_ms + commit.grace_ms
                self.values[key] = attrs.evolve(self.values[key], expires_at=expires_at)
        return Committed()

    def _refusal(self, commit: Commit) -> Already | Conflict | Unstaged | Held | None:
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
            return Conflict(stored)
        faults = (self._fault(staged) for staged in commit.staged)
        return next((fault for fault in faults if fault is not None), None)

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


def _is_over(value: Value, now_ms: int) -> bool:
    return value.expires_at is not None and value.expires_at <= now_ms
