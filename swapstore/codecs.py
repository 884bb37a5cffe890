"""Values to bytes and back: `json` and `bytes`. Never pickle.

JSON is strict both ways. msgspec is the encoder because it is fast, but it is lenient where JSON is not
(NaN becomes null, sets become arrays, bytes become base64), so the value is walked first and refused if
JSON cannot hold it: what is read back equals what was published.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore.errors import Corrupt, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

CODECS = ("json", "bytes")
MAX_DEPTH = 200  # well below what a reader's interpreter can decode, whatever its own stack looks like


def encode(value: Any, codec: str) -> bytes:
    """Return the payload bytes of `value`.

    `msgspec.Raw` under `json` is taken as JSON text that is already encoded: it is checked and stored as
    it is. Raises `InvalidInput` naming the place in the value that cannot be held.
    """
    if codec == "json":
        return _encode_json(value)
    if codec == "bytes":
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise InvalidInput(
            f"codec 'bytes' takes bytes, not {type(value).__name__}: encode it first, or use codec='json'"
        )
    raise InvalidInput(f"unknown codec {codec!r}: use one of {', '.join(CODECS)}")


def decode(raw: bytes, codec: str) -> Any:
    """Return the value of payload bytes; `Corrupt` if they are not what the codec writes."""
    if codec == "bytes":
        return raw
    if codec != "json":
        raise Corrupt(f"the payload's codec {codec!r} is unknown to this version of swapstore; upgrade it")
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Corrupt(f"the payload is not JSON although its codec says so ({error}); use .raw") from error


def _encode_json(value: Any) -> bytes:
    if isinstance(value, msgspec.Raw):
        return _checked_text(bytes(value))
    try:
        if _refuse_what_json_cannot_hold(value):
            value = _without_records(value)
        return msgspec.json.encode(value, enc_hook=_plain)
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "the value holds a string with a lone surrogate, which UTF-8 cannot carry; clean the text first"
        ) from error
    except InvalidInput:
        raise
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the value cannot be encoded as JSON: {error}") from error


def _checked_text(text: bytes) -> bytes:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the text is not JSON (UTF-8, no NaN or Infinity): {error}") from error
    _refuse_what_json_cannot_hold(value)
    return text


def _refuse_what_json_cannot_hold(value: Any) -> bool:
    """Walk the value level by level; a value that refers to itself ends at the depth limit.

    Returns whether it holds attrs classes or dataclasses.
    """
    level = [value]
    records = False
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if type(item) in _LEAVES:
                continue
            if _fault(item):
                raise InvalidInput(f"JSON cannot hold the value: {_locate(value)}")
            records = records or _is_record(item)
            below.extend(_children(item))
        if not below:
            return records
        level = below
    raise InvalidInput(f"the value is nested deeper than {MAX_DEPTH} levels, or refers to itself")


_LEAVES = frozenset({str, int, bool, type(None)})


def _fault(item: Any) -> str | None:
    """Say why JSON cannot hold this one item (its children aside), or None."""
    if isinstance(item, float):
        return None if math.isfinite(item) else f"{item!r} is not a JSON number; use None"
    if isinstance(item, dict):
        wrong = next((key for key in item if not isinstance(key, str)), "")
        return (
            None
            if isinstance(wrong, str)
            else f"the key {wrong!r} is not a string; object keys must be, convert it with str()"
        )
    if isinstance(item, str | int | list | tuple | enum.Enum) or _is_record(item):
        return None
    return f"{type(item).__name__} has no JSON form; convert it (for example to str or list)"


def _is_record(item: Any) -> bool:
    kind = type(item)
    return isinstance(item, msgspec.Struct) or attrs.has(kind) or dataclasses.is_dataclass(kind)


def _without_records(item: Any) -> Any:
    """Turn attrs classes and dataclasses into dicts of their fields.

    msgspec would encode their `__dict__`, cached properties included, and leave out names that begin with
    an underscore. It does treat its own structs as they declare.
    """
    if isinstance(item, dict):
        return {key: _without_records(child) for key, child in item.items()}
    if isinstance(item, list | tuple):
        return [_without_records(child) for child in item]
    if isinstance(item, msgspec.Struct):
        return msgspec.structs.replace(
            item, **{name: _without_records(child) for name, child in _fields(item)}
        )
    if _is_record(item):
        return {name: _without_records(child) for name, child in _fields(item)}
    return item


def _fields(item: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(item, msgspec.Struct):
        names: Iterable[str] = item.__struct_fields__
    elif attrs.has(type(item)):
        names = (field.name for field in attrs.fields(type(item)))
    else:
        names = (field.name for field in dataclasses.fields(item))
    return ((name, getattr(item, name)) for name in names)


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    if isinstance(item, list | tuple):
        return item
    if isinstance(item, enum.Enum):
        return (item.value,)
    if _is_record(item):
        return (child for _, child in _fields(item))
    return ()


def _locate(value: Any) -> str:
    """Find the first fault again, this time with its path. Only errors pay for paths."""
    pending: list[tuple[str, Any]] = [("$", value)]
    while pending:
        path, item = pending.pop()
        if fault := _fault(item) if type(item) not in _LEAVES else None:
            return f"at {path}: {fault}"
        if isinstance(item, dict):
            pending.extend((f"{path}.{key}", child) for key, child in item.items())
        elif isinstance(item, list | tuple):
            pending.extend((f"{path}[{index}]", child) for index, child in enumerate(item))
        elif _is_record(item):
            pending.extend((f"{path}.{name}", child) for name, child in _fields(item))
    return "the value changed while it was being read"


def _plain(item: Any) -> Any:
    """Give msgspec the plain form of subclasses it does not know (numpy.float64 is a float)."""
    if isinstance(item, str):
        return str.__str__(item)
    if isinstance(item, float):
        return float.__float__(item)
    if isinstance(item, int):
        return int.__int__(item)
    raise TypeError(f"{type(item).__name__} has no JSON form")
