"""What each command means on SQLite: one function each, within a transaction that the driver holds.

A batch that writes goes through `WritingBatch`, which spares what no reader can see. A publish stages its
records and commits them in the same batch: command by command, each record would be written with a TTL,
looked up, and written again without it, which is twice the payload and an index entry besides. So a record
that a commit of the same batch is to make permanent is written without a TTL at once, and gets its TTL at the
end if that commit was refused. Each command is answered as if it had been carried out by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import (
    ABSENT,
    PERMANENT,
    Already,
    Ask,
    Command,
    Committed,
    Get,
    GetAll,
    GetServed,
    Held,
    Members,
    Mismatch,
    Peek,
    Put,
    Register,
    Replace,
    Scan,
    Scanned,
    Served,
    Stage,
    Staged,
    Swap,
    SwapReply,
    Time,
    Ttl,
    Ttls,
    Unregister,
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
    """Carry out one command at the time `now` (ms since the epoch), and return its reply."""
    return _MEANING[type(command)](connection, command, now)


class WritingBatch:
    """Carries out the commands of one batch in order. Call `finish` before the transaction ends."""

    def __init__(self, connection: sqlite3.Connection, commands: Sequence[Command[Any]]) -> None:
        self._connection = connection
        self._awaited = {
            staged.key for command in commands if isinstance(command, Swap) for staged in command.staged
        }
        self._early: dict[str, tuple[bytes, int]] = {}  # staged without a TTL: header, time to expire

    def carry_out(self, command: Command[Any], now: int) -> Any:
        """Carry out one command at the time `now` (ms since the epoch), and return its reply."""
        if isinstance(command, Stage) and command.key in self._awaited:
            return self._stage(command, now)
        if isinstance(command, Swap):
            return self._commit(command, now)
        if not isinstance(command, Register):
            self.finish()  # it may read a staged record
        return carry_out(self._connection, command, now)

    def finish(self) -> None:
        """Give a TTL to the records that no commit has made permanent."""
        for key in list(self._early):
            self._let_expire(key)

    def _stage(self, command: Stage, now: int) -> bool:
        staged = stage(self._connection, command, now, permanent=True)
        if staged:
            self._early[command.key] = (command.record, now + command.ttl_ms)
        return staged

    def _commit(self, command: Swap, now: int) -> Any:
        verified = set()
        for key in self._early.keys() & {command.key, command.live_key, *command.unlinked}:
            self._let_expire(key)  # nonsense, but it would undo what was staged early
        for staged in command.staged:
            header, expires_at = self._early.get(staged.key, (b"", 0))
            if header == staged.header and expires_at > now:
                verified.add(staged.key)
            elif expires_at:
                self._let_expire(staged.key)  # another record: the commit will report it
        reply = commit(self._connection, command, now, verified=verified)
        if isinstance(reply, Committed):
            for key in verified:
                del self._early[key]
        return reply

    def _let_expire(self, key: str) -> None:
        _, expires_at = self._early.pop(key)
        expire(self._connection, key, expires_at)


# --- reading ---------------------------------------------------------------------------------------


def _get(connection: sqlite3.Connection, command: Get, now: int) -> bytes | None:
    return _value(connection.execute(_GET, (command.key, now)))


def _get_all(connection: sqlite3.Connection, command: GetAll, now: int) -> list[bytes | None]:
    return [_value(connection.execute(_GET, (key, now))) for key in command.keys]


def _get_served(connection: sqlite3.Connection, command: GetServed, now: int) -> Served:
    # Without the record: on a file, reading it at once spares no round trip.
    return Served(_value(connection.execute(_GET, (command.key, now))))


def _peek(connection: sqlite3.Connection, command: Peek, now: int) -> bytes:
    return _value(connection.execute(_PEEK, (command.size, command.key, now))) or b""


def _members(connection: sqlite3.Connection, command: Members, _now: int) -> frozenset[str]:
    found = connection.execute("SELECT member FROM members WHERE key = ?", (command.key,))
    return frozenset(member for (member,) in found)


def _ttl(connection: sqlite3.Connection, command: Ttl, now: int) -> int:
    return _left(connection, command.key, now)


def _ttls(connection: sqlite3.Connection, command: Ttls, now: int) -> list[int]:
    return [_left(connection, key, now) for key in command.keys]


def _left(connection: sqlite3.Connection, key: str, now: int) -> int:
    state = _state(connection, key, 0, now)
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
    """Write a record if the key is free: with its TTL, or `permanent`, without one."""
    if _state(connection, command.key, 0, now) is not None:
        return False
    expires_at = None if permanent else now + command.ttl_ms
    connection.execute(_SET, (command.key, command.record + command.body, expires_at))
    return True


def expire(connection: sqlite3.Connection, key: str, expires_at: int) -> None:
    """Let a key expire at a time (ms since the epoch)."""
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


def _unregister(connection: sqlite3.Connection, command: Unregister, _now: int) -> None:
    connection.execute("DELETE FROM members WHERE key = ? AND member = ?", (command.key, command.member))


# --- the commit ------------------------------------------------------------------------------------


def commit(
    connection: sqlite3.Connection, commit: Swap, now: int, *, verified: Collection[str] = ()
) -> SwapReply:
    """Carry out the steps of `Swap`, in order. The transaction makes them atomic.

    `verified` are the keys of records that are known to be right, and that have no TTL already.
    """
    stored = _value(connection.execute(_GET, (commit.key, now)))
    if stored is not None and stored.startswith(commit.prefix):
        return Already()
    if not _is_expected(stored, commit):
        return Mismatch(stored)
    unverified = [staged for staged in commit.staged if staged.key not in verified]
    for staged in unverified:
        fault = _verify(connection, staged, now)
        if fault is not None:
            return fault
    for each in commit.rewritten:
        state = _state(connection, each.key, len(each.header), now)
        if state != (None, each.header):
            return Unstaged(each.key, present=state is not None)
    connection.executemany(
        "UPDATE records SET expires_at = NULL WHERE key = ?", [(staged.key,) for staged in unverified]
    )
    connection.executemany(_SET, [(each.key, each.record, None) for each in commit.rewritten])
    connection.execute(_SET, (commit.key, commit.manifest, None))
    gone = [commit.live_key]
    if commit.grace_ms:
        connection.executemany(
            "UPDATE records SET expires_at = ? WHERE key = ?",
            [(now + commit.grace_ms, key) for key in commit.unlinked],
        )
    else:  # an UPDATE writes the whole record anew, for which a full disk has no room
        gone += commit.unlinked
    connection.executemany("DELETE FROM records WHERE key = ?", [(key,) for key in gone])
    return Committed()


def _is_expected(stored: bytes | None, commit: Swap) -> bool:
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
    GetAll: _get_all,
    GetServed: _get_served,
    Peek: _peek,
    Members: _members,
    Ttl: _ttl,
    Ttls: _ttls,
    Scan: _scan,
    Time: lambda *_: None,
    Ask: answer,
    Stage: stage,
    Replace: _replace,
    Put: _put,
    Write: _write,
    Register: _register,
    Unregister: _unregister,
    Swap: commit,
}
