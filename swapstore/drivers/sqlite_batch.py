"""A batch that writes, within one transaction: what nobody can see in between is not written.

A publish stages its records and commits them in the same batch. Taken one by one, each record would be
written with a TTL, looked up, and written once more without: twice the payload, and an index besides. So a
record that a commit of the same batch is to make permanent is written so at once, and gets its TTL at the
end if that commit refused. Each command is answered as if it had been carried out by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import Command, Commit, Committed, Register, Stage
from swapstore.drivers.sqlite_commands import carry_out, commit, expire, stage

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence


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
