"""Upstash's REST API without I/O: batches as HTTP bodies, and answers as replies.

A request is a JSON array of commands, each an array of strings. An answer is an array with one item for each
command: `{"result": …}` or `{"error": "…"}`. At a client's request, an endpoint encodes the strings of
results in base64, so that every byte comes back; an endpoint that ignores the request answers in plain text.
"""

from __future__ import annotations

import enum
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore.commands import (
    Command,
    CompareAndSet,
    Drop,
    Expire,
    Get,
    GetAll,
    GetServed,
    Keep,
    Peek,
    Put,
    Register,
    Remove,
    Replace,
    Stage,
    Ttl,
    Ttls,
    Unregister,
    Write,
)
from swapstore.drivers.redis import wire
from swapstore.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swapstore.drivers.redis.wire import Frame

OK = b"OK"  # never encoded: it is a status, not a value

# Echoed to find out how an endpoint encodes strings. It is not valid base64, so no answer is ambiguous.
PROBE = "base64?"
PROBING: Frame = ("ECHO", PROBE)

# What is asked instead of a command that an endpoint lacks. The replies differ: see `value`.
_INSTEAD: dict[str, Callable[[Frame], Frame]] = {
    "GETRANGE": lambda frame: ("GET", frame[1]),
    "PTTL": lambda frame: ("TTL", frame[1]),
    "PEXPIRE": lambda frame: ("EXPIRE", frame[1], -(-frame[2] // 1000), *frame[3:]),
}
_PROBE_ENCODED = b64encode(PROBE.encode()).decode()


class Strings(enum.Enum):
    """How an endpoint encodes the strings of its results."""

    BASE64 = "base64"
    PLAIN = "plain"


class Unreadable(Exception):  # noqa: N818
    """The answer is invalid: whether the commands were carried out is unknown."""


@attrs.frozen
class ItemError:
    """The error of one item, as the endpoint's text."""

    text: str


def body(commands: Sequence[Command[Any]], frames: Sequence[Frame], where: str) -> bytes:
    """Write a request. `frames` may be one longer than `commands`: the probe."""
    rows = [
        [_text(word, command, where) for word in frame]
        for command, frame in zip([*commands, *[None] * (len(frames) - len(commands))], frames, strict=True)
    ]
    return msgspec.json.encode(rows)


def _text(word: Any, command: Command[Any] | None, where: str) -> str:
    if isinstance(word, tuple):
        word = b"".join(word)
    if not isinstance(word, bytes):
        return str(word)
    try:
        return word.decode()
    except UnicodeDecodeError:
        key = getattr(command, "key", None)
    raise InvalidInput(
        f"the value of {key} cannot be sent to {where}: it is not UTF-8 text, and REST requests carry only "
        "that. Publish bytes with codec='bytes', which encodes them; write this key over the Redis protocol "
        "(rediss://)",
        key=key,
    )


def instead(frame: Frame) -> Frame | None:
    """Return a frame of another command with the same effect. None: there is none."""
    other = _INSTEAD.get(frame[0])
    return None if other is None else other(frame)


def items(raw: bytes, count: int) -> list[Any]:
    """Read an answer to so many commands: results as they came, and errors as `ItemError`."""
    try:
        answer = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("a body that is not JSON") from None
    if not isinstance(answer, list):
        raise Unreadable("JSON that is not a list of answers")
    if len(answer) != count:
        raise Unreadable(f"{len(answer)} answers to {count} commands")
    return [_item(item) for item in answer]


def _item(item: Any) -> Any:
    match item:
        case {"error": str(text), **rest} if not rest.get("result"):
            return ItemError(text)
        case {"result": result, **rest} if not rest.get("error"):
            return result
    raise Unreadable("an item that is neither a result nor an error")


def strings_of(probed: Any) -> Strings | None:
    """Return how an endpoint encodes strings, from its answer to the probe. None: it does not show."""
    if probed == _PROBE_ENCODED:
        return Strings.BASE64
    return Strings.PLAIN if probed == PROBE else None


def guessed(results: Sequence[Any]) -> Strings:
    """Return it from results alone, where ECHO is not allowed: one string that is not base64 decides."""
    return Strings.PLAIN if any(map(_has_plain_text, results)) else Strings.BASE64


def _has_plain_text(result: Any) -> bool:
    if isinstance(result, list):
        return any(map(_has_plain_text, result))
    try:
        return isinstance(result, str) and result != "OK" and b64decode(result, validate=True) is None
    except ValueError:
        return True


def decoded(result: Any, strings: Strings) -> Any:
    """Turn the strings of a result into bytes."""
    if isinstance(result, str):
        if result == "OK":
            return OK
        if strings is Strings.PLAIN:
            return result.encode()
        try:
            return b64decode(result, validate=True)
        except ValueError:
            raise Unreadable("a string that is not base64") from None
    if isinstance(result, list):
        return [decoded(each, strings) for each in result]
    if result is None or (isinstance(result, int) and not isinstance(result, bool)):
        return result
    raise Unreadable(f"a result of an unexpected type ({type(result).__name__})")


def value(command: Command[Any], reply: Any, frame: Frame) -> Any:
    """Return a command's answer for the reply to a frame. Raises `Unreadable` for one that it cannot have."""
    match frame[0]:
        case "GET" if isinstance(command, Peek) and (reply is None or isinstance(reply, bytes)):
            reply = (reply or b"")[: command.size]
        case "TTL" if isinstance(reply, int) and reply > 0:
            reply = reply * 1000
    expected = _EXPECTED.get(type(command))
    is_other = expected is not None and not isinstance(reply, expected)
    if isinstance(command, GetAll | Ttls):
        kind = _EXPECTED[Get if isinstance(command, GetAll) else Ttl]
        is_other = is_other or [isinstance(each, kind) for each in reply] != [True] * len(command.keys)
    if is_other or (expected is _SET and reply not in {OK, None}):
        raise Unreadable(f"a reply that does not fit its command ({type(reply).__name__})")
    try:
        return wire.value(command, reply)
    except (TypeError, ValueError, AttributeError):
        raise Unreadable("a reply that does not fit its command") from None


_SET = bytes | None  # OK; None: it was not set
_EXPECTED: dict[type[Command[Any]], Any] = {
    Get: bytes | None,
    GetAll: list,
    GetServed: bytes | None,
    Peek: bytes,
    Ttl: int,
    Ttls: list,
    Stage: _SET,
    Keep: _SET,
    CompareAndSet: _SET,
    Put: bytes,
    Write: bytes,
    Register: int,
    Unregister: int,
    Replace: int,
    Drop: int,
    Expire: int,
    Remove: int,
}
