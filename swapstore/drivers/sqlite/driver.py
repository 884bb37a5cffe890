"""The driver for SQLite: one file, no server, several processes at once.

A batch that writes is one transaction: it takes the write lock first, and is on disk (`synchronous=FULL`)
when it returns. A record with a TTL is stored with the time at which it expires. Expired records are never
returned, and each batch that writes removes a few of them.

A connection is used only while the files at the path are those that it has open. A batch that wrote is
acknowledged only if they still are after its COMMIT.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from copy import copy
from typing import TYPE_CHECKING, Any

import msgspec

from swapstore.commands import BackUp, Command, ReadCommand, Restore, Swap
from swapstore.drivers.sqlite import backup, errors, file, identity, reserve
from swapstore.drivers.sqlite.commands import WritingBatch, carry_out
from swapstore.drivers.sqlite.identity import Parts
from swapstore.errors import (
    AccessDenied,
    Corrupt,
    Misconfigured,
    ReplyLost,
    StoreFull,
    SwapstoreError,
    Unavailable,
)
from swapstore.forks import prepare_for_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from swapstore.drivers.sqlite.file import Opened

EXPIRED_REMOVED = 16  # expired rows that each writing batch removes: more than a batch adds
READINGS = 20  # times that a batch is read anew, without a log, from a file that others are writing

_REMOVE_EXPIRED = (
    "DELETE FROM records WHERE rowid IN "
    "(SELECT rowid FROM records WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)"
)


class SqliteDriver:
    """Carries out commands on a SQLite file. Each batch has a connection of its own while it runs.

    `private`: a file that the driver creates can be read and written by its owner alone.
    """

    kind = "sqlite"
    binary_safe = True

    def __init__(
        self,
        path: Path,
        *,
        private: bool = False,
        timeout_s: float | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.where = f"sqlite {path}"
        self._path = path
        self._private = private
        self._timeout_s = file.BUSY_TIMEOUT_S if timeout_s is None else timeout_s
        self._now_ms = now_ms
        self._idle: list[Opened] = []
        weakref.finalize(self, _close_forgotten, self._idle)
        self._inherited: list[Opened] = []
        self._unusable: SwapstoreError | None = None  # why no connection may be opened any more
        self._closed = False
        self._make_locks()
        prepare_for_forks(self)

    def _make_locks(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # of the next two
        self._running: list[int] = []  # the thread of each batch that runs
        self._forking: set[int] = set()  # threads

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Carry out the commands, in one transaction if any of them writes; see `Driver.execute`."""
        me = threading.get_ident()
        try:
            with self._lock:
                while self._forking and me not in self._running:
                    self._changed.wait()
                self._running.append(me)
            return self._execute(commands)
        finally:
            with self._lock:
                if me in self._running:
                    self._running.remove(me)
                if self._forking:
                    self._changed.notify_all()

    def _execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        match commands:
            case [file.FILE]:
                return [file.of_file(self._path)]
            case [BackUp(path)]:
                with self._lend() as opened:
                    return [backup.back_up(opened, path, self._timeout_s)]
            case [Restore(path)]:
                with self._lend(writes=True) as opened:
                    backup.restore(opened, path, self._timeout_s)
                    self._require_in_place(opened)
                    return [None]
        if all(isinstance(command, ReadCommand) for command in commands):
            return self._read(commands)
        if _unlinks(commands) and reserve.is_short(Parts.of(self._path)):
            commands = [_at_once(command) for command in commands]
        swap = _for_a_full_disk(commands)
        try:
            return self._write_once(commands, swap)
        except StoreFull:
            if swap is None or swap.staged:
                raise
        self._make_room()
        return self._write_once(commands, swap)

    def _make_room(self) -> None:
        """Give away the reserve, and empty the log as far as it goes: it is then begun anew where it is."""
        reserve.give(Parts.of(self._path))
        with suppress(SwapstoreError, sqlite3.Error), self._lend(writes=True) as opened:
            opened.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _write_once(self, commands: Sequence[Command[Any]], swap: Swap | None) -> list[Any]:
        with self._lend(writes=True) as opened:
            if swap is None and any(type(each) is Swap and _must_go(each) for each in commands):
                with _overwriting(opened.connection, on=True):
                    replies = self._write(opened, commands)
                with suppress(sqlite3.Error):  # the log still has what was deleted
                    opened.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                return replies
            if swap is None:
                return self._write(opened, commands)
            with _overwriting(opened.connection, on=False):
                replies = self._write(opened, commands)
            with suppress(sqlite3.Error):  # the next swap begins the log anew, and there may be many
                opened.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            return replies

    def _read(self, commands: Sequence[Command[Any]]) -> list[Any]:
        for _ in range(READINGS):
            opened = self._take()
            keep = False
            try:
                replies = [carry_out(opened.connection, command, self._now_ms()) for command in commands]
                keep = opened.access is not file.Access.SNAPSHOT
                if keep or opened.is_unchanged():
                    return replies
            except sqlite3.Error as error:
                if opened.access is not file.Access.SNAPSHOT or opened.is_unchanged():
                    raise errors.translated(error, opened.parts) from error
            finally:
                self._put_back(opened, keep=keep)
        raise Unavailable(f"{self.where} kept changing while it was read; try again")

    def _write(self, opened: Opened, commands: Sequence[Command[Any]]) -> list[Any]:
        connection, parts = opened.connection, opened.parts
        with errors.while_writing(connection, parts):
            connection.execute("BEGIN IMMEDIATE")
            batch = WritingBatch(connection, commands)
            replies = [batch.carry_out(command, self._now_ms()) for command in commands]
            batch.finish()
            connection.execute(_REMOVE_EXPIRED, (self._now_ms(), EXPIRED_REMOVED))
            identity.advance(connection)
        with errors.while_committing(connection, parts):
            connection.execute("COMMIT")
        self._require_in_place(opened)
        return replies

    def _require_in_place(self, opened: Opened) -> None:
        """Acknowledge no commit into files that no other process can find."""
        if not opened.is_in_place():
            raise ReplyLost(f"{self.where} was replaced, or its -wal or -shm was, during a commit")

    # --- forks ---------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close every connection, when the batches of other threads have ended: no child may inherit one.

        SQLite keeps a list of a process's files, and of their locks. A child that inherits an entry takes no
        lock of its own. Then the parent, when it closes the file, deletes the log that the child writes.
        """
        me = threading.get_ident()
        with self._lock:
            self._forking.add(me)
            self._changed.wait_for(lambda: set(self._running) <= {me}, self._timeout_s)
            idle = self._drain()
        for opened in idle:
            self._close(opened)

    def forked(self) -> None:
        """Let the batches of other threads go on."""
        with self._lock:
            self._forking.discard(threading.get_ident())
            self._changed.notify_all()

    def after_fork(self) -> None:
        """Stop using the parent's connections: SQLite forbids it after a fork, even to close them."""
        if self._running:
            self._unusable = Misconfigured(
                f"{self.where} was in use during the fork that made this process, so this process cannot use "
                "it. Fork while no other thread uses the store, or start the process in another way ('spawn')"
            )
        self._make_locks()
        self._inherited += self._drain()

    # --- connections ---------------------------------------------------------------------------------

    @contextmanager
    def _lend(self, *, writes: bool = False) -> Iterator[Opened]:
        """Lend an idle connection, or open one. It is kept only if the batch ends without an error."""
        opened = self._take(writes=writes)
        try:
            yield opened
        except BaseException:
            self._put_back(opened, keep=False)
            raise
        self._put_back(opened, keep=opened.access is not file.Access.SNAPSHOT)

    def _take(self, *, writes: bool = False) -> Opened:
        while (opened := self._idle_one()) is not None:
            if opened.is_usable() and (opened.access is file.Access.WRITE or not writes):
                return opened
            self._close(opened)
        opened = file.open_file(self._path, self._timeout_s, writes=writes, private=self._private)
        if writes and opened.access is not file.Access.WRITE:
            self._close(opened)
            reason = opened.parts.unwritable()
            raise AccessDenied(
                f"{self.where} can be read and not written: {reason}. A publish needs write permission on "
                "the file and on its directory"
            )
        return opened

    def _idle_one(self) -> Opened | None:
        """Take an idle connection. None: there is none, and one may be opened."""
        with self._lock:
            if self._unusable:
                raise copy(self._unusable)
            return self._idle.pop() if self._idle else None

    def _drain(self) -> list[Opened]:
        """Take all idle connections."""
        idle = self._idle[:]
        self._idle.clear()
        return idle

    def _put_back(self, opened: Opened, *, keep: bool) -> None:
        """Keep a connection for the next batch, or close it."""
        with self._lock:
            if keep and not self._closed:
                self._idle.append(opened)
                return
        self._close(opened)

    def _close(self, opened: Opened) -> None:
        """Close a connection. If it has to stay open, no other is opened: all would share its `-shm`."""
        reason = opened.close()
        if reason:
            with self._lock:
                self._unusable = self._unusable or Corrupt(f"{self.where}: {reason}")

    def close(self) -> None:
        """Close the idle connections. One in use is closed when its batch ends."""
        with self._lock:
            self._closed = True
            idle = self._drain()
        for opened in idle:
            self._close(opened)


def _close_forgotten(idle: list[Opened]) -> None:
    """Close the connections of a driver that nobody has closed, as carefully as it does.

    The garbage collector would do it without a look at the files.
    """
    while idle:
        with suppress(Exception):  # nobody is there to be told
            idle.pop().close()


def _unlinks(commands: Sequence[Command[Any]]) -> bool:
    return any(type(command) is Swap and command.unlinked for command in commands)


def _at_once(command: Command[Any]) -> Command[Any]:
    """Return a swap that deletes what it unlinks: an UPDATE would take up the room that is left."""
    return msgspec.structs.replace(command, grace_ms=0) if isinstance(command, Swap) else command


def _for_a_full_disk(commands: Sequence[Command[Any]]) -> Swap | None:
    """Return the swap that deletes at once what it unlinks, see `Swap.even_if_full`; None: there is none."""
    swaps = (command for command in commands if type(command) is Swap)
    return next((swap for swap in swaps if swap.even_if_full and not swap.grace_ms), None)


def _must_go(swap: Swap) -> bool:
    """Whether a swap deletes what it unlinks because its bytes must not stay: see `protocol/erase.py`."""
    return bool(swap.unlinked) and not swap.grace_ms and not swap.even_if_full


@contextmanager
def _overwriting(connection: sqlite3.Connection, *, on: bool) -> Iterator[None]:
    """Let what is deleted be overwritten with zeros, or not: a full disk has no room for that."""
    (usual,) = connection.execute("PRAGMA secure_delete").fetchone()
    connection.execute(f"PRAGMA secure_delete = {'ON' if on else 'OFF'}")
    try:
        yield
    finally:
        connection.execute(f"PRAGMA secure_delete = {usual}")
