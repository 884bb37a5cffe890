"""Codecs: values to payload bytes and back. `json` and `bytes`, never pickle: reading must not run code.

JSON is strict in both directions. msgspec is the encoder because it is fast, but it is lenient where JSON is
not: NaN becomes null, sets become arrays, bytes become base64. So a value is checked before it is encoded,
and what JSON cannot hold is refused with its place in the value. What is read is what was published.

The check walks depth first and keeps track of the containers that it is in, so it refuses a value that
contains itself at once. A value that contains the same part many times is valid, but may be huge. So the walk
also counts the visited items, each of which takes at least a byte, and stops at the size limit.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import re
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore.arguments import payload_size, shown
from swapstore.errors import Corrupt, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

CODECS = ("json", "bytes")
MAX_DEPTH = 200  # well below what any reader's interpreter can decode
_LEAVES = frozenset({str, int, bool, type(None)})
_PLAIN = frozenset({dict, list, tuple, float})


def encode(value: Any, codec: str, *, limit_bytes: int) -> bytes:
    """Return the payload bytes of a value.

    `msgspec.Raw` with the codec `json` is JSON text that is already encoded: it is checked, and stored byte
    for byte. Raises `InvalidInput` with the place of what cannot be encoded, and `PayloadTooLarge` if the
    payload exceeds `limit_bytes`.
    """
    if codec == "json":
        payload = _encode_json(value, limit_bytes)
    elif codec == "bytes":
        if not isinstance(value, bytes | bytearray | memoryview):
            raise InvalidInput(
                f"codec 'bytes' takes bytes, not {type(value).__name__}: encode it first, or use codec='json'"
            )
        payload = bytes(value)
    else:
        raise InvalidInput(f"unknown codec {shown(codec)}: use one of {', '.join(CODECS)}")
    payload_size(len(payload), limit_bytes)
    return payload


def decode(raw: bytes, codec: str) -> Any:
    """Return the value of payload bytes. Raises `Corrupt` if the codec cannot decode them."""
    if codec == "bytes":
        return raw
    if codec != "json":
        raise Corrupt(
            f"this version of swapstore does not know the payload's codec {codec!r}; upgrade swapstore"
        )
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Corrupt(f"the payload is not JSON although its codec says so ({error}); use .raw") from error


def _encode_json(value: Any, limit_bytes: int) -> bytes:
    if isinstance(value, msgspec.Raw):
        text = bytes(value)
        payload_size(len(text), limit_bytes)
        _check(_parsed(text), limit_bytes)
        return text
    try:
        return msgspec.json.encode(_encodable(value, limit_bytes), enc_hook=_plain_scalar)
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "a string in the value has a lone surrogate, which UTF-8 cannot encode; clean the text first"
        ) from error
    except InvalidInput:
        raise
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the value cannot be encoded as JSON: {error}") from error


def _parsed(text: bytes) -> Any:
    if not text.strip():
        raise InvalidInput("the text is empty; JSON text has one value")
    if text.startswith(b"\xef\xbb\xbf"):
        raise InvalidInput(
            "the text begins with a byte order mark, which JSON does not allow; save it without one"
        )
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        place = _place(text, error)
        raise InvalidInput(f"the text is not JSON (UTF-8, no NaN or Infinity): {place}") from error


def _place(text: bytes, error: Exception) -> str:
    """Return where a text stops being JSON, by line and column, and why."""
    byte = re.search(r"\(byte (\d+)\)", str(error))
    offset, reason = int(byte[1]) if byte else 0, re.sub(r" \(byte \d+\)", "", str(error))
    try:
        json.loads(text.decode())
    except json.JSONDecodeError as found:  # msgspec counts bytes, and sometimes past the fault
        return f"line {found.lineno}, column {found.colno}: {found.msg.removesuffix(' at')}"
    except UnicodeDecodeError as found:
        offset, reason = found.start, f"byte 0x{text[found.start]:02x} is not UTF-8"
    except RecursionError:
        return reason
    before = text[:offset].decode("utf-8", "replace").split("\n")
    return f"line {len(before)}, column {len(before[-1]) + 1}: {reason}"


# --- what JSON can hold ----------------------------------------------------------------------------


def _encodable(value: Any, limit_bytes: int) -> Any:
    """Check a value, and return it with attrs classes and dataclasses as dicts of their fields.

    msgspec would encode the `__dict__` of these, including cached properties, and leave out names that begin
    with an underscore. It encodes its own structs as they declare.
    """
    return _without_records(value) if _check(value, limit_bytes) else value


def _check(value: Any, limit_bytes: int) -> bool:
    """Refuse what JSON cannot hold. Returns whether the value contains attrs classes or dataclasses."""
    walk = _Walk(limit_bytes)
    walk.enter(value)
    return walk.found_records


def _plain_scalar(item: Any) -> Any:
    """Return the plain form of a subclass that msgspec does not know (numpy.float64 is a float)."""
    if isinstance(item, str):
        return str.__str__(item)
    if isinstance(item, float):
        return float.__float__(item)
    if isinstance(item, int):
        return int.__int__(item)
    raise TypeError(f"{type(item).__name__} has no JSON form")


class _Walk:
    """A walk through one value."""

    def __init__(self, limit_bytes: int) -> None:
        self.found_records = False
        self._limit = limit_bytes
        self._visited = 0
        self._inside: list[Any] = []  # the containers around the current item, outermost first
        self._numbers: list[int] = []  # the position in each of them
        self._ids: set[int] = set()  # the ids of these containers

    def enter(self, item: Any) -> None:
        """Check an item and everything in it."""
        if type(item) not in _PLAIN:
            self.found_records = self.found_records or _is_record(item)
        fault = _fault(item, self._inside)
        if fault:
            raise self._refusal(fault)
        children = _children(item)
        if not children:
            return
        self._visited += len(children)
        if self._visited > self._limit:
            payload_size(self._visited, self._limit)
        if id(item) in self._ids:
            raise self._refusal("it refers to itself")
        if len(self._inside) == MAX_DEPTH:
            raise self._refusal(f"it is nested deeper than {MAX_DEPTH} levels")
        self._ids.add(id(item))
        self._inside.append(item)
        self._numbers.append(0)
        for number, child in enumerate(children):
            kind = type(child)
            if kind not in _LEAVES and not (kind is float and math.isfinite(child)):
                self._numbers[-1] = number
                self.enter(child)
        self._numbers.pop()
        self._inside.pop()
        self._ids.discard(id(item))

    def _refusal(self, fault: str) -> InvalidInput:
        path = "$" + "".join(map(_step, self._inside, self._numbers))
        if len(path) > 200:  # noqa: PLR2004 - the beginning of a long path is enough
            path = path[:200] + "…"
        return InvalidInput(f"JSON cannot hold the value: at {path}: {fault}")


def _step(container: Any, number: int) -> str:
    if isinstance(container, dict):
        return f".{list(dict.keys(container))[number]}"
    if isinstance(container, list | tuple):
        return f"[{number}]"
    if isinstance(container, enum.Enum):
        return ".value"
    return f".{[name for name, _ in _fields(container)][number]}"


def _fault(item: Any, inside: list[Any]) -> str | None:
    """Return why JSON cannot hold this item, its children aside; or None."""
    if isinstance(item, dict):
        for key in dict.keys(item):
            if not isinstance(key, str):
                return f"the key {shown(key)} is not a string; object keys must be, convert it with str()"
        return None
    if isinstance(item, list | tuple):
        return None
    if isinstance(item, float):
        return None if math.isfinite(item) else f"{item!r} is not a JSON number; use None"
    if _is_record(item):
        return "attrs classes and dataclasses cannot be inside a msgspec.Struct" if _struct(inside) else None
    if isinstance(item, str | int | enum.Enum | msgspec.Struct | None):
        return None
    if item is msgspec.UNSET and _struct(inside):
        return None
    return f"{type(item).__name__} has no JSON form; convert it (for example to str or list)"


def _struct(inside: list[Any]) -> bool:
    return any(isinstance(above, msgspec.Struct) for above in inside)


def _is_record(item: Any) -> bool:
    kind = type(item)
    return attrs.has(kind) or dataclasses.is_dataclass(kind)


def _fields(item: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(item, msgspec.Struct):
        return ((name, getattr(item, name)) for name in item.__struct_fields__)
    if attrs.has(type(item)):
        return ((field.name, getattr(item, field.name)) for field in attrs.fields(type(item)))
    return ((field.name, getattr(item, field.name)) for field in dataclasses.fields(item))


def _children(item: Any) -> Collection[Any]:
    if isinstance(item, dict):
        return dict.values(item)  # what msgspec encodes, also if a subclass overrides `values`
    if isinstance(item, list | tuple):
        return item
    if isinstance(item, enum.Enum):
        return (item.value,)
    if isinstance(item, msgspec.Struct) or _is_record(item):
        return [child for _, child in _fields(item)]
    return ()


def _without_records(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _without_records(child) for key, child in dict.items(item)}
    if isinstance(item, list | tuple):
        return [_without_records(child) for child in item]
    if isinstance(item, enum.Enum):
        return _without_records(item.value)
    if _is_record(item):
        return {name: _without_records(child) for name, child in _fields(item)}
    return item
