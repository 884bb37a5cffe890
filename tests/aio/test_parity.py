"""`Store` and `AsyncStore` offer the same methods, arguments and documentation."""

from __future__ import annotations

import asyncio
import inspect
import pydoc
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

import swapstore
from swapstore import Store, codecs
from swapstore.aio import AsyncStore


def public(face: type) -> dict[str, Any]:
    return {name: inspect.getattr_static(face, name) for name in dir(face) if not name.startswith("_")}


METHODS = sorted(name for name, member in public(Store).items() if not isinstance(member, property))
ITERATING = {"history", "follow", "follow_many", "verify"}
WITHOUT_IO = {"view"}


def test_both_have_the_same_names() -> None:
    """A method is missing in one of the two stores, or has another name there."""
    assert public(Store).keys() == public(AsyncStore).keys()


@pytest.mark.parametrize("name", sorted(public(Store)))
def test_both_have_the_same_signatures_and_documentation(name: str) -> None:
    """An argument or a promise exists in one of the two stores only."""
    one, other = getattr(Store, name), getattr(AsyncStore, name)
    assert inspect.getdoc(one) == inspect.getdoc(other)
    assert inspect.getdoc(one)
    if not isinstance(one, property):
        assert inspect.signature(one).parameters == inspect.signature(other).parameters


@pytest.mark.parametrize("name", METHODS)
def test_every_method_that_does_io_is_a_coroutine(name: str) -> None:
    """A method of `AsyncStore` blocks the event loop."""
    assert inspect.iscoroutinefunction(getattr(AsyncStore, name)) == (name not in ITERATING | WITHOUT_IO)


def test_a_forgotten_await_or_async_is_explained(tmp_path: Path) -> None:
    """A newcomer to asyncio reads the name of a private class, and not what to write."""

    async def main() -> None:
        async with swapstore.aio.connect(f"sqlite:///{tmp_path}/s.db") as store:
            for name, made in (
                *(("history", store.history("mena")), ("follow", store.follow("mena"))),
                ("verify", store.verify()),
            ):
                what = f"the iterator that AsyncStore.{name} returns"
                with pytest.raises(TypeError, match=f"{what} cannot be .*: write `async for`"):
                    list(made)  # type: ignore[call-overload]
                with pytest.raises(TypeError, match=f"{what} is not awaited: .* `async for`"):
                    await made  # type: ignore[misc]
                assert repr(made) == f"<{what}: iterate over it with `async for`>"
            forgotten: Any = store.read_latest("mena")
            assert forgotten.__qualname__ == "AsyncStore.read_latest", "Python's own warning names it"
            forgotten.close()

    asyncio.run(main())
    assert Store.publish.__qualname__ == "Store.publish"


def test_both_connect_functions_take_the_same_arguments() -> None:
    """A program that moves to asyncio has to change more than its import."""
    ours, theirs = inspect.signature(swapstore.aio.connect), inspect.signature(swapstore.connect)
    assert ours.parameters == theirs.parameters


def test_a_program_without_asyncio_pays_nothing_for_it() -> None:
    """`import swapstore` loads asyncio or redis-py, or `swapstore.aio` is missing when asked for."""
    check = (
        "import sys, swapstore\n"
        "assert not {'asyncio', 'redis', 'swapstore.aio'} & set(sys.modules)\n"
        "assert swapstore.aio.AsyncStore and 'swapstore.aio' in sys.modules\n"
        "assert not hasattr(swapstore, 'no_such_name')\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_connection_shows_where_it_goes() -> None:
    """The repr of a store or of an address does not say where it is, or shows the password."""
    store = swapstore.aio.connect("redis://user:secret@example.org:6380/3", namespace="weather")
    assert repr(store) == "<swapstore.aio.AsyncStore redis://example.org:6380/3, namespace 'weather'>"
    assert (store.where, store.namespace) == ("redis://example.org:6380/3", "weather")


@pytest.mark.parametrize("face", [Store, AsyncStore])
@pytest.mark.parametrize("name", METHODS)
def test_help_shows_what_a_method_returns(face: type, name: str) -> None:
    """`help(Store.publish)` shows an operation, which no caller ever gets."""
    method = getattr(face, name)
    assert "Operation" not in pydoc.render_doc(method)
    assert "Steps" not in pydoc.render_doc(method)
    returned = inspect.signature(method).return_annotation
    assert method.__annotations__["return"] == returned
    expected = {"publish": "Commit", "read_latest": "Snapshot | None", "datasets": "list[str]"}
    assert returned == expected.get(name, returned)
    if name in ITERATING - {"follow", "follow_many"}:
        kind = "Iterator" if face is Store else "AsyncIterator"
        assert returned == f"{kind}[{'Row' if name == 'history' else 'Finding'}]"


def test_codecs_are_literals() -> None:
    """A type checker accepts a codec that does not exist."""
    assert get_args(codecs.Codec) == codecs.CODECS
    for method in (Store.publish, Store.publish_many, Store.put_live, AsyncStore.publish, swapstore.publish):
        assert inspect.signature(method).parameters["codec"].annotation == "Codec"
