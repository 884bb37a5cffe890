"""Encodes commands as RESP, in few pieces.

redis-py sends each value of more than 6,000 bytes as a piece of its own. Each piece is a system call, which
takes longer than the copy that it saves, up to tens of kilobytes.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import (
    Already,
    Ask,
    Command,
    Committed,
    CompareAndSet,
    Drop,
    Expire,
    Failed,
    Get,
    GetServed,
    Held,
    Keep,
    Members,
    Mismatch,
    Peek,
    Put,
    Register,
    Remove,
    Replace,
    Scan,
    Scanned,
    Served,
    Stage,
    Swap,
    SwapReply,
    Ttl,
    Unstaged,
    Write,
)
from swapstore.errors import ReplyLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from swapstore.errors import SwapstoreError


MANY = 512
_SIZES = [b"$%d\r\n" % size for size in range(MANY)]  # most words are short: their prefixes are prepared
LARGE = 256 * 1024  # bytes: from this size on, a value is sent as it is, without a copy


def packed(frames: Iterable[Frame]) -> list[bytes]:
    """Return commands as pieces to send one after the other."""
    pieces: list[bytes] = []
    small: list[bytes] = []
    for frame in frames:
        small.append(b"*%d\r\n" % len(frame))
        for word in frame:
            kind = type(word)
            if kind is tuple:  # a value in two parts
                first, rest = word
                size = len(first) + len(rest)
                if size < LARGE:
                    small += (b"$%d\r\n" % size, first, rest, b"\r\n")
                else:
                    small += (b"$%d\r\n" % size, first)
                    pieces += (b"".join(small), rest)
                    small = [b"\r\n"]
            else:
                data = word if kind is bytes else word.encode() if kind is str else b"%d" % word
                size = len(data)
                small += (_SIZES[size] if size < MANY else b"$%d\r\n" % size, data, b"\r\n")
    pieces.append(b"".join(small))
    return pieces


# --- redis_batch -------------------------------------------------------------------------------
#
# A commit on Redis stages the records of its batch itself: one command instead of three or four.
#
# The script replies and stores what the commands would, one after the other; a test compares the two. This
# halves the server's work, and saves encoding the commands and reading their replies.
#
# A server that does not know the script runs nothing of a bundle. The text of the script and the records are
# then sent after the rest of the batch, so no later command of a batch may depend on them. None does.


LARGEST = 16 * 1024  # bytes of a record: Lua copies each, and at 32 KB that costs what the bundle saves


@attrs.frozen
class Bundle(Command[list[Any]]):
    """Some records to stage, and the commit right after them that depends on them."""

    stages: tuple[Stage, ...]
    commit: Swap

    @property
    def brought(self) -> list[Stage]:
        """The records in the order of the commit, in which the script answers."""
        stages = {stage.key: stage for stage in self.stages}
        return [stages[staged.key] for staged in self.commit.staged if staged.key in stages]

    def refused(self, error: SwapstoreError) -> list[Failed]:
        """Return a refusal for each command: none of them had an effect."""
        return [Failed(error)] * (len(self.stages) + 1)


def bundled(commands: Sequence[Command[Any]]) -> list[Command[Any]]:
    """Return the same commands, with each commit bundled with the records that it can stage."""
    units: list[Command[Any]] = []
    for command in commands:
        count = _brought_along(command, units) if type(command) is Swap else 0
        if count:
            units[-count:] = [Bundle(tuple(units[-count:]), command)]  # type: ignore[arg-type]
        else:
            units.append(command)
    return units


def _brought_along(commit: Swap, before: list[Command[Any]]) -> int:
    """Return how many of the commands right before a commit it can stage itself."""
    headers = {staged.key: staged.header for staged in commit.staged}
    count = 0
    while count < len(before) and len(headers) == len(commit.staged) - count:
        stage = before[-1 - count]
        if (
            type(stage) is not Stage
            or headers.pop(stage.key, None) != stage.record
            or stage.record.find(b"\n") != len(stage.record) - 1
            or stage.ttl_ms != commit.staging_ttl_ms
            or len(stage.record) + len(stage.body) > LARGEST
        ):
            break
        count += 1
    return count


# --- redis_wire --------------------------------------------------------------------------------
#
# Encodes our commands as those of Redis, and decodes its replies. No I/O: every client of Redis uses it.


Frame = tuple[Any, ...]
Word = bytes | int | tuple[bytes, bytes]  # a tuple: one value, given in two parts

_COMMENT = re.compile(r"--.*")  # no string in our scripts holds two hyphens


class _Script:
    """A Lua script. Its text is sent the first time, which loads it, and its digest from then on.

    `suffix`: `_RO` for a script that only reads. The server enforces that, and lets users run it who may not
    write.
    """

    def __init__(self, name: str, suffix: str = "") -> None:
        text = resources.files("swapstore.drivers.redis").joinpath(name).read_text("utf-8")
        self.text = "\n".join(filter(None, (_COMMENT.sub("", line).strip() for line in text.splitlines())))
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self.sent = False
        self._suffix = suffix

    def frame(self, keys: Sequence[str], arguments: Sequence[Word], *, as_text: bool) -> Frame:
        known = self.sent and not as_text
        how = (f"EVALSHA{self._suffix}", self.sha) if known else (f"EVAL{self._suffix}", self.text)
        self.sent = True
        return (*how, len(keys), *keys, *arguments)


class Wire:
    """Encodes commands. It remembers which scripts the server was sent.

    `given_every_key`: the server runs only scripts that are passed every key that they touch.
    """

    def __init__(self, *, given_every_key: bool = False) -> None:
        self._given_every_key = given_every_key
        self._commit = _Script("commit.lua")
        self._replace = _Script("replace.lua")
        self._serve = _Script("serve.lua", "_RO")

    def frame(self, command: Command[Any], *, as_text: bool = False) -> Frame:
        """Return the words of one command. `as_text`: send scripts as text, which loads them."""
        if isinstance(command, Bundle):
            return self._commit.frame(*_commit_arguments(command.commit, command.stages), as_text=as_text)
        if isinstance(command, Swap):
            return self._commit.frame(*_commit_arguments(command), as_text=as_text)
        if isinstance(command, Replace):
            return self._replace.frame([command.key], [command.record, command.ttl_ms], as_text=as_text)
        if isinstance(command, GetServed):
            if self._given_every_key:
                return ("GET", command.key)
            arguments: list[Word] = [command.records.encode(), command.largest]
            return self._serve.frame([command.key], arguments, as_text=as_text)
        return _FRAMES[type(command)](command)


_FRAMES: dict[type[Command[Any]], Callable[[Any], Frame]] = {
    Get: lambda get: ("GET", get.key),
    Peek: lambda peek: ("GETRANGE", peek.key, 0, peek.size - 1),
    Members: lambda members: ("SMEMBERS", members.key),
    Ttl: lambda ttl: ("PTTL", ttl.key),
    Scan: lambda scan: ("SCAN", scan.cursor or "0", "MATCH", scan.pattern, "COUNT", scan.limit),
    Ask: lambda ask: ask.words,
    Stage: lambda stage: ("SET", stage.key, (stage.record, stage.body), "NX", "PX", stage.ttl_ms),
    Put: lambda put: ("SET", put.key, put.value, "PX", put.ttl_ms),
    Write: lambda write: ("SET", write.key, write.value),
    Register: lambda register: ("SADD", register.key, register.member),
    Keep: lambda keep: ("SET", keep.key, keep.value, "NX"),
    CompareAndSet: lambda cas: ("SET", cas.key, cas.value, "IFEQ", cas.expected),
    Drop: lambda drop: ("PEXPIRE", drop.key, 0, "XX"),  # expires now, unless it is permanent
    Expire: lambda expire: ("PEXPIRE", expire.key, expire.ttl_ms),
    Remove: lambda remove: ("DEL", remove.key),
}


def value(command: Command[Any], reply: Any) -> Any:
    """Return the answer that a reply of the server stands for."""
    return _VALUES[type(command)](reply)


def _commit_arguments(commit: Swap, brought_along: Sequence[Stage] = ()) -> tuple[list[str], list[Word]]:
    keys = [commit.key, commit.live_key, *(staged.key for staged in commit.staged), *commit.unlinked]
    arguments: list[Word] = [
        commit.expected,
        commit.prefix,
        commit.manifest,
        len(commit.staged),
        commit.staging_ttl_ms,
        commit.grace_ms,
        int(commit.whole),
    ]
    records = {stage.key: (stage.record, stage.body) for stage in brought_along}
    for staged in commit.staged:
        record = records.get(staged.key)
        arguments += (
            (int(staged.shared), staged.header) if record is None else (2 + int(staged.shared), record)
        )
    return keys, arguments


def _commit_reply(reply: Any) -> SwapReply:
    match reply:
        case b"committed" | [[b"committed"], *_]:
            return Committed()
        case [[b"already"], *_]:
            return Already()
        case [[b"conflict", current], *_]:
            return Mismatch(current)
        case [[b"unstaged", key, present], *_]:
            return Unstaged(key.decode(), bool(present))
        case [[b"held", key], *_]:
            return Held(key.decode())
    raise ReplyLost(f"the commit script gave an answer that is none of its own ({type(reply).__name__})")


def _scanned(reply: Any) -> Scanned:
    cursor, keys = reply
    return Scanned(
        tuple(key.decode("utf-8", "replace") for key in keys), None if cursor == b"0" else cursor.decode()
    )


_VALUES: dict[type[Command[Any]], Callable[[Any], Any]] = {
    Get: lambda reply: reply,
    GetServed: lambda reply: Served(*(reply or [None])) if isinstance(reply, list) else Served(reply),
    Peek: lambda reply: reply,
    Members: lambda reply: frozenset(member.decode("utf-8", "replace") for member in reply),
    Ttl: int,
    Scan: _scanned,
    Ask: lambda reply: reply,
    Stage: lambda reply: reply is not None,
    Put: lambda reply: None,  # noqa: ARG005
    Write: lambda reply: None,  # noqa: ARG005
    Register: lambda reply: None,  # noqa: ARG005
    Keep: lambda reply: reply is not None,
    CompareAndSet: lambda reply: reply is not None,
    Drop: lambda reply: None,  # noqa: ARG005
    Expire: lambda reply: None,  # noqa: ARG005
    Remove: lambda reply: None,  # noqa: ARG005
    Replace: bool,
    Swap: _commit_reply,
}
