"""Decoders: payload bytes to a value of the reader's own type, without a dict in between.

msgspec decodes attrs classes, dataclasses, its own structs, TypedDicts, and what is made of them. pydantic
decodes every type that has something of pydantic in it, as far down as the annotations lead. It is never
imported here: such a type exists only in a program that has imported pydantic.

What does not fit is described by its place and by what was expected there. The messages of the libraries are
not passed on as they are, nor chained to the error, because many of them quote the data.
"""

from __future__ import annotations

import re
import sys
import typing
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import PurePath
from typing import Any

import msgspec

from swapstore import codecs
from swapstore.arguments import shown
from swapstore.errors import InvalidInput, TypeMismatch

MOST_DECODERS = 512
LONGEST_PLACE = 200

Decoder = Callable[[bytes], Any]


class _Misfit(Exception):  # noqa: N818 - it becomes a `TypeMismatch`
    """Why a payload does not fit a type, and where."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason)
        self.place, self.reason = _clipped(place), _clipped(reason)


def decode(
    raw: bytes, codec: str, kind: Any, *, what: str, dataset: str | None = None, version: int | None = None
) -> Any:
    """Return the value of payload bytes as this type. `what` names the payload in an error.

    Raises `TypeMismatch` if it does not fit, `Corrupt` if it is not what its codec says, and `InvalidInput`
    if nothing can be decoded to this type.
    """
    decoder = decoder_of(kind)
    if codec == "bytes" and kind is bytes:
        return raw
    found = _attempt(decoder, raw) if codec == "json" else _not_json(raw, codec)
    if not isinstance(found, _Misfit):
        return found
    raise TypeMismatch(  # outside of every handler: no error of another library is its context
        f"{what} does not fit {_name(kind)}: at {found.place}: {found.reason}. Change the type, or publish "
        "what fits; read without a type, it is what was published",
        dataset=dataset,
        version=version,
        place=found.place,
    )


def decoder_of(kind: Any) -> Decoder:
    """Return the decoder of a type. Raises `InvalidInput` if nothing can be decoded to it."""
    try:
        hash(kind)
    except Exception:  # noqa: BLE001 - something in an `Annotated` has no hash, or it is no type at all
        return _made(kind)
    return _cached(kind)


def _attempt(decoder: Decoder, raw: bytes) -> Any:
    """Return the value, or the `_Misfit`. Raises `Corrupt` if the bytes are not JSON."""
    try:
        return decoder(raw)
    except _Misfit as misfit:
        found = misfit
    except InvalidInput:
        raise
    except Exception as error:  # noqa: BLE001 - code of the reader's classes may raise anything
        found = _Misfit("$", _own_code(error))
    codecs.decode(raw, "json")  # damage is no misfit
    return found


def _not_json(raw: bytes, codec: str) -> _Misfit:
    codecs.decode(raw, codec)
    return _Misfit("$", f"it was published with codec={codec!r} and is not JSON")


def _clipped(text: str) -> str:
    return text if len(text) <= LONGEST_PLACE else text[:LONGEST_PLACE] + "…"


def _own_code(error: BaseException) -> str:
    return f"code of the type raised {type(error).__name__}"


def _made(kind: Any) -> Decoder:
    try:
        return _Pydantic(kind) if _has_pydantic(kind) else _Msgspec(kind)
    except InvalidInput:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        said, unknown, _ = reason.partition(". Set `arbitrary_types_allowed=True`")
        reason = said[:LONGEST_PLACE] + ("; use a dataclass or a model in its place" if unknown else "")
        raise InvalidInput(f"nothing can be decoded to {_name(kind)}: {reason}") from error


_cached = lru_cache(MOST_DECODERS)(_made)


def _name(kind: Any) -> str:
    if not isinstance(kind, type) or typing.get_args(kind):
        return shown(kind)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# --- msgspec -----------------------------------------------------------------------------------------

_QUOTING = re.compile(r"(Invalid (?:enum )?value|Expected .* matching regex) .*", re.DOTALL)


class _Unsupported(Exception):  # noqa: N818 - it becomes an `InvalidInput`
    """A class that msgspec does not know. It is no `ValueError`, which msgspec would take for a misfit."""


class _Msgspec:
    """Decodes with msgspec."""

    def __init__(self, kind: Any) -> None:
        self._decode = msgspec.json.Decoder(kind, dec_hook=_other).decode

    def __call__(self, raw: bytes) -> Any:
        try:
            return self._decode(raw)
        except _Unsupported as error:
            raise InvalidInput(
                f"nothing can be decoded to {error}; use attrs classes, dataclasses, TypedDicts, msgspec "
                "structs or pydantic models"
            ) from None
        except msgspec.ValidationError as error:
            found = error
        reason, _, at = str(found).rpartition(" - at ")
        reason = reason or str(found)
        inside = re.fullmatch(r"(?:`key` in )?`(\$.*)`", at)
        place = _with_keys(self._decode, raw, inside[1], str(found)) if inside else "$"
        if found.__cause__ is not None:
            raise _Misfit(place, _own_code(found.__cause__))
        if at.startswith("`key`"):
            reason = f"a key: {reason}"
        raise _Misfit(place, _QUOTING.sub(r"\1", reason))


def _other(kind: Any, value: Any) -> Any:
    """Decode what msgspec has no decoder for."""
    if not (isinstance(kind, type) and issubclass(kind, PurePath)):
        raise _Unsupported(_name(kind))
    return kind(value) if isinstance(value, str) else value  # which msgspec refuses, with its place


def _with_keys(decode_: Decoder, raw: bytes, place: str, message: str) -> str:
    """Return a place with the keys of dicts, for which msgspec writes `[...]`."""
    if "[...]" in place:
        with suppress(Exception):  # then without them
            return _searched(decode_, msgspec.json.decode(raw), place, message)
    return place


def _searched(decode_: Decoder, document: Any, place: str, message: str) -> str:
    """Find each key by halving the dict that it is in, as long as decoding ends with the same message."""

    def still_fails() -> bool:
        try:
            decode_(msgspec.json.encode(root[0]))
        except msgspec.ValidationError as error:
            return str(error) == message
        return False

    root = [document]
    parent: Any = root
    slot: Any = 0
    found = "$"
    for name, number in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", place):
        node = parent[slot]
        step: Any = name
        if number == "...":
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            while len(keys) > 1:
                half = keys[: len(keys) // 2]
                parent[slot] = _part(node, half)
                keys = half if still_fails() else keys[len(half) :]
            (step,) = keys
            parent[slot] = node = _part(node, keys)
        elif number:
            step = int(number)
        found += f".{step}" if isinstance(node, dict) else f"[{step}]"
        parent, slot = node, 0 if number == "..." and isinstance(node, list) else step
    return found if still_fails() else place


def _part(node: Any, keys: list[Any]) -> Any:
    return {key: node[key] for key in keys} if isinstance(node, dict) else [node[key] for key in keys]


# --- pydantic ----------------------------------------------------------------------------------------


class _Pydantic:
    """Decodes with pydantic 2."""

    def __init__(self, kind: Any) -> None:
        pydantic = sys.modules["pydantic"]
        adapter = pydantic.TypeAdapter(kind)
        if not getattr(adapter, "pydantic_complete", True):
            raise InvalidInput(
                f"nothing can be decoded to {_name(kind)}: it names a class that is not defined"
            )
        self._decode = adapter.validate_json
        self._error = pydantic.ValidationError

    def __call__(self, raw: bytes) -> Any:
        try:
            return self._decode(raw)
        except self._error as error:
            faults = error.errors(include_url=False, include_context=False, include_input=False)
        document = codecs.decode(raw, "json")
        reason = f"pydantic: {faults[0]['type']}"
        if len(faults) > 1:
            reason += f", the first of {len(faults)} faults"
        raise _Misfit(_place(document, faults[0]), reason)


def _place(document: Any, fault: dict[str, Any]) -> str:
    """Return the place of a fault in the data. pydantic's has the names of the types of a union, too."""
    found, node = "$", document
    for step in fault["loc"]:
        if isinstance(node, dict) and str(step) in node:
            found, node = f"{found}.{step}", node[str(step)]
        elif isinstance(node, list) and isinstance(step, int) and step < len(node):
            found, node = f"{found}[{step}]", node[step]
    return f"{found}.{fault['loc'][-1]}" if fault["type"] == "missing" else found


def _has_pydantic(kind: Any) -> bool:
    """Say whether a type is of pydantic, or leads to one that is: by its arguments or its annotations."""
    if "pydantic" not in sys.modules:
        return False
    seen: list[Any] = []
    left = [kind]
    while left:
        each = left.pop()
        if any(each is known for known in seen):
            continue
        seen.append(each)
        if _is_of_pydantic(each):
            return True
        left += typing.get_args(each)
        left += [getattr(each, name) for name in ("__value__", "__supertype__") if hasattr(each, name)]
        origin = typing.get_origin(each) or each
        if isinstance(origin, type):
            with suppress(Exception):  # a name that is not defined: the decoder says so
                left += typing.get_type_hints(origin, include_extras=True).values()
    return False


def _is_of_pydantic(part: Any) -> bool:
    """Say whether a class, or what stands in an `Annotated`, is of pydantic, or made for it."""
    kind = part if isinstance(part, type) else type(part)
    for base in kind.__mro__:
        is_old = base.__module__ == "pydantic.v1.main" or not hasattr(kind, "model_dump")
        if base.__name__ == "BaseModel" and base.__module__.startswith("pydantic.") and is_old:
            raise InvalidInput(f"{_name(kind)} is a model of pydantic 1; use one of pydantic 2")
    return (
        kind.__module__.partition(".")[0] in {"pydantic", "annotated_types"}
        or hasattr(kind, "__get_pydantic_core_schema__")
        or hasattr(kind, "__pydantic_core_schema__")  # a dataclass of pydantic
    )
