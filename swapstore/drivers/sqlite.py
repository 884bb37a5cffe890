"""SQLite: one file, no server, several processes at once.

A batch that writes is one transaction: it takes the write lock first and is on disk (`synchronous=FULL`)
when it returns. Records with a TTL carry the time they expire; expired ones are never seen, and each
writing batch removes a few of them.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import (
    Already,
    Command,
    Commit,
    Committed,
    Conflict,
    Get,
    Held,
    Members,
    Peek,
    Put,
    Register,
    Replace,
    Stage,
    Staged,
    Unstaged,
)
from swapstore.drivers import sqlite_errors, sqlite_file
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SWEEP = 16  # expired rows removed by each writing batch: more than one batch leaves behind

_GET = "SELECT value FROM records WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
_PEEK = "SELECT substr(value, 1, ?) FROM records WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
_STATE = (
    "SELECT expires_at, substr(value, 1, ?) FROM records "
    "WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
)
_SET = (
    "INSERT INTO records (key, value, expires_at) VALUES (?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at"
)
_SWEEP = (
    "DELETE FROM records WHERE rowid IN "
    "(SELECT rowid FROM records WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
)


class SqliteDriver:
    """Carries out commands on a SQLite file. Each thread at work has a connection of its own."""

    def __init__(
        self,
        path: Path,
        *,
        timeout_s: float = sqlite_file.BUSY_TIMEOUT_S,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.where = f"sqlite {path}"
        self._path = path
        self._timeout_s = timeout_s
        self._now_ms = now_ms
        self._idle: list[_Opened] = []
        self._inherited: list[_Opened] = []
        self._lock = threading.Lock()
        self._closed = False
        survive_forks(self)

    def after_fork(self) -> None:
        """Leave the parent's connections alone: they must not cross a fork, not even to be closed."""
        self._lock = threading.Lock()
        self._inherited, self._idle = self._idle, []

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out the commands, in one transaction if any of them writes; see `Driver.execute`."""
        writes = not all(isinstance(command, Get | Peek | Members) for command in commands)
        with self._connection() as connection:
            if not writes:
                with sqlite_errors.while_reading(self.where):
                    return [self._carry_out(connection, command) for command in commands]
            with sqlite_errors.while_writing(connection, self.where):
                connection.execute("BEGIN IMMEDIATE")
                replies = [self._carry_out(connection, command) for command in commands]
                connection.execute(_SWEEP, (self._now_ms(), SWEEP))
            with sqlite_errors.while_committing(connection, self.where):
                connection.execute("COMMIT")
            return replies

    def _carry_out(self, connection: sqlite3.Connection, command: Command[Any]) -> Any:
        now = self._now_ms()
        match command:
            case Get(key):
                return _value(connection.execute(_GET, (key, now)))
            case Peek(key, size):
                return _value(connection.execute(_PEEK, (size, key, now))) or b""
            case Members(key):
                found = connection.execute("SELECT member FROM members WHERE key = ?", (key,))
                return frozenset(member for (member,) in found)
            case Stage(key, record, ttl_ms):
                if _state(connection, key, 0, now) is not None:
                    return False
                connection.execute(_SET, (key, record, now + ttl_ms))
                return True
            case Replace(key, record, ttl_ms):
                state = _state(connection, key, 0, now)
                if state is not None and state[0] is None:
                    return False
                connection.execute(_SET, (key, record, now + ttl_ms))
                return True
            case Put(key, value, ttl_ms):
                connection.execute(_SET, (key, value, now + ttl_ms))
                return None
            case Register(key, member):
                connection.execute("INSERT OR IGNORE INTO members (key, member) VALUES (?, ?)", (key, member))
                return None
            case Commit():
                return _commit(connection, command, now)
            case _:
                raise TypeError(f"unknown command {command!r}")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Lend an idle connection, or open one. It is lent again only if the batch ended cleanly."""
        opened = self._idle_one() or self._open()
        try:
            yield opened.connection
        except BaseException:
            opened.connection.close()
            raise
        with self._lock:
            if not self._closed:
                self._idle.append(opened)
                return
        opened.connection.close()

    def _idle_one(self) -> _Opened | None:
        """Take an idle connection whose file is still the one at the path.

        A file that was deleted or replaced behind our back would go on acknowledging what nobody can read.
        """
        while True:
            with self._lock:
                if not self._idle:
                    return None
                opened = self._idle.pop()
            if opened.identity == _identity(self._path):
                return opened
            opened.connection.close()

    def _open(self) -> _Opened:
        connection = sqlite_file.open_file(self._path, self.where, self._timeout_s)
        return _Opened(connection, _identity(self._path))

    def close(self) -> None:
        """Close the idle connections; one that is at work is closed when its batch ends."""
        with self._lock:
            self._closed = True
            for opened in self._idle:
                opened.connection.close()
            self._idle = []


@attrs.frozen
class _Opened:
    """A connection, and which file it is on."""

    connection: sqlite3.Connection
    identity: tuple[int, int] | None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _value(found: sqlite3.Cursor) -> bytes | None:
    row = found.fetchone()
    return None if row is None else row[0]


def _state(connection: sqlite3.Connection, key: str, size: int, now: int) -> tuple[int | None, bytes] | None:
    """Return when a key expires (None: never) and its first bytes, or None if there is no such key."""
    row: tuple[int | None, bytes] | None = connection.execute(_STATE, (size, key, now)).fetchone()
    return row


def _commit(connection: sqlite3.Connection, commit: Commit, now: int) -> Any:
    """The steps of `Commit`, in their order. The transaction makes them one."""
    stored = _value(connection.execute(_GET, (commit.key, now)))
    if stored is not None and stored.startswith(commit.prefix):
        return Already()
    as_expected = (
        stored is None if not commit.expected else stored is not None and stored.startswith(commit.expected)
    )
    if not as_expected:
        return Conflict(stored)
    for staged in commit.staged:
        fault = _verify(connection, staged, now)
        if fault is not None:
            return fault
    connection.executemany(
        "UPDATE records SET expires_at = NULL WHERE key = ?", [(staged.key,) for staged in commit.staged]
    )
    connection.execute(_SET, (commit.key, commit.manifest, None))
    connection.executemany(
        "UPDATE records SET expires_at = ? WHERE key = ?",
        [(now + commit.grace_ms, key) for key in commit.unlinked],
    )
    connection.execute("DELETE FROM records WHERE key = ?", (commit.live_key,))
    return Committed()


def _verify(connection: sqlite3.Connection, staged: Staged, now: int) -> Unstaged | Held | None:
    state = _state(connection, staged.key, len(staged.header), now)
    if state is None:
        return Unstaged(staged.key, present=False)
    expires_at, header = state
    if expires_at is None and not staged.shared:
        return Held(staged.key)
    return None if header == staged.header else Unstaged(staged.key, present=True)
