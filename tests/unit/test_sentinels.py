"""What a store makes of the answers of sentinels, and what it leaves open; a test decides each answer."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Any

import pytest

from swapstore import Unavailable
from swapstore.commands import Get
from swapstore.drivers.base import Driver
from swapstore.drivers.redis import sentinel
from swapstore.drivers.redis.aio import AsyncRedisDriver
from swapstore.drivers.redis.driver import RedisDriver
from tests.aio.support import Blocking, InThread
from tests.support.deployment import until
from tests.support.interrupts import HANGS_S, Threads
from tests.support.nodes import Node, Refusal, Words


def naming(node: Node) -> Callable[[Words], Any]:
    """A sentinel's answers."""
    return lambda _: [node.address[0], str(node.address[1])]


def unaware(words: Words) -> Any:
    """The answers of a sentinel that watches nothing."""
    return [] if words == ["SENTINEL", "MASTERS"] else None


def of_primary(words: Words) -> Any:
    """A primary's answers."""
    return ["master", 0, []] if words == ["ROLE"] else "there"


def of_replica(words: Words) -> Any:
    """A replica's answers."""
    return ["slave", "127.0.0.1", 1, "connected", 0] if words == ["ROLE"] else "old"


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
        one.answer = unaware
        two.answer = naming(primary)
        driver = RedisDriver.from_url(url(one, two))
        asked: sentinel.Sentinels = driver._pool.connection_kwargs["sentinels"]
        with meanwhile(asked.doubt, sentinel.__name__):
            assert asked.primary() == primary.address
        assert driver.execute([Get("k")]) == [b"there"]
        driver.close()


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Driver]]:
    """Makes each of the two drivers for sentinels, which are closed in the end."""
    with ExitStack() as stack:
        if request.param == "asyncio":
            home = stack.enter_context(InThread())

        def made(*sentinels: Node) -> Driver:
            if request.param == "blocking":
                driver: Driver = RedisDriver.from_url(url(*sentinels))
            else:

                async def opened() -> AsyncRedisDriver:
                    await asyncio.sleep(0)
                    return AsyncRedisDriver.from_url(url(*sentinels))

                driver = Blocking(home.run(opened()), home)
            stack.callback(driver.close)
            return driver

        yield made


def asked_by(driver: Driver) -> Any:
    made: Any = getattr(driver, "_async", driver)
    return made._pool.connection_kwargs["sentinels"]


def executed(driver: Driver, times: int = 4) -> Any:
    """The reply to a command that is sent again while there is no connection, as the engine does."""
    for _ in range(times):
        with suppress(Unavailable):
            (reply,) = driver.execute([Get("k")])
            return reply
    return None


def test_a_closed_store_leaves_no_connection_open(connect: Callable[..., Driver]) -> None:
    """Each store that was closed keeps its connection to a sentinel, until it is collected."""
    with Node(of_primary) as primary, Node() as watching:
        watching.answer = naming(primary)
        driver = connect(watching)
        assert driver.execute([Get("k")]) == [b"there"]
        driver.close()
        until(lambda: not watching.open, "it is open")
        assert driver, "it was not collected before"


@pytest.mark.parametrize("old", ["gone", "a replica"])
def test_a_sentinel_that_names_an_old_primary_is_not_the_only_one_asked(
    connect: Callable[..., Driver], old: str
) -> None:
    """A sentinel that was cut off holds up a store, although the others know the new primary."""
    with Node() as behind, Node() as right, Node(of_replica) as before, Node(of_primary) as now:
        behind.answer, right.answer = naming(before), naming(now)
        if old == "gone":
            before.stop()
        assert executed(connect(behind, right)) == b"there"
        assert not before.count("GET")


def test_a_primary_that_does_not_tell_its_role_is_used(connect: Callable[..., Driver]) -> None:
    """A user without the right to ask for the role cannot use the store, or gets another command's reply."""

    def mute(words: Words) -> Any:
        return Refusal("NOPERM this user may not") if words == ["ROLE"] else of_primary(words)

    with Node(mute) as primary, Node() as watching:
        watching.answer = naming(primary)
        assert connect(watching).execute([Get("k")]) == [b"there"]


@pytest.mark.parametrize("way", ["gone", "unknown name", "refused"])
def test_connections_are_used_while_no_sentinel_answers(connect: Callable[..., Driver], way: str) -> None:
    """A store stops when its sentinels do, although its server is there."""
    with Node(of_primary) as primary, Node() as watching:
        watching.answer = naming(primary)
        driver = connect(watching)
        assert driver.execute([Get("k")]) == [b"there"]
        if way == "gone":
            watching.stop()
        watching.answer = (lambda _: Refusal("ERR busy")) if way == "refused" else unaware
        asked_by(driver)._due = 0.0
        assert driver.execute([Get("k")]) == [b"there"]


def test_an_idle_connection_to_a_primary_that_was_replaced_is_not_used(
    connect: Callable[..., Driver],
) -> None:
    """A commit goes to a server that the sentinels have replaced, and is lost."""
    with Node(of_primary) as before, Node(of_primary) as now, Node() as watching:
        watching.answer = naming(before)
        driver = connect(watching)
        assert driver.execute([Get("k")]) == [b"there"]
        watching.answer = naming(now)
        asked_by(driver)._due = 0.0
        assert driver.execute([Get("k")]) == [b"there"]
        assert (before.count("GET"), now.count("GET")) == (1, 1)


def test_sentinels_that_are_back_are_asked_again(
    connect: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage of all sentinels, commits go to a server that was replaced, as long as it answers."""
    monkeypatch.setattr(sentinel, "LATER_S", 0.0)
    with Node(of_primary) as before, Node(of_primary) as now, Node() as watching:
        watching.answer = naming(before)
        driver = connect(watching)
        assert driver.execute([Get("k")]) == [b"there"]
        watching.answer = unaware
        asked_by(driver)._due = 0.0
        assert driver.execute([Get("k")]) == [b"there"]
        watching.answer = naming(now)
        assert driver.execute([Get("k")]) == [b"there"]
        assert (before.count("GET"), now.count("GET")) == (2, 1)


@pytest.mark.parametrize("first", ["gone", "does not know", "refuses"])
def test_one_sentinel_that_cannot_tell_is_no_failure(connect: Callable[..., Driver], first: str) -> None:
    """A store needs the first sentinel of its address, although the others know the primary."""
    with Node() as one, Node() as two, Node(of_primary) as primary:
        one.answer = (lambda _: Refusal("NOPERM this user may not")) if first == "refuses" else unaware
        two.answer = naming(primary)
        if first == "gone":
            one.stop()
        assert connect(one, two).execute([Get("k")]) == [b"there"]


def test_a_connection_that_is_lent_while_the_primary_changes_is_used_no_more(
    connect: Callable[..., Driver],
) -> None:
    """A batch that was under way during a failover leaves its connection to the next one."""
    going_on, reached = threading.Event(), threading.Event()

    def slow(words: Words) -> Any:
        if words == ["GET", "slow"]:
            reached.set()
            going_on.wait(HANGS_S)
        return of_primary(words)

    with Node(slow) as before, Node(of_primary) as now, Node() as watching:
        watching.answer = naming(before)
        driver, threads = connect(watching), Threads()
        threads.start(driver.execute, [Get("slow")])
        assert reached.wait(HANGS_S)
        watching.answer = naming(now)
        asked_by(driver)._due = 0.0
        assert driver.execute([Get("k")]) == [b"there"]
        going_on.set()
        assert threads.join() == [[b"there"]]
        for _ in range(2):
            assert driver.execute([Get("k")]) == [b"there"]
        assert (before.count("GET"), now.count("GET")) == (1, 3)
