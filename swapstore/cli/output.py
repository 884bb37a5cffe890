"""What is written when nobody looks: bytes, and JSON in UTF-8, whatever the locale."""

from __future__ import annotations

import sys
from typing import Any

import attrs
import msgspec


def emit(data: bytes) -> None:
    """Write bytes to stdout, at once: a pipe's reader need not wait for more.

    Under PYTHONUNBUFFERED a write may take only a part of them, and say so.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[sys.stdout.buffer.write(rest) :]
    sys.stdout.buffer.flush()


def emit_json(value: Any) -> None:
    """Write one value as one line of JSON; a class of attrs with its fields in their order."""
    plain = fields_of(value) if attrs.has(type(value)) else value
    emit(msgspec.json.encode(plain) + b"\n")


def fields_of(value: Any) -> dict[str, Any]:
    """The fields of a class of attrs. How an entry is stored is said only where it is not as usual."""
    return attrs.asdict(value, filter=lambda field, each: field.name != "encoding" or each is not None)
