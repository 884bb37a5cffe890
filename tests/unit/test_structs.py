"""Internal values: what a repr may show, and what two clients never share."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

import swapstore
from swapstore.cache import Cache
from swapstore.format.keys import Keys
from swapstore.protocol.context import Context
from swapstore.structs import Struct

PAYLOAD = b"hunter2"


def every_struct() -> list[type[Struct]]:
    """Each class of an internal value, of all modules whose extra is installed."""
    for module in pkgutil.walk_packages(swapstore.__path__, "swapstore."):
        if not module.name.endswith(("__main__", "hook-swapstore")):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                if f"{error.name}".startswith("swapstore"):
                    raise

    def below(kind: type[Struct]) -> Iterator[type[Struct]]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    return sorted(set(below(Struct)), key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")


def filled(field: Any, value: Any) -> Any:
    """What a field with this annotation holds: the bytes, alone or in tuples."""
    annotation = str(field)
    if "bytes" not in annotation:
        return value
    if "tuple[tuple" in annotation:
        return (("name", PAYLOAD),)
    return (PAYLOAD, None) if "tuple" in annotation else PAYLOAD


def test_no_repr_shows_a_payload() -> None:
    """A log, or a traceback with its local values, shows what was published."""
    shown = {}
    for kind in every_struct():
        annotated = [getattr(base, "__annotations__", {}) for base in kind.__mro__]
        fields = {name: next(a[name] for a in annotated if name in a) for name in kind.__struct_fields__}
        if any("bytes" in str(each) for each in fields.values()):
            made = kind(**{name: filled(each, None) for name, each in fields.items()})
            shown[kind.__qualname__] = repr(made)
    assert len(shown) > 15
    assert not {name for name, text in shown.items() if "hunter2" in text}
    assert all(text.startswith(f"{name}(") for name, text in shown.items())


def test_a_repr_shows_the_rest() -> None:
    """An error report says nothing but the name of a class."""

    class Made(Struct, frozen=True):
        name: str
        raw: bytes
        brought: tuple[tuple[str, bytes], ...]
        found: tuple[bytes | None, ...]
        keys: tuple[str, ...]

    made = Made("mena", PAYLOAD, (("b1", PAYLOAD),), (None, PAYLOAD), ("a", "b"))
    assert repr(made) == "Made(name='mena', keys=('a', 'b'))"


def test_internal_values_do_not_change() -> None:
    """A value that the cache holds is changed by one of its readers."""
    with pytest.raises(AttributeError):
        Keys("swapstore").namespace = "other"  # type: ignore[misc]
    assert not [kind for kind in every_struct() if not kind.__struct_config__.frozen]


def test_two_clients_share_nothing_that_changes() -> None:
    """What one client finds out about its server, every client of the process believes of its own."""
    first, second = (Context(keys=Keys("swapstore"), cache=Cache(0)) for _ in range(2))
    assert first.capabilities is not second.capabilities
    assert first.route is not second.route
    first.capabilities.awaits |= {False}
    assert second.capabilities.awaits == set()
