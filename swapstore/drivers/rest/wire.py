"""Batches as HTTP bodies, and answers as replies: the form of Upstash's REST API, without any I/O.

A request is a JSON array of commands, each an array of texts. An answer is an array with one item a command:
`{"result": …}` or `{"error": "…"}`. Asked to, an endpoint encodes the texts of results in base64, so that
every byte comes back; one that ignores that answers in plain text.
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
    GetServed,
    Keep,
    Peek,
    Put,
    Register,
    Remove,
    Replace,
    Stage,
    Ttl,
    Write,
)
from swapstore.drivers import redis_wire
from swapstore.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.drivers.redis_wire import Frame

OK = b"OK"  # never encoded: it is a status, not a value

# What is echoed to find out how an endpoint answers. It is no base64 itself, so no answer can mean both.
PROBE = "base64?"
PROBING: Frame = ("ECHO", PROBE)
_PROBE_ENCODED = b64encode(PROBE.encode()).decode()


class Strings(enum.Enum):
    """How an endpoint writes the texts of its results."""

    BASE64 = "base64"
    PLAIN = "plain"


class Unreadable(Exception):  # noqa: N818
    """An answer that is none: nothing is known of what became of the commands."""


@attrs.frozen
class Refused:
    """The error of one item."""

    text: str


def body(commands: Sequence[Command[Any]], frames: Sequence[Frame], where: str) -> bytes:
    """Write a request. `frames` may be longer: by a probe."""
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
        f"the value of {key} cannot be sent to {where}: REST requests carry text, and this is none (UTF-8). "
        "Publish bytes with codec='bytes', which encodes them; write this key over the Redis protocol (rediss://)",
        key=key,
    )


def items(raw: bytes, count: int) -> list[Any]:
    """Read an answer to so many commands: results as they came, and errors as `Refused`."""
    try:
        answer = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Unreadable("no JSON") from None
    if not isinstance(answer, list):
        raise Unreadable("JSON that is not a list of answers")
    if len(answer) != count:
        raise Unreadable(f"{len(answer)} answers to {count} commands")
    return [_item(item) for item in answer]


def _item(item: Any) -> Any:
    match item:
        case {"error": str(text), **rest} if not rest.get("result"):
            return Refused(text)
        case {"result": result, **rest} if not rest.get("error"):
            return result
    raise Unreadable("an item that is neither a result nor an error")


def strings_of(probed: Any) -> Strings | None:
    """Tell how an endpoint writes texts, by its answer to the probe. None: it does not tell."""
    if probed == _PROBE_ENCODED:
        return Strings.BASE64
    return Strings.PLAIN if probed == PROBE else None


def guessed(results: Sequence[Any]) -> Strings:
    """Tell it by results alone, where echoing is not allowed: one text that is no base64 decides."""
    return Strings.PLAIN if any(map(_has_plain_text, results)) else Strings.BASE64


def _has_plain_text(result: Any) -> bool:
    if isinstance(result, list):
        return any(map(_has_plain_text, result))
    try:
        return isinstance(result, str) and result != "OK" and b64decode(result, validate=True) is None
    except ValueError:
        return True


def decoded(result: Any, strings: Strings) -> Any:
    """Turn the texts of a result into bytes."""
    if isinstance(result, str):
        if result == "OK":
            return OK
        if strings is Strings.PLAIN:
            return result.encode()
        try:
            return b64decode(result, validate=True)
        except ValueError:
            raise Unreadable("a text that is no base64") from None
    if isinstance(result, list):
        return [decoded(each, strings) for each in result]
    if result is None or (isinstance(result, int) and not isinstance(result, bool)):
        return result
    raise Unreadable(f"a result of an unexpected type ({type(result).__name__})")


def value(command: Command[Any], reply: Any) -> Any:
    """Return the value that a reply stands for, if it is one that this command can have."""
    expected = _EXPECTED.get(type(command))
    is_other = expected is not None and not isinstance(reply, expected)
    if is_other or (expected is _SET and reply not in {OK, None}):
        raise Unreadable(f"a reply that is none to this command ({type(reply).__name__})")
    try:
        return redis_wire.value(command, reply)
    except (TypeError, ValueError, AttributeError):
        raise Unreadable("a reply that is none to this command") from None


_SET = bytes | None  # OK, or nothing: it was not set
_EXPECTED: dict[type[Command[Any]], Any] = {
    Get: bytes | None,
    GetServed: bytes | None,
    Peek: bytes,
    Ttl: int,
    Stage: _SET,
    Keep: _SET,
    CompareAndSet: _SET,
    Put: bytes,
    Write: bytes,
    Register: int,
    Replace: int,
    Drop: int,
    Expire: int,
    Remove: int,
}
