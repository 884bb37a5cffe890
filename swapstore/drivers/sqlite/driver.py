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

from swapstore.commands import Command, Reading
from swapstore.drivers.sqlite import errors, file
from swapstore.drivers.sqlite.commands import WritingBatch, carry_out
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SWEEP = 16  # expired rows removed by each writing batch: more than one batch leaves behind

_SWEEP = (
    "DELETE FROM records WHERE rowid IN "
    "(SELECT rowid FROM records WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
)


class SqliteDriver:
    """Carries out commands on a SQLite file. Each thread at work has a connection of its own."""

    kind = "sqlite"
    binary_safe = True

    def __init__(
        self,
        path: Path,
        *,
        timeout_s: float = file.BUSY_TIMEOUT_S,
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
        if list(commands) == [file.FILE]:
            return [file.of_file(self._path)]
        writes = not all(isinstance(command, Reading) for command in commands)
        with self._connection() as connection:
            if not writes:
                with errors.while_reading(self.where):
                    return [carry_out(connection, command, self._now_ms()) for command in commands]
            with errors.while_writing(connection, self.where):
                connection.execute("BEGIN IMMEDIATE")
                batch = WritingBatch(connection, commands)
                replies = [batch.carry_out(command, self._now_ms()) for command in commands]
                batch.finish()
                connection.execute(_SWEEP, (self._now_ms(), SWEEP))
            with errors.while_committing(connection, self.where):
                connection.execute("COMMIT")
            return replies

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
        connection = file.open_file(self._path, self.where, self._timeout_s)
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
