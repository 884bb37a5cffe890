"""The Redis protocol without I/O, for every client of Redis: commands as words and bytes, replies as answers.

A driver bundles a batch (`bundled`), turns each command into words (`Wire.frame`), and these into bytes
(`packed`). It reads one reply for each command, and turns that into the command's answer (`value`).
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from swapstore.commands import (
    NOT_ON_DISK,
    Already,
    Ask,
    AwaitReplicas,
    Command,
    Committed,
    CompareAndSet,
    Drop,
    Expire,
    Failed,
    Get,
    GetAll,
    GetServed,
    Held,
    Keep,
    Members,
    Mismatch,
    Peek,
    Put,
    ReadCommand,
    Register,
    Remove,
    Replace,
    Scan,
    Scanned,
    Served,
    Stage,
    Swap,
    SwapReply,
    Time,
    Ttl,
    Ttls,
    Unregister,
    Unstaged,
    Write,
)
from swapstore.errors import ReplyLost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

Frame = tuple[Any, ...]  # the words of one command
Word = bytes | int | tuple[bytes, bytes]  # a tuple: one value in two parts, which need not be joined

NO_COPY = 256 * 1024  # bytes: a value of this size or more is sent as it is, without a copy
PORTION = 256 * 1024  # bytes to send in one call
_TO_A_COMMA = re.compile(rb"[^,\n]*,[^,\n]*,")  # the header of a ts record, as `commit.lua` finds it
LARGEST_BUNDLED = 16 * 1024  # bytes of a record: Lua copies each, which at 32 KB costs what a bundle saves

_SHORT = 512
_PREFIXES = [b"$%d\r\n" % size for size in range(_SHORT)]  # prepared: most words are short
_COMMENT = re.compile(r"--.*")  # no string in our scripts contains two hyphens


class _Script:
    """A Lua script. The first use sends its text, which loads it; later ones send its digest.

    `suffix`: `_RO` for a script that only reads. The server enforces that, and allows it to users who may not
    write.
    """

    def __init__(self, name: str, suffix: str = "") -> None:
        text = resources.files("swapstore.drivers.redis").joinpath(name).read_text("utf-8")
        self.text = "\n".join(filter(None, (_COMMENT.sub("", line).strip() for line in text.splitlines())))
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self.sent = False
        self._suffix = suffix

    def frame(self, keys: Sequence[str], arguments: Sequence[Word], *, as_text: bool) -> Frame:
        by_digest = self.sent and not as_text
        call = (f"EVALSHA{self._suffix}", self.sha) if by_digest else (f"EVAL{self._suffix}", self.text)
        self.sent = True
        return (*call, len(keys), *keys, *arguments)


class Wire:
    """Turns commands into words. It remembers which scripts were sent to the server.

    `given_every_key`: the server runs only scripts that get every key that they touch as an argument.
    """

    def __init__(self, *, given_every_key: bool = False) -> None:
        self._given_every_key = given_every_key
        self._commit = _Script("commit.lua")
        self._replace = _Script("replace.lua")
        self._serve = _Script("serve.lua", "_RO")
        self._ttls = _Script("ttls.lua", "_RO")

    def frame(self, command: Command[Any], *, as_text: bool = False) -> Frame:
        """Return the words of one command. `as_text`: send a script as text, which loads it."""
        words = _FRAMES.get(type(command))
        if words is not None:
            return words(command)
        if isinstance(command, Bundle):
            return self._commit.frame(*_commit_arguments(command.commit, command.stages), as_text=as_text)
        if isinstance(command, SharedWait):
            return self.frame(command.wait)
        if isinstance(command, Swap):
            return self._commit.frame(*_commit_arguments(command), as_text=as_text)
        if isinstance(command, Replace):
            return self._replace.frame([command.key], [command.record, command.ttl_ms], as_text=as_text)
        if isinstance(command, Ttls):
            return self._ttls.frame(command.keys, [], as_text=as_text)
        if isinstance(command, GetServed):
            if self._given_every_key:
                return ("GET", command.key)
            arguments: list[Word] = [command.records.encode(), command.bases.encode(), command.largest]
            arguments += [name.encode() for name in command.members]
            return self._serve.frame([command.key], arguments, as_text=as_text)
        raise TypeError(f"no command of the server carries out {type(command).__name__}")


_FRAMES: dict[type[Command[Any]], Callable[[Any], Frame]] = {
    Get: lambda get: ("GET", get.key),
    GetAll: lambda get: ("MGET", *get.keys),
    Peek: lambda peek: ("GETRANGE", peek.key, 0, peek.size - 1),
    Members: lambda members: ("SMEMBERS", members.key),
    Ttl: lambda ttl: ("PTTL", ttl.key),
    Scan: lambda scan: ("SCAN", scan.cursor or "0", "MATCH", scan.pattern, "COUNT", scan.limit),
    Time: lambda _: ("TIME",),
    Ask: lambda ask: ask.words,
    AwaitReplicas: lambda wait: (
        ("WAITAOF", 1, wait.replicas, wait.timeout_ms)
        if wait.fsync
        else ("WAIT", wait.replicas, wait.timeout_ms)
    ),
    Stage: lambda stage: ("SET", stage.key, (stage.record, stage.body), "NX", "PX", stage.ttl_ms),
    Put: lambda put: ("SET", put.key, put.value, "PX", put.ttl_ms),
    Write: lambda write: ("SET", write.key, write.value),
    Register: lambda register: ("SADD", register.key, register.member),
    Unregister: lambda unregister: ("SREM", unregister.key, unregister.member),
    Keep: lambda keep: ("SET", keep.key, keep.value, "NX"),
    CompareAndSet: lambda cas: (
        *("SET", cas.key, cas.value, "IFEQ", cas.expected),
        *(() if cas.ttl_ms is None else ("PX", cas.ttl_ms)),
    ),
    Drop: lambda drop: ("PEXPIRE", drop.key, 0, "XX"),  # expires now, unless it is permanent
    Expire: lambda expire: ("PEXPIRE", expire.key, expire.ttl_ms),
    Remove: lambda remove: ("DEL", remove.key),
}


def _commit_arguments(commit: Swap, stages: Sequence[Stage] = ()) -> tuple[list[str], list[Word]]:
    """Return the keys and arguments of `commit.lua`. `stages`: the records that it stages itself."""
    keys = [commit.key, commit.live_key, *(staged.key for staged in commit.staged), *commit.unlinked]
    keys += [each.key for each in commit.rewritten]
    arguments: list[Word] = [
        commit.expected,
        commit.prefix,
        commit.manifest,
        len(commit.staged),
        commit.staging_ttl_ms,
        commit.grace_ms,
        int(commit.whole) + 2 * commit.even_if_full,
    ]
    records = {stage.key: (stage.record, stage.body) for stage in stages}
    for staged in commit.staged:
        record = records.get(staged.key)
        arguments += (
            (int(staged.shared), staged.header)
            if record is None
            else (2 + int(staged.shared) + 2 * (not _is_line(staged.header)), record)
        )
    for each in commit.rewritten:
        arguments += (b"%d%b" % (each.needs_base, each.header), each.record)
    return keys, arguments


def _is_line(header: bytes) -> bool:
    return header.find(b"\n") == len(header) - 1


# --- bytes -----------------------------------------------------------------------------------------


def packed(frames: Iterable[Frame]) -> list[bytes]:
    """Return commands as RESP, in few pieces to send one after the other.

    redis-py sends each value of more than 6,000 bytes as a piece of its own. Each piece is a system call,
    which takes longer than the copy that it saves, up to tens of kilobytes.
    """
    pieces: list[bytes] = []
    small: list[bytes] = []
    for frame in frames:
        small.append(b"*%d\r\n" % len(frame))
        for word in frame:
            kind = type(word)
            if kind is tuple:  # a value in two parts
                first, rest = word
                size = len(first) + len(rest)
                if size < NO_COPY:
                    small += (b"$%d\r\n" % size, first, rest, b"\r\n")
                else:
                    small += (b"$%d\r\n" % size, first)
                    pieces += (b"".join(small), rest)
                    small = [b"\r\n"]
            else:
                data = word if kind is bytes else word.encode() if kind is str else b"%d" % word
                size = len(data)
                small += (_PREFIXES[size] if size < _SHORT else b"$%d\r\n" % size, data, b"\r\n")
    pieces.append(b"".join(small))
    return pieces


_ASKING: Frame = ("ASKING",)


def asking(frames: Iterable[Frame]) -> list[Frame]:
    """Return the same commands, each after an ASKING: the node of a cluster that a slot moves to wants it."""
    return [each for frame in frames for each in (_ASKING, frame)]


def portions(pieces: list[bytes]) -> Iterable[bytes]:
    """Return the pieces in portions that are sent one by one.

    redis-py allows its time-out for each call that sends. So that it bounds the silence and not the transfer,
    a large request is sent in several calls.
    """
    if len(pieces) == 1 and len(pieces[0]) <= PORTION:
        return pieces
    return [piece[start : start + PORTION] for piece in pieces for start in range(0, len(piece), PORTION)]


# --- bundles ---------------------------------------------------------------------------------------
#
# A commit stages the records of its batch itself: one command instead of three or four. The script replies
# and stores what the commands would, one after the other; a test compares the two. This halves the server's
# work, and saves encoding the commands and reading their replies.
#
# A server that does not know the script carries out nothing of a bundle. The text of the script and the
# records are then sent after the rest of the batch, so no later command of a batch may depend on them. None
# does.


class Bundle(Command[list[Any]], frozen=True):
    """Commands that stage records, and the commit right after them that relies on these records."""

    stages: tuple[Stage, ...]
    commit: Swap

    @property
    def in_commit_order(self) -> list[Stage]:
        """The records in the order in which the commit names them and the script answers."""
        stages = {stage.key: stage for stage in self.stages}
        return [stages[staged.key] for staged in self.commit.staged if staged.key in stages]

    def refused(self, refusal: Failed) -> list[Failed]:
        """Return a refusal for each of the commands: none of them had an effect."""
        return [refusal] * (len(self.stages) + 1)


class SharedWait(ReadCommand[int], frozen=True):
    """The last of several waits of a batch that ask for the same: its answer is that of all.

    `places`: where in the batch the others are.
    """

    wait: AwaitReplicas
    places: tuple[int, ...]


def bundled(commands: Sequence[Command[Any]]) -> list[Command[Any]]:
    """Return the same commands, with each commit bundled with the records that it can stage.

    Of several waits for replicas that ask for the same, only the last is left.
    """
    units: list[Command[Any]] = []
    waits: list[int] = []  # where in the batch
    for i, command in enumerate(commands):
        if type(command) is AwaitReplicas:
            waits.append(i)
        count = _stageable(command, units) if type(command) is Swap else 0
        if count:
            units[-count:] = [Bundle(tuple(units[-count:]), command)]  # type: ignore[arg-type]
        else:
            units.append(command)
    return _with_shared_waits(units, waits) if len(waits) > 1 else units


def _with_shared_waits(units: list[Command[Any]], places: list[int]) -> list[Command[Any]]:
    """Leave out each wait that a later one of the batch answers too. `places`: those of all waits."""
    found: list[Command[Any]] = []
    shared: list[tuple[AwaitReplicas, list[int]]] = []  # the later waits, and where the others are
    for unit in reversed(units):
        if type(unit) is not AwaitReplicas:
            found.append(unit)
            continue
        place = places.pop()
        others = next((others for wait, others in shared if wait.asks_like(unit)), None)
        if others is None:
            shared.append((unit, []))
            found.append(unit)
        else:
            others.insert(0, place)
    answering = {id(wait): SharedWait(wait, tuple(others)) for wait, others in shared if others}
    return [answering.get(id(unit), unit) for unit in reversed(found)]


def _stageable(commit: Swap, before: list[Command[Any]]) -> int:
    """Return how many commands right before a commit only stage records that the commit can stage itself."""
    headers = {staged.key: staged.header for staged in commit.staged}
    count = 0
    while count < len(before) and len(headers) == len(commit.staged) - count:
        stage = before[-1 - count]
        if (
            type(stage) is not Stage
            or headers.pop(stage.key, None) != stage.record
            or not (_is_line(stage.record) or _TO_A_COMMA.fullmatch(stage.record))
            or stage.ttl_ms != commit.staging_ttl_ms
            or (len(stage.record) + len(stage.body) > LARGEST_BUNDLED and not commit.even_if_full)
        ):
            break
        count += 1
    return count


# --- replies ---------------------------------------------------------------------------------------


def value(command: Command[Any], reply: Any) -> Any:
    """Return a command's answer for a reply of the server."""
    return _VALUES[type(command)](reply)


def _commit_reply(reply: Any) -> SwapReply:
    match reply:
        case b"committed" | [[b"committed"], *_]:
            return Committed()
        case [[b"already"], *_]:
            return Already()
        case [[b"mismatch", current], *_]:
            return Mismatch(current)
        case [[b"unstaged", key, present], *_]:
            return Unstaged(key.decode(), bool(present))
        case [[b"held", key], *_]:
            return Held(key.decode())
    raise ReplyLost(
        f"the commit script gave an unknown answer ({type(reply).__name__}); it may have committed"
    )


def _scanned(reply: Any) -> Scanned:
    cursor, keys = reply
    return Scanned(
        tuple(key.decode("utf-8", "replace") for key in keys), None if cursor == b"0" else cursor.decode()
    )


def _time(reply: Any) -> int | None:
    """Return the reply to `TIME`, seconds and microseconds, in milliseconds. None: it is no time."""
    try:
        seconds, micros = (int(part) for part in reply)
    except (TypeError, ValueError):
        return None
    return seconds * 1000 + micros // 1000


def _replicas(reply: Any) -> int:
    """Return how many replicas have it. `WAITAOF` also tells whether the server itself has it on disk."""
    local, replicas = reply if isinstance(reply, list) else (1, reply)
    return int(replicas) if local else NOT_ON_DISK


def _served(reply: Any) -> Served:
    if not isinstance(reply, list):
        return Served(reply)
    manifest, record, base, *_ = [*reply, None, None, None]
    return Served(manifest, record, base, tuple(reply[3:]))


_VALUES: dict[type[Command[Any]], Callable[[Any], Any]] = {
    Get: lambda reply: reply,
    GetAll: lambda reply: reply,
    GetServed: _served,
    Peek: lambda reply: reply,
    Members: lambda reply: frozenset(member.decode("utf-8", "replace") for member in reply),
    Ttl: int,
    Ttls: lambda reply: reply,
    Scan: _scanned,
    Time: _time,
    Ask: lambda reply: reply,
    AwaitReplicas: _replicas,
    Stage: lambda reply: reply is not None,
    Put: lambda reply: None,  # noqa: ARG005
    Write: lambda reply: None,  # noqa: ARG005
    Register: lambda reply: None,  # noqa: ARG005
    Unregister: lambda reply: None,  # noqa: ARG005
    Keep: lambda reply: reply is not None,
    CompareAndSet: lambda reply: reply is not None,
    Drop: lambda reply: None,  # noqa: ARG005
    Expire: lambda reply: None,  # noqa: ARG005
    Remove: lambda reply: None,  # noqa: ARG005
    Replace: bool,
    Swap: _commit_reply,
}
