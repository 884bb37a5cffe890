"""Turns SQLite's errors into this library's: what is certain depends on whether the COMMIT was reached."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from swapstore.errors import (
    AccessDenied,
    Corrupt,
    ReplyLost,
    StoreFull,
    SwapstoreError,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swapstore.drivers.sqlite.identity import Parts


@contextmanager
def while_writing(connection: sqlite3.Connection, parts: Parts) -> Iterator[None]:
    """Translate errors before the COMMIT, and roll back: nothing is on disk yet."""
    try:
        yield
    except BaseException as error:
        with suppress(sqlite3.Error):
            connection.rollback()
        if isinstance(error, sqlite3.Error):
            raise translated(error, parts) from error
        raise


@contextmanager
def while_committing(connection: sqlite3.Connection, parts: Parts) -> Iterator[None]:
    """Translate errors of the COMMIT: the transaction may be on disk or not, and only reading again tells.

    A busy or full database refuses the COMMIT as a whole, so nothing is on disk then.
    """
    try:
        yield
    except sqlite3.Error as error:
        with suppress(sqlite3.Error):
            connection.rollback()
        refusal = translated(error, parts)
        if isinstance(refusal, StoreFull) or _code(error) == sqlite3.SQLITE_BUSY:
            raise refusal from error
        raise ReplyLost(f"{parts.where} failed while committing ({error}); is its disk healthy?") from error


def translated(error: sqlite3.Error, parts: Parts) -> SwapstoreError:
    """Turn SQLite's error into this library's."""
    code, where = _code(error), parts.where
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return Unavailable(
            f"{where} stayed busy for longer than its timeout: another process holds the write lock. "
            "Try again; if it persists, look for a process that is stuck in a transaction"
        )
    if is_full(error):
        return StoreFull(f"{where} cannot grow: the disk is full ({error})")
    if code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return Corrupt(
            f"{where} is not a usable SQLite file ({error}); nothing was changed. To restore a backup, move "
            "this file away first, and its -wal and -shm, if there are any; or choose another path"
        )
    blocked = "; ".join(parts.blocked() or ())
    if code == sqlite3.SQLITE_READONLY:
        return AccessDenied(
            f"{where} cannot be written ({error}); "
            + (blocked or parts.unwritable() or "check the permissions of the file and its directory")
        )
    if code in {sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH} or (code == sqlite3.SQLITE_CANTOPEN and blocked):
        return AccessDenied(f"{where} may not be opened ({error}); {blocked or 'check its permissions'}")
    if code == sqlite3.SQLITE_CANTOPEN and (unwritable := parts.unwritable()):
        return AccessDenied(f"{where} cannot be made: {unwritable}")
    if code == sqlite3.SQLITE_CANTOPEN:
        return Unavailable(
            f"{where} cannot be opened ({error}); does its directory exist, and may you write there?"
        )
    return Unavailable(f"{where} failed ({error})")


def is_full(error: sqlite3.Error) -> bool:
    """Say whether the disk is full, or has no room for the log of a file that is being opened."""
    code = getattr(error, "sqlite_errorcode", 0)
    return _code(error) == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code, without the extension in its upper bits."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
