"""What a traceback shows under an error of ours: what the client library or the system said, and no more."""

from __future__ import annotations

import asyncio
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpcore2
import pytest
import redis

import swapstore
import swapstore.aio
from swapstore.errors import SwapstoreError, Unavailable
from tests.support.valkey import free_port

SAYS_WHY = (SwapstoreError, redis.RedisError, httpcore2.ConnectError, sqlite3.Error, OSError)
ADDRESSES = {
    "redis": "redis://127.0.0.1:{port}/0",
    "sentinel": "redis+sentinel://127.0.0.1:{port}/mymaster/0",
    "cluster": "redis+cluster://127.0.0.1:{port}",
    "rest": "http://127.0.0.1:{port}",
}


def shown(error: BaseException | None) -> Iterator[BaseException]:
    """What a traceback prints, the last one first."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def assert_plain(error: Unavailable) -> None:
    """The error, and why; nothing that is caught and handled on the way."""
    chain = list(shown(error))
    printed = "".join(traceback.format_exception(error))
    assert not [each for each in chain if not isinstance(each, SAYS_WHY)], printed
    assert sum(isinstance(each, SwapstoreError) for each in chain) == 1, printed


def everything(store: swapstore.Store) -> list[Callable[[], object]]:
    return [
        lambda: store.read_latest("mena"),
        lambda: store.publish("mena", 1),
        lambda: list(store.history("mena")),
        lambda: store.read_latest_many(["mena", "europe"]),
    ]


@pytest.mark.parametrize("patience", [0, 0.2])
@pytest.mark.parametrize("kind", ADDRESSES)
def test_an_unreachable_server_is_the_only_reason_that_is_shown(kind: str, patience: float) -> None:
    """A job's log begins with `IndexError: pop from empty list`, which has nothing to do with the outage."""
    url = ADDRESSES[kind].format(port=free_port())
    token = "x" if kind == "rest" else None
    with swapstore.connect(url, patience=patience, token=token) as store:
        for call in everything(store):
            with pytest.raises(Unavailable) as raised:
                call()
            assert_plain(raised.value)


@pytest.mark.parametrize("patience", [0, 0.2])
@pytest.mark.parametrize("kind", ADDRESSES)
def test_and_for_asyncio(kind: str, patience: float) -> None:
    """The same in a service on asyncio."""

    async def main() -> None:
        url = ADDRESSES[kind].format(port=free_port())
        token = "x" if kind == "rest" else None
        async with swapstore.aio.connect(url, patience=patience, token=token) as store:
            for call in (store.read_latest("mena"), store.publish("mena", 1)):
                with pytest.raises(Unavailable) as raised:
                    await call
                assert_plain(raised.value)

    asyncio.run(main())


def test_a_busy_file(tmp_path: Path) -> None:
    """The traceback of a busy SQLite file shows what the driver has handled."""
    path = tmp_path / "s.db"
    with swapstore.connect(f"sqlite:///{path}", timeout=0.1, patience=0) as store:
        store.publish("mena", 1)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable) as raised:
                store.publish("mena", 2)
    assert_plain(raised.value)


def test_a_view_that_has_read_nothing_yet() -> None:
    """A web service that starts in an outage logs a `KeyError` for each request."""
    url = ADDRESSES["redis"].format(port=free_port())
    with swapstore.connect(url, patience=0) as store, store.view("mena", wait_ready=0) as view:
        with pytest.raises(Unavailable) as raised:
            view["mena"]
        assert_plain(raised.value)
