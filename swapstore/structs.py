"""The base class of what is internal and immutable. Public values are attrs classes."""

from __future__ import annotations

import msgspec


class Struct(msgspec.Struct, frozen=True):
    """Fields that do not change. A repr leaves out bytes: they may be a payload.

    An attrs class takes Python twenty times as long to make, and there are eighty here for every import.
    """

    def __repr__(self) -> str:
        named = ((name, getattr(self, name)) for name in self.__struct_fields__)
        shown = (f"{name}={each!r}" for name, each in named if not _holds_bytes(each))
        return f"{type(self).__name__}({', '.join(shown)})"


def _holds_bytes(value: object) -> bool:
    return isinstance(value, bytes) or (isinstance(value, tuple) and any(map(_holds_bytes, value)))
