"""How the REST server runs the commands of a request on the real server, and which token may run which."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import attrs

from tests.support.resp import Failure, Status, Wire
from tests.support.rest_lag import COPY_DATABASE, Lag
from tests.support.rest_switches import Switches

Command = tuple[bytes, ...]

# Commands with their own path, or that need a session, or block ("REST - Redis API Compatibility").
_NOT_IN_REST = (
    "AUTH BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN CLIENT DISCARD EXEC HELLO"
    " MONITOR MULTI PSUBSCRIBE PUNSUBSCRIBE QUIT RESET SELECT SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE"
    " UNSUBSCRIBE UNWATCH WATCH"
)
NOT_IN_REST = frozenset(_NOT_IN_REST.split())
# Commands of Valkey that are not in the documented list.
_NOT_AVAILABLE = (
    "BGREWRITEAOF BGSAVE CLUSTER DEBUG FAILOVER LATENCY LOLWUT MIGRATE MODULE MOVE OBJECT PSYNC"
    " REPLICAOF SAVE SHUTDOWN SLAVEOF SLOWLOG SWAPDB SYNC"
)
NOT_AVAILABLE = frozenset(_NOT_AVAILABLE.split())
# Read commands that a read-only token may not run ("some powerful read commands").
NOT_FOR_READERS = frozenset(["SCAN", "KEYS"])


@attrs.frozen
class Rules:
    """What the server reports about its own commands."""

    flags: dict[str, frozenset[str]]

    @classmethod
    def ask(cls, wire: Wire) -> Rules:
        return cls(
            {
                info[0].decode().upper(): frozenset(each.decode() for each in [*info[2], *info[6]])
                for info in wire.ask("COMMAND")
            }
        )

    def reads(self, name: str) -> bool:
        return "readonly" in self.flags.get(name, ())

    def writes(self, name: str) -> bool:
        """Say whether a command may change data. A script may, whatever it does."""
        flags = self.flags.get(name, frozenset())
        return "write" in flags or name in {"EVAL", "EVALSHA", "FCALL"}

    def for_readers(self, name: str) -> bool:
        flags = self.flags.get(name, frozenset())
        return name in {"PING", "ECHO"} or (
            "@read" in flags and "@dangerous" not in flags and name not in NOT_FOR_READERS
        )


class Session:
    """The connections to the real server that belong to one HTTP connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._wires: dict[int, Wire] = {}

    def wire(self, *, copy: bool = False) -> Wire:
        database = COPY_DATABASE if copy else 0
        if database not in self._wires:
            self._wires[database] = Wire(self._port, database=database)
        return self._wires[database]

    def close(self) -> None:
        for each in self._wires.values():
            each.close()
        self._wires.clear()


@attrs.frozen
class Ran:
    """The outcome of a request: a reply for each command, or one failure that discarded a transaction."""

    replies: list[Any] | Failure
    position: int  # what the client may say it has seen


@attrs.frozen
class Runner:
    """Runs the commands of one request."""

    session: Session
    rules: Rules
    switches: Switches
    lag: Lag
    read_only: bool
    known: int
    planned: dict[int, str]  # the place of a command, from 0: the error it is answered with

    def one_by_one(self, commands: Sequence[Command]) -> Ran:
        """Each command by itself: a failure does not stop the others, and other clients may interleave.

        A request that has written reads what it wrote.
        """
        known, copied = self.known, False
        replies = []
        for place, command in enumerate(commands):
            refused = self._refused(place, command)
            if refused is not None:
                replies.append(refused)
                continue
            name = named(command)
            copy = self.rules.reads(name) and self.lag.reads_copy(known)
            reply = self.session.wire(copy=copy).ask(*command)
            copied = copied or copy
            if self.rules.writes(name):
                known = self.lag.wrote()
            replies.append(self._in_size(reply))
        return Ran(replies, max(known, self.lag.position(of_copy=copied)))

    def as_transaction(self, commands: Sequence[Command]) -> Ran:
        """All or none, except for a command that fails while it runs: its neighbours stay."""
        sent = []
        for place, command in enumerate(commands):
            refused = self._refused(place, command)
            if refused is None:
                sent.append(command)
            elif place not in self.planned:
                return Ran(refused, self.known)
        copy = all(self.rules.reads(named(each)) for each in sent) and self.lag.reads_copy(self.known)
        *queued, executed = self.session.wire(copy=copy).ask_all([("MULTI",), *sent, ("EXEC",)])
        if isinstance(executed, Failure):  # EXECABORT; the reason is in the reply of the command
            return Ran(next(each for each in queued if isinstance(each, Failure)), self.known)
        if any(self.rules.writes(named(each)) for each in sent):
            self.lag.wrote()
        rest = iter(executed)
        replies = [
            Failure(self.planned[place]) if place in self.planned else self._in_size(next(rest))
            for place in range(len(commands))
        ]
        return Ran(replies, max(self.known, self.lag.position(of_copy=copy)))

    def _refused(self, place: int, command: Command) -> Failure | None:
        """Return the error of a command that is not sent to the server."""
        name, switches = named(command), self.switches
        if place in self.planned:
            return Failure(self.planned[place])
        if name in switches.failing:
            return Failure(switches.failing[name])
        if name == "SET" and not switches.compares and b"IFEQ" in command:
            return Failure("ERR syntax error")
        if name in NOT_IN_REST:
            return Failure(f'ERR Command "{name}" is not allowed in REST or it has a special context path')
        if name in NOT_AVAILABLE or name in switches.denied or name not in self.rules.flags:
            return Failure(
                f"ERR Command is not available: '{name}'. "
                "See https://upstash.com/docs/redis/overall/rediscompatibility for details"
            )
        if self.read_only and not self.rules.for_readers(name):
            return Failure(
                f"NOPERM this user has no permissions to run the '{name.lower()}' command or its subcommand"
            )
        if switches.too_large == "command":
            return too_large(sum(map(len, command)), switches.cap_bytes)
        return None

    def _in_size(self, reply: Any) -> Any:
        """Return the reply, or the error that replaces it: the limit applies to replies too."""
        return too_large(_size(reply), self.switches.cap_bytes) or reply


def named(command: Command) -> str:
    return command[0].decode("utf-8", "replace").upper() if command else ""


def too_large(size: int, limit: int) -> Failure | None:
    if size <= limit:
        return None
    return Failure(f"ERR max request size exceeded. Limit: {limit} bytes, Actual: {size} bytes")


def _size(reply: Any) -> int:
    if isinstance(reply, list):
        return sum(map(_size, reply))
    return len(reply) if isinstance(reply, bytes) else 0


def shown(reply: Any, *, encoded: bool, encodes_ok: bool) -> dict[str, Any]:
    """Return a reply as an item of JSON. Errors are never encoded."""
    if isinstance(reply, Failure):
        return {"error": reply.text}
    if isinstance(reply, Status) and reply == b"OK" and not encodes_ok:
        return {"result": "OK"}
    return {"result": _shown(reply, encoded=encoded)}


def _shown(reply: Any, *, encoded: bool) -> Any:
    """In an array every string is encoded: the SDK decodes each there, even an `OK`."""
    if isinstance(reply, list):
        return [_shown(each, encoded=encoded) for each in reply]
    if isinstance(reply, Failure):  # of a script's table; not documented
        reply = reply.text.encode()
    if isinstance(reply, bytes):
        return base64.b64encode(reply).decode() if encoded else reply.decode("utf-8", "replace")
    return reply
