"""The records that a draft relies on, and which of them are staged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Command, Failed, Replace, Stage, Unstaged
from swapstore.errors import Corrupt, SwapstoreError

if TYPE_CHECKING:
    from swapstore.operations.context import Context


@attrs.frozen
class Record:
    """A record that a draft relies on.

    `header` is its header line, newline included. `shared`: it may be permanent already. `stored`: it is in
    the store, and its body is not here.
    """

    key: str
    header: bytes = attrs.field(repr=False)
    body: bytes = attrs.field(default=b"", repr=False)
    shared: bool = False
    stored: bool = False

    @classmethod
    def of(cls, key: str, data: bytes, *, shared: bool = False) -> Record:
        """Make one of all of its bytes."""
        end = data.index(b"\n") + 1
        return cls(key, data[:end], data[end:], shared)

    @property
    def data(self) -> bytes:
        """All of its bytes."""
        return self.header + self.body


class Staging:
    """Which records an operation has staged, across its drafts, so that none is sent twice in vain."""

    def __init__(self) -> None:
        self._staged: dict[str, bytes] = {}
        self._taken_over: set[str] = set()
        self._unmovable: set[str] = set()
        self._kept: dict[str, bytes] = {}

    def keep(self, record: Record) -> None:
        """Note that a record is there, without a TTL, before the commit: see `plain`."""
        self._kept[record.key] = record.header

    def is_kept(self, record: Record) -> bool:
        """Say whether this record is there without a TTL."""
        return self._kept.get(record.key) == record.header

    def lose(self, record: Record) -> None:
        """Note that a record is not there, or may not stay."""
        self._kept.pop(record.key, None)

    def holds_another(self, key: str, header: bytes) -> bool:
        """Say whether another record than this one was put under a key for good."""
        return self._kept.get(key, header) != header

    def commands(self, ctx: Context, needed: list[Record]) -> list[Command[bool]]:
        """Return what has still to be sent so that each record is staged."""
        ttl = ctx.policy.staging_ttl_ms
        wanted = [
            record for record in needed if not record.stored and self._staged.get(record.key) != record.header
        ]
        return [
            Replace(record.key, record.data, ttl)
            if record.key in self._taken_over or record.key in self._staged
            else Stage(record.key, record.header, ttl, record.body)
            for record in wanted
        ]

    def note(self, commands: list[Command[bool]], replies: list[Any]) -> SwapstoreError | None:
        """Remember what was staged; return the first refusal."""
        failure = None
        for command, reply in zip(commands, replies, strict=True):
            if isinstance(reply, Failed):
                failure = failure or reply.error
            elif isinstance(command, Replace) and not reply:
                self._unmovable.add(command.key)
            elif isinstance(command, Stage | Replace):
                self._staged[command.key] = command.record[: command.record.index(b"\n") + 1]
        return failure

    def missed(self, unstaged: Unstaged) -> None:
        """Take note that a record is not there, or that another's is, which will be taken over."""
        if unstaged.key in self._unmovable:
            raise unmovable(unstaged.key)
        self._staged.pop(unstaged.key, None)
        if unstaged.present:
            self._taken_over.add(unstaged.key)


def unmovable(key: str) -> Corrupt:
    """Build the error for a permanent record in the way, which no commit of this library left there."""
    return Corrupt(
        f"{key} is permanent and holds something else than what belongs there: it was left by a damaged or "
        "restored store; publishing cannot go on before it is removed",
        key=key,
    )
