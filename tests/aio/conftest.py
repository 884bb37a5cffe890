"""Stores for the tests of `AsyncStore`: SQLite, fakeredis, and every real server there is."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import fakeredis
import fakeredis.aioredis
import pytest

import swapstore
import swapstore.aio
from swapstore.aio import AsyncStore
from tests.aio.support import Place
from tests.conftest import REAL_SERVERS, _url, kinds
from tests.support.valkey import Server


@pytest.fixture(params=kinds("sqlite", "fakeredis", *REAL_SERVERS))
def place(
    request: pytest.FixtureRequest, tmp_path: Path, servers: Callable[[str], Server]
) -> Iterator[Place]:
    """One store of each kind."""
    if request.param == "fakeredis":
        yield from _faked()
        return
    url = _url(request.param, tmp_path, servers)
    with swapstore.connect(url) as look:
        yield Place(request.param, lambda: swapstore.aio.connect(url), look)


def _faked() -> Iterator[Place]:
    server = fakeredis.FakeServer()

    @asynccontextmanager
    async def opened() -> AsyncIterator[AsyncStore]:
        client = fakeredis.aioredis.FakeRedis(server=server)
        async with client, swapstore.aio.connect(client) as store:
            yield store

    with fakeredis.FakeRedis(server=server) as client, swapstore.connect(client) as look:
        yield Place("fakeredis", opened, look)


@pytest.fixture(autouse=True)
def _nothing_left_behind(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A connection or task that is not closed fails the test that made it."""
    yield
    gc.collect()
    told = [record for record in caplog.records if record.name == "asyncio"]
    assert not [record for record in told if record.levelno >= logging.ERROR]
