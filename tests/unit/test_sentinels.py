"""What a store makes of the answers of sentinels, and what it leaves open; a test decides each answer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from swapstore.commands import Get
from swapstore.drivers.redis import sentinel
from swapstore.drivers.redis.aio import AsyncRedisDriver
from swapstore.drivers.redis.driver import RedisDriver
from tests.support.deployment import until
from tests.support.nodes import Node, Words


def naming(node: Node) -> Callable[[Words], Any]:
    """A sentinel's answers."""
    return lambda _: [node.address[0], str(node.address[1])]


def of_primary(words: Words) -> Any:
    """A primary's answers."""
    return ["master", 0, []] if words == ["ROLE"] else "there"


def url(*sentinels: Node) -> str:
    hosts = ",".join(f"127.0.0.1:{node.address[1]}" for node in sentinels)
    return f"redis+sentinel://{hosts}/mymaster/0"


@contextmanager
def meanwhile(work: Callable[[], object], module: str) -> Iterator[None]:
    """Do something before each line of a module that this thread runs, as other threads may."""

    def trace(frame: FrameType, _event: str, _: Any) -> Any:
        if frame.f_globals.get("__name__") != module:
            return None
        work()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_threads_that_ask_at_the_same_time_lose_no_sentinel() -> None:
    """A store that is shared by threads does not know its sentinels any more, until it is made anew."""
    with Node() as one, Node() as two, Node(of_primary) as primary:
        one.answer = lambda _: None
        two.answer = naming(primary)
        driver = RedisDriver.from_url(url(one, two))
        asked: sentinel.Sentinels = driver._pool.connection_kwargs["sentinels"]
        with meanwhile(asked.doubt, sentinel.__name__):
            assert asked.primary() == primary.address
        assert driver.execute([Get("k")]) == [b"there"]
        driver.close()


@pytest.mark.parametrize("kind", [RedisDriver, AsyncRedisDriver])
def test_a_closed_store_leaves_no_connection_open(kind: Any) -> None:
    """Each store that was closed keeps its connection to a sentinel, until it is collected."""

    async def main() -> None:
        driver = kind.from_url(url(watching))
        assert await driver.execute([Get("k")]) == [b"there"]
        await driver.close()
        await asyncio.to_thread(until, lambda: not watching.open, "it is open")
        assert driver

    with Node(of_primary) as primary, Node() as watching:
        watching.answer = naming(primary)
        if kind is RedisDriver:
            driver = kind.from_url(url(watching))
            assert driver.execute([Get("k")]) == [b"there"]
            driver.close()
            until(lambda: not watching.open, "it is open")
            assert driver, "it was not collected before"
        else:
            asyncio.run(main())
