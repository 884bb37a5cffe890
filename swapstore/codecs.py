"""Codecs: values to payload bytes and back. `json` and `bytes`, never pickle: reading must not run code.

JSON is strict in both directions. msgspec is the encoder because it is fast, but it is lenient where JSON is
not: NaN becomes null, sets become arrays, bytes become base64. So a value is checked before it is encoded,
and what JSON cannot hold is refused with its place in the value. What is read is what was published.

Times, UUIDs, decimals and paths are texts in JSON, one exact text for each. pydantic models say themselves
what they are as JSON. pydantic is never imported here: a program that publishes a model has imported it.

What is encoded is what was checked: the check copies each container in one step before it looks at its parts,
and the copy is encoded. Another thread may change the value at any time.

The check walks depth first and keeps track of the containers that it is in, so it refuses a value that
contains itself at once. A value that contains the same part many times is valid, but may be huge. So such a
part is copied once, but its items are counted each time, each of which takes at least a byte, and the walk
stops at the size limit.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import enum
import json
import re
import sys
import uuid
import warnings
from collections.abc import Callable
from copy import copy
from decimal import Decimal
from itertools import chain
from math import isfinite
from pathlib import Path, PurePath
from typing import Any, Literal

import attrs
import msgspec

from swapstore.arguments import payload_size, shown
from swapstore.errors import Corrupt, InvalidInput
from swapstore.structs import Struct

Codec = Literal["json", "bytes"]
CODECS: tuple[Codec, ...] = ("json", "bytes")
Default = Callable[[Any], Any]
LONG = 16
MAX_DEPTH = 200  # well below what any reader's interpreter can decode
_LEAVES = frozenset({str, int, bool, type(None)})
_CELLS = _LEAVES | {float}


class Checked(Struct, frozen=True):
    """JSON text that `encode` has returned, in another thread perhaps: it is not checked again."""

    text: bytes


def encode(value: Any, codec: str, *, limit_bytes: int, default: Default | None = None) -> bytes:
    """Return the payload bytes of a value.

    `msgspec.Raw` with the codec `json` is JSON text that is already encoded: it is checked, and stored byte
    for byte. `default` is called for each part that has no JSON form, and returns what is encoded instead.

    Raises `InvalidInput` with the place of what cannot be encoded, or for any error that the value
    raises when it is read, and `PayloadTooLarge` if the payload exceeds `limit_bytes`.
    """
    try:
        payload = _encoded(value, codec, limit_bytes, default)
        payload_size(len(payload), limit_bytes)
    except InvalidInput:
        raise
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "a string in the value has a lone surrogate, which UTF-8 cannot encode; clean the text first"
        ) from error
    except Exception as error:
        kind = type(error).__name__
        raise InvalidInput(f"the value cannot be encoded: reading it raised {kind}, its cause") from error
    return payload


def known(codec: Any) -> Codec:
    """Return the name of a codec. Raises `InvalidInput` for any other value."""
    for each in CODECS:
        if isinstance(codec, str) and codec == each:
            return each
    raise InvalidInput(f"unknown codec {shown(codec)}: use one of {', '.join(CODECS)}")


def check_default(default: Any) -> None:
    """Raise `InvalidInput` if the `default` of a publish cannot be called."""
    if default is not None and not callable(default):
        kind = type(default).__name__
        raise InvalidInput(f"default must be a function that takes a part of the value, not a {kind}")


def _encoded(value: Any, codec: str, limit_bytes: int, default: Default | None) -> bytes:
    if known(codec) == "json":
        return _encode_json(value, limit_bytes, default)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidInput(
            f"codec 'bytes' takes bytes, not {type(value).__name__}: encode it first, or use codec='json'"
        )
    return bytes(value)


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


def _encode_json(value: Any, limit_bytes: int, default: Default | None) -> bytes:
    if type(value) is Checked:
        return value.text
    if isinstance(value, msgspec.Raw):
        text = bytes(value)
        payload_size(len(text), limit_bytes)
        _Walk(limit_bytes).checked(_parsed(text))
        return text
    if isinstance(value, str):
        _warn_of_json_text(value)
    return msgspec.json.encode(_Walk(limit_bytes, default).checked(value), enc_hook=_plain_scalar)


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


def _plain_scalar(item: Any) -> Any:
    """Return the plain form of a subclass that msgspec does not know (numpy.float64 is a float)."""
    if isinstance(item, str):
        return str.__str__(item)
    if isinstance(item, float):
        return float.__float__(item)
    if isinstance(item, int):
        return int.__int__(item)
    raise TypeError(f"{type(item).__name__} has no JSON form")


class _Fault(Exception):  # noqa: N818 - it becomes an `InvalidInput` at the top
    """Why JSON cannot hold an item. `path` leads from the item up to the whole value."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.path: list[str] = []


_UNDER_WAY = (None, None, 0, MAX_DEPTH)


class _Walk:
    """A walk through one value."""

    def __init__(self, limit_bytes: int, default: Default | None = None) -> None:
        self._limit = limit_bytes
        self._default = default
        self._visited = 0
        self._structs = 0  # how many structs the current item is in
        # By id: a container (so that the id stays its own), what is encoded, how many items are in it, and
        # how deep it was found: deeper down, its own parts may be nested too deep.
        self._made: dict[int, tuple[Any, Any, int, int]] = {}

    def checked(self, value: Any) -> Any:
        """Return a value as it is encoded, once it and everything in it is checked."""
        try:
            return self._checked(value, 0)
        except _Fault as fault:
            path = "$" + "".join(reversed(fault.path))
            if len(path) > 200:  # noqa: PLR2004 - the beginning of a long path is enough
                path = path[:200] + "…"
            raise InvalidInput(f"JSON cannot hold the value: at {path}: {fault}") from fault.__cause__

    def _checked(self, item: Any, depth: int) -> Any:
        """Return an item as it is encoded: attrs classes and dataclasses as dicts of their fields.

        msgspec would encode their `__dict__`, including cached properties, and leave out names that begin
        with an underscore. It encodes its own structs as they declare.
        """
        known = self._made.get(id(item))
        if known is not None and depth <= known[3]:
            return self._again(known)
        kind = type(item)
        is_plain = kind is dict or kind is list
        if is_plain:
            parts = item.copy()
        else:
            text = _TEXTS.get(kind)
            if text is not None:
                return text(item) if self._default is None else self._leaf(item, depth)
            parts = _parts(item)
            if parts is None:
                return self._leaf(item, depth)
        before = self._visited
        self._visited += len(parts)
        if self._visited > self._limit:
            payload_size(self._visited, self._limit)
        if depth == MAX_DEPTH and parts:
            raise _Fault(f"it is nested deeper than {MAX_DEPTH} levels")
        self._structs += (is_struct := not is_plain and isinstance(item, msgspec.Struct))
        check = self._check_dict if type(parts) is dict else self._check_list
        is_flat = check(id(item), parts, depth + 1)
        self._structs -= is_struct
        made = parts if is_plain else _made(item, parts)
        if not is_flat:
            self._made[id(item)] = (item, made, self._visited - before, depth)
        return made

    def _again(self, known: tuple[Any, Any, int, int]) -> Any:
        """Return what was made of a container that is in the value more than once."""
        if known is _UNDER_WAY:
            raise _Fault("it refers to itself")
        self._visited += known[2]
        payload_size(self._visited, self._limit)
        return known[1]

    def _check_dict(self, number: int, parts: dict[Any, Any], depth: int) -> bool:
        """Check the parts of a container, and replace those that are not leaves by what is encoded.

        `number` is the id of the container. Returns whether all parts are leaves.
        """
        is_flat = True
        for key, part in parts.items():
            if type(key) is not str and not isinstance(key, str):
                _convert_keys(parts)
                return self._check_dict(number, parts, depth)
            kind = type(part)
            if kind not in _LEAVES and not (kind is float and isfinite(part)):
                is_flat = False
                self._made[number] = _UNDER_WAY
                try:
                    parts[key] = self._checked(part, depth)  # the keys stay, so the iteration can go on
                except _Fault as fault:
                    fault.path.append(f".{key}")
                    raise
        return is_flat

    def _check_list(self, number: int, parts: list[Any], depth: int) -> bool:
        """Check the parts of a container, like `_check_dict`."""
        if len(parts) > LONG:
            if _are_leaves(parts):
                return True
            if depth < MAX_DEPTH and self._are_rows(parts):
                return False
        is_flat = True
        for place, part in enumerate(parts):
            kind = type(part)
            if kind not in _LEAVES and not (kind is float and isfinite(part)):
                is_flat = False
                self._made[number] = _UNDER_WAY
                try:
                    parts[place] = self._checked(part, depth)
                except _Fault as fault:
                    fault.path.append(f"[{place}]")
                    raise
        return is_flat

    def _are_rows(self, parts: list[Any]) -> bool:
        """Say whether all are objects whose parts are leaves, as in a table; then replace them by copies.

        For many it is faster than to look at each.
        """
        if set(map(type, parts)) != {dict} or not set(map(type, parts[0].copy().values())) <= _CELLS:
            return False
        if self._visited + sum(map(len, parts)) > self._limit:
            return False
        rows = list(map(dict.copy, parts))
        leaves = list(chain.from_iterable(map(dict.values, rows)))
        if not set(map(type, leaves)) <= _CELLS or not set(map(type, chain.from_iterable(rows))) <= {str}:
            return False
        if not all(map(isfinite, [leaf for leaf in leaves if type(leaf) is float])):
            return False
        self._visited += len(leaves)
        parts[:] = rows
        return True

    def _leaf(self, item: Any, depth: int) -> Any:
        """Return an item that is no container as it is encoded. Raises `_Fault` if JSON cannot hold it."""
        if isinstance(item, float):
            if not isfinite(item):
                raise _Fault(f"{item!r} is not a JSON number; use None")
            return item
        if isinstance(item, str | int | None) or (item is msgspec.UNSET and self._structs):
            return item
        if is_model(type(item)):
            return self._checked(_dumped(item), depth)
        try:
            return _text(item, is_whole=not depth)
        except _Fault:
            if self._default is None:
                raise
        if depth == MAX_DEPTH:  # what it returns may need it again, without an end
            raise _Fault(f"it is nested deeper than {MAX_DEPTH} levels")
        try:
            known = self._default(item)
        except Exception as error:
            name = _name(type(item))
            kind = type(error).__name__
            raise _Fault(f"{name} has no JSON form, and default raised {kind}, its cause") from error
        return self._checked(known, depth + 1)


def _parts(item: Any) -> Any:
    """Return a copy of what a container holds, as a dict or a list: what msgspec encodes. None: it is none.

    A dict or a list is copied in one step, without code of its class: no other thread comes in between.
    """
    if isinstance(item, dict):
        return dict.copy(item)
    if isinstance(item, list):
        return list.copy(item)
    if isinstance(item, tuple):
        return list(tuple.__iter__(item))
    if isinstance(item, enum.Enum):
        return {"value": item.value}
    if isinstance(item, msgspec.Struct):
        return {name: getattr(item, name) for name in item.__struct_fields__}
    if attrs.has(type(item)):
        return {field.name: getattr(item, field.name) for field in attrs.fields(type(item))}
    if dataclasses.is_dataclass(type(item)):
        return {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return None


def _are_leaves(parts: list[Any]) -> bool:
    """Say whether all are leaves. For many it is faster than to look at each."""
    kinds = set(map(type, parts))
    return kinds <= _LEAVES or (kinds <= {float} and all(map(isfinite, parts)))


def _made(item: Any, parts: Any) -> Any:
    """Return a container of these parts that is encoded like this item."""
    if isinstance(item, enum.Enum):
        return parts["value"]
    if isinstance(item, msgspec.Struct):
        made = copy(item)
        for name, part in parts.items():
            msgspec.structs.force_setattr(made, name, part)
        return made
    return parts


def _dumped(model: Any) -> Any:
    try:
        return model.model_dump(mode="json", by_alias=True)
    except Exception as error:
        raise _Fault(
            f"the model_dump of {_name(type(model))} raised {type(error).__name__}, its cause"
        ) from error


def is_model(kind: type) -> bool:
    """Say whether a class is a pydantic model, as pydantic 2 makes them."""
    return hasattr(kind, "model_dump") and any(
        base.__name__ == "BaseModel" and base.__module__ == "pydantic.main" for base in kind.__mro__
    )


# --- texts -------------------------------------------------------------------------------------------


def _moment(item: dt.datetime | dt.time) -> str:
    """Return a time as RFC 3339 writes it. A time of day may be without an offset from UTC."""
    offset = item.utcoffset()
    if isinstance(item, dt.datetime):
        text = dt.datetime.isoformat(item)
        if offset is None:
            raise _Fault(
                "a datetime without a time zone names no moment; write value.replace(tzinfo=timezone.utc) if "
                "it is in UTC, or value.astimezone() if it is in local time"
            )
    else:
        text = dt.time.isoformat(item)
        if offset is None and item.tzinfo is not None:
            raise _Fault(
                "its time zone has no offset from UTC without a date; publish a datetime, or name the zone"
            )
        if offset is None:
            return text
    if offset % dt.timedelta(minutes=1):
        raise _Fault(
            "its offset from UTC has seconds, which RFC 3339 cannot write; convert it with "
            ".astimezone(timezone.utc)"
        )
    return text if offset else text.removesuffix("+00:00") + "Z"


def _decimal(item: Decimal) -> str:
    if not Decimal.is_finite(item):
        raise _Fault(f"the Decimal {Decimal.__str__(item)} is not a number; use None")
    return Decimal.__str__(item)


_TEXTS: dict[type, Callable[[Any], str]] = {  # a datetime is a date, too
    dt.datetime: _moment,
    dt.date: dt.date.isoformat,
    dt.time: _moment,
    uuid.UUID: str,
    Decimal: _decimal,
    PurePath: str,
}


def _text(item: Any, *, is_whole: bool) -> str:
    """Return the text of an item that has one in JSON. Raises `_Fault` if it has none."""
    if _conversion(type(item)) is None:  # a pandas.Timestamp is a datetime, but finer
        for kind, text in _TEXTS.items():
            if isinstance(item, kind):
                return text(item)
    raise _Fault(_without_json_form(item, is_whole=is_whole))


def _convert_keys(parts: dict[Any, Any]) -> None:
    """Replace the keys of an object that are not strings by their texts."""
    texts: dict[str, Any] = {}
    for key, part in parts.items():
        text = key
        while isinstance(text, enum.Enum) and not isinstance(text, str):
            text = text.value
        if not isinstance(text, str):
            if not isinstance(text, tuple(_TEXTS)):
                raise _Fault(
                    f"the key {shown(key)} is not a string; object keys must be, convert it with str()"
                )
            text = _text(text, is_whole=False)
        if text in texts:
            raise _Fault(f"two keys are {shown(text)} as JSON")
        texts[text] = part
    parts.clear()
    parts.update(texts)


# --- advice ------------------------------------------------------------------------------------------

_CONVERSIONS = {  # by the package and the name of a class
    ("numpy", "ndarray"): ".tolist()",
    ("numpy", "generic"): ".item()",
    ("pandas", "DataFrame"): '.to_dict(orient="records")',
    ("pandas", "Series"): ".to_list()",
    ("pandas", "Index"): ".to_list()",
    ("pandas", "Timestamp"): ".to_pydatetime()",
    ("pandas", "NaTType"): "None in its place",
    ("pandas", "NAType"): "None in its place",
    ("polars", "DataFrame"): ".to_dicts()",
    ("polars", "LazyFrame"): ".collect().to_dicts()",
    ("polars", "Series"): ".to_list()",
    ("pydantic", "BaseModel"): "json.loads(value.json()): it is a model of pydantic 1",
    ("datetime", "timedelta"): ".total_seconds()",
    ("fractions", "Fraction"): "str()",
    ("builtins", "set"): "sorted()",
    ("builtins", "frozenset"): "sorted()",
}


def _without_json_form(item: Any, *, is_whole: bool) -> str:
    """Say which type it is, and how to convert it."""
    return f"{_name(type(item))} has no JSON form; {_advice(item, is_whole=is_whole)}"


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _conversion(kind: type) -> str | None:
    """Return the call that converts what has no JSON form, where it is known."""
    for base in kind.__mro__:
        call = _CONVERSIONS.get((base.__module__.partition(".")[0], base.__name__))
        if call is not None:
            return call
    return None


def _advice(item: Any, *, is_whole: bool) -> str:
    if isinstance(item, bytes | bytearray | memoryview):
        if is_whole:
            return "if it is JSON text, publish msgspec.Raw(value); if it is not, use codec='bytes'"
        return "convert it with .decode() if it is text, or base64.b64encode(…).decode()"
    call = _conversion(type(item))
    if call is not None:
        return f"convert it with {call}"
    if isinstance(item, collections.abc.Mapping):
        return "convert it with dict()"
    if isinstance(item, collections.abc.Iterable):
        return "convert it with list()"
    return "convert it (for example to str or list), or pass default="


def _warn_of_json_text(text: str) -> None:
    """Warn of a string that is a JSON object or array: most often `json.dumps` was called on the value."""
    if (text[:1], text[-1:]) not in {("{", "}"), ("[", "]")}:
        return
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return
    warnings.warn(
        "the value is a string that holds JSON: readers will get a string, not what it describes. Publish "
        "the value itself, or msgspec.Raw(text) to store the text as it is",
        stacklevel=_callers_level(),
    )


def _callers_level() -> int:
    """Return the `stacklevel` at which the code that called this library stands."""
    package, level = str(Path(__file__).parent), 1
    frame = sys._getframe(1)  # noqa: SLF001 - as `warnings` counts
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    return level
