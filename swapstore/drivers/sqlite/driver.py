"""The driver for SQLite: one file, no server, several processes at once.

A batch that writes is one transaction: it takes the write lock first, and is on disk (`synchronous=FULL`)
when it returns. A record with a TTL is stored with the time at which it expires. Expired records are never
returned, and each batch that writes removes a few of them.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Command, ReadCommand
from swapstore.drivers.sqlite import errors, file
from swapstore.drivers.sqlite.commands import WritingBatch, carry_out
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

EXPIRED_REMOVED = 16  # expired rows that each writing batch removes: more than a batch adds

_REMOVE_EXPIRED = (
    "DELETE FROM records WHERE rowid IN "
    "(SELECT rowid FROM records WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
)


class SqliteDriver:
    """Carries out commands on a SQLite file. Each batch has a connection of its own while it runs."""

    kind = "sqlite"
    binary_safe = True

    def __init__(
        self,
        path: Path,
        *,
        timeout_s: float | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.where = f"sqlite {path}"
        self._path = path
        self._timeout_s = file.BUSY_TIMEOUT_S if timeout_s is None else timeout_s
        self._now_ms = now_ms
        self._idle: list[_Opened] = []
        self._inherited: list[_Opened] = []
        self._lock = threading.Lock()
        self._closed = False
        survive_forks(self)

    def after_fork(self) -> None:
        """Stop using the parent's connections: SQLite forbids it after a fork, even to close them."""
        self._lock = threading.Lock()
        self._inherited, self._idle = self._idle, []

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out the commands, in one transaction if any of them writes; see `Driver.execute`."""
        if list(commands) == [file.FILE]:
            return [file.of_file(self._path)]
        writes = not all(isinstance(command, ReadCommand) for command in commands)
        with self._connection() as connection:
            if not writes:
                with errors.while_reading(self.where):
                    return [carry_out(connection, command, self._now_ms()) for command in commands]
            with errors.while_writing(connection, self.where):
                connection.execute("BEGIN IMMEDIATE")
                batch = WritingBatch(connection, commands)
                replies = [batch.carry_out(command, self._now_ms()) for command in commands]
                batch.finish()
                connection.execute(_REMOVE_EXPIRED, (self._now_ms(), EXPIRED_REMOVED))
            with errors.while_committing(connection, self.where):
                connection.execute("COMMIT")
            return replies

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Lend an idle connection, or open one. It is kept only if the batch ends without an error."""
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

        On a file that was deleted or replaced, publishes would be acknowledged that no process can read.
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
        connection = file.open_file(self._path, self.where, self._timeout_s)
        return _Opened(connection, _identity(self._path))

    def close(self) -> None:
        """Close the idle connections. One in use is closed when its batch ends."""
        with self._lock:
            self._closed = True
            for opened in self._idle:
                opened.connection.close()
            self._idle = []


@attrs.frozen
class _Opened:
    """A connection, and the identity of its file."""

    connection: sqlite3.Connection
    identity: tuple[int, int] | None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
