"""What each command means on SQLite: one function each, within a transaction that the driver holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import (
    ABSENT,
    PERMANENT,
    Already,
    Ask,
    Command,
    Commit,
    CommitReply,
    Committed,
    Conflict,
    Get,
    GetServed,
    Held,
    Members,
    Peek,
    Put,
    Register,
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
from swapstore.drivers.sqlite.file import answer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Sequence


_GET = "SELECT value FROM records WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
_PEEK = "SELECT substr(value, 1, ?) FROM records WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
_STATE = (
    "SELECT expires_at, substr(value, 1, ?) FROM records "
    "WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)"
)
_SCAN = (
    "SELECT key FROM records WHERE key GLOB ? AND key > ? AND (expires_at IS NULL OR expires_at > ?) "
    "ORDER BY key LIMIT ?"
)
_SET = (
    "INSERT INTO records (key, value, expires_at) VALUES (?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at"
)


def carry_out(connection: sqlite3.Connection, command: Command[Any], now: int) -> Any:
    """Carry out one command at a moment (ms since the epoch), and return its reply."""
    return _MEANING[type(command)](connection, command, now)


# --- reading ---------------------------------------------------------------------------------------


def _get(connection: sqlite3.Connection, command: Get, now: int) -> bytes | None:
    return _value(connection.execute(_GET, (command.key, now)))


def _get_served(connection: sqlite3.Connection, command: GetServed, now: int) -> Served:
    return Served(_value(connection.execute(_GET, (command.key, now))))  # no round trip to be spared


def _peek(connection: sqlite3.Connection, command: Peek, now: int) -> bytes:
    return _value(connection.execute(_PEEK, (command.size, command.key, now))) or b""


def _members(connection: sqlite3.Connection, command: Members, _now: int) -> frozenset[str]:
    found = connection.execute("SELECT member FROM members WHERE key = ?", (command.key,))
    return frozenset(member for (member,) in found)


def _ttl(connection: sqlite3.Connection, command: Ttl, now: int) -> int:
    state = _state(connection, command.key, 0, now)
    if state is None:
        return ABSENT
    return PERMANENT if state[0] is None else state[0] - now


def _scan(connection: sqlite3.Connection, command: Scan, now: int) -> Scanned:
    found = connection.execute(_SCAN, (command.pattern, command.cursor, now, command.limit))
    keys = tuple(key for (key,) in found)
    return Scanned(keys, keys[-1] if len(keys) == command.limit else None)


def _value(found: sqlite3.Cursor) -> bytes | None:
    row = found.fetchone()
    return None if row is None else row[0]


def _state(connection: sqlite3.Connection, key: str, size: int, now: int) -> tuple[int | None, bytes] | None:
    """Return when a key expires (None: never) and its first bytes, or None if there is no such key."""
    row: tuple[int | None, bytes] | None = connection.execute(_STATE, (size, key, now)).fetchone()
    return row


# --- writing ---------------------------------------------------------------------------------------


def stage(connection: sqlite3.Connection, command: Stage, now: int, *, permanent: bool = False) -> bool:
    """Write a record if the key is free: with its TTL, or without one until further notice."""
    if _state(connection, command.key, 0, now) is not None:
        return False
    expires_at = None if permanent else now + command.ttl_ms
    connection.execute(_SET, (command.key, command.record + command.body, expires_at))
    return True


def expire(connection: sqlite3.Connection, key: str, expires_at: int) -> None:
    """Let a key expire at a moment."""
    connection.execute("UPDATE records SET expires_at = ? WHERE key = ?", (expires_at, key))


def _replace(connection: sqlite3.Connection, command: Replace, now: int) -> bool:
    state = _state(connection, command.key, 0, now)
    if state is not None and state[0] is None:
        return False
    connection.execute(_SET, (command.key, command.record, now + command.ttl_ms))
    return True


def _put(connection: sqlite3.Connection, command: Put, now: int) -> None:
    connection.execute(_SET, (command.key, command.value, now + command.ttl_ms))


def _write(connection: sqlite3.Connection, command: Write, _now: int) -> None:
    connection.execute(_SET, (command.key, command.value, None))


def _register(connection: sqlite3.Connection, command: Register, _now: int) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO members (key, member) VALUES (?, ?)", (command.key, command.member)
    )


# --- the commit ------------------------------------------------------------------------------------


def commit(
    connection: sqlite3.Connection, commit: Commit, now: int, *, verified: Collection[str] = ()
) -> CommitReply:
    """The steps of `Commit`, in their order. The transaction makes them one.

    `verified` are keys of records that are known to be staged as they should be, and permanent already.
    """
    stored = _value(connection.execute(_GET, (commit.key, now)))
    if stored is not None and stored.startswith(commit.prefix):
        return Already()
    if not _is_expected(stored, commit):
        return Conflict(stored)
    unverified = [staged for staged in commit.staged if staged.key not in verified]
    for staged in unverified:
        fault = _verify(connection, staged, now)
        if fault is not None:
            return fault
    connection.executemany(
        "UPDATE records SET expires_at = NULL WHERE key = ?", [(staged.key,) for staged in unverified]
    )
    connection.execute(_SET, (commit.key, commit.manifest, None))
    connection.executemany(
        "UPDATE records SET expires_at = ? WHERE key = ?",
        [(now + commit.grace_ms, key) for key in commit.unlinked],
    )
    connection.execute("DELETE FROM records WHERE key = ?", (commit.live_key,))
    return Committed()


def _is_expected(stored: bytes | None, commit: Commit) -> bool:
    if commit.whole:
        return stored == commit.expected
    if not commit.expected:
        return stored is None
    return stored is not None and stored.startswith(commit.expected)


def _verify(connection: sqlite3.Connection, staged: Staged, now: int) -> Unstaged | Held | None:
    state = _state(connection, staged.key, len(staged.header), now)
    if state is None:
        return Unstaged(staged.key, present=False)
    expires_at, header = state
    if expires_at is None and not staged.shared:
        return Held(staged.key)
    return None if header == staged.header else Unstaged(staged.key, present=True)


_MEANING: dict[type[Command[Any]], Callable[[sqlite3.Connection, Any, int], Any]] = {
    Get: _get,
    GetServed: _get_served,
    Peek: _peek,
    Members: _members,
    Ttl: _ttl,
    Scan: _scan,
    Ask: answer,
    Stage: stage,
    Replace: _replace,
    Put: _put,
    Write: _write,
    Register: _register,
    Commit: commit,
}


# --- sqlite_batch ------------------------------------------------------------------------------
#
# A batch that writes, within one transaction: what nobody can see in between is not written.
#
# A publish stages its records and commits them in the same batch. Taken one by one, each record would be
# written with a TTL, looked up, and written once more without: twice the payload, and an index besides. So a
# record that a commit of the same batch is to make permanent is written so at once, and gets its TTL at the
# end if that commit refused. Each command is answered as if it had been carried out by itself.


class WritingBatch:
    """Carries out the commands of one batch in their order; `finish` it before the transaction ends."""

    def __init__(self, connection: sqlite3.Connection, commands: Sequence[Command[Any]]) -> None:
        self._connection = connection
        self._awaited = {
            staged.key for command in commands if isinstance(command, Commit) for staged in command.staged
        }
        self._early: dict[str, tuple[bytes, int]] = {}  # permanent before their commit: header, expiry

    def carry_out(self, command: Command[Any], now: int) -> Any:
        """Carry out one command at a moment (ms since the epoch), and return its reply."""
        if isinstance(command, Stage) and command.key in self._awaited:
            return self._stage(command, now)
        if isinstance(command, Commit):
            return self._commit(command, now)
        if not isinstance(command, Register):
            self.finish()  # it may look at what is staged
        return carry_out(self._connection, command, now)

    def finish(self) -> None:
        """Give the records their TTL that no commit has taken."""
        for key in list(self._early):
            self._let_expire(key)

    def _stage(self, command: Stage, now: int) -> bool:
        staged = stage(self._connection, command, now, permanent=True)
        if staged:
            self._early[command.key] = (command.record, now + command.ttl_ms)
        return staged

    def _commit(self, command: Commit, now: int) -> Any:
        verified = set()
        for key in self._early.keys() & {command.key, command.live_key, *command.unlinked}:
            self._let_expire(key)  # absurd, but it would undo what is early
        for staged in command.staged:
            header, expires_at = self._early.get(staged.key, (b"", 0))
            if header == staged.header and expires_at > now:
                verified.add(staged.key)
            elif expires_at:
                self._let_expire(staged.key)  # it is another one: let the commit say so
        reply = commit(self._connection, command, now, verified=verified)
        if isinstance(reply, Committed):
            for key in verified:
                del self._early[key]
        return reply

    def _let_expire(self, key: str) -> None:
        _, expires_at = self._early.pop(key)
        expire(self._connection, key, expires_at)
