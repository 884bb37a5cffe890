"""What the drivers make of nodes whose answers differ, are late or stop; a test decides each answer."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import attrs
import pytest
from redis.crc import key_slot

from swapstore import ReplyLost, StoreClosed
from swapstore.commands import Ask, Committed, Failed, Get, Put, Register, Stage, Staged, Swap, Time
from swapstore.drivers.base import Driver
from swapstore.drivers.redis import topology
from swapstore.drivers.redis.cluster import AsyncClusterDriver, ClusterDriver
from swapstore.testing.contract import scan_all
from tests.aio.support import Blocking, InThread
from tests.support.deployment import until
from tests.support.interrupts import HANGS_S, Threads
from tests.support.nodes import Node, Refusal, Words, slots

LAST = 16_383
HALF = 8_192
LOW, HIGH = "k:{c}", "k:{a}"  # keys of the first half of the slots, and of the second
assert key_slot(LOW.encode()) < HALF <= key_slot(HIGH.encode())


def url(*nodes: Node, query: str = "") -> str:
    hosts = ",".join(f"127.0.0.1:{node.address[1]}" for node in nodes)
    return f"redis+cluster://{hosts}{query}"


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Driver]]:
    """Makes each of the two drivers, which are closed in the end."""
    with ExitStack() as stack:
        if request.param == "asyncio":
            home = stack.enter_context(InThread())

        def made(*nodes: Node, query: str = "") -> Driver:
            if request.param == "blocking":
                driver: Driver = ClusterDriver.from_url(url(*nodes, query=query))
            else:

                async def opened() -> AsyncClusterDriver:
                    await asyncio.sleep(0)
                    return AsyncClusterDriver.from_url(url(*nodes, query=query))

                driver = Blocking(home.run(opened()), home)
            stack.callback(driver.close)
            return driver

        yield made


@contextmanager
def nodes(count: int) -> Iterator[list[Node]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Node()) for _ in range(count)]


def answering(table: list[Any], value: Any) -> Callable[[Words], Any]:
    """Answers `CLUSTER SLOTS` with a table, and everything else with a value."""
    return lambda words: table if words == ["CLUSTER", "SLOTS"] else value


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "REFRESH_EVERY_S", 0.0)


def until_answered(driver: Driver, command: Any, times: int = 8) -> Any:
    """The reply to a command that is sent again while it is refused for now, as the engine does."""
    for _ in range(times):
        (reply,) = driver.execute([command])
        if not (isinstance(reply, Failed) and reply.again):
            break
    return reply


# --- nodes that were cut off -----------------------------------------------------------------------


def test_a_primary_that_was_cut_off_is_not_asked_for_ever_who_is_primary(
    connect: Callable[..., Driver],
) -> None:
    """It takes itself for the primary and cannot serve; others know its successor and are never asked."""
    with nodes(3) as (old, new, third):
        before = slots((0, HALF - 1, old), (HALF, LAST, third))
        after = slots((0, HALF - 1, new), (HALF, LAST, third))
        old.answer = answering(before, Refusal("CLUSTERDOWN The cluster is down"))
        new.answer = answering(after, "new")
        third.answer = answering(after, "third")
        driver = connect(old, new, third)
        assert until_answered(driver, Get(LOW)) == b"new"


def test_nodes_that_name_one_that_is_gone_are_not_the_only_ones_asked(connect: Callable[..., Driver]) -> None:
    """Two nodes that were cut off go on to name a dead primary, and the third one is never asked."""
    with nodes(4) as (gone, one, two, other):
        before = slots(
            (0, HALF - 1, gone), (HALF, HALF, one), (HALF + 1, HALF + 1, two), (HALF + 2, LAST, other)
        )
        after = slots((0, HALF - 1, other), (HALF, LAST, other))
        one.answer = two.answer = answering(before, "cut off")
        other.answer = answering(after, "other")
        driver = connect(one, two, other)
        gone.stop()
        assert until_answered(driver, Get(LOW)) == b"other"


def test_what_any_node_can_answer_is_asked_of_one_that_is_there(connect: Callable[..., Driver]) -> None:
    """The store's clock cannot be read while the first of the primaries is down."""
    with nodes(2) as (gone, there):
        gone.stop()
        there.answer = answering(slots((0, HALF - 1, gone), (HALF, LAST, there)), ["5", "0"])
        driver = connect(there)
        assert until_answered(driver, Time()) == 5000


# --- several groups for one node -------------------------------------------------------------------


def test_a_key_that_has_moved_and_one_that_is_there_need_one_connection(
    connect: Callable[..., Driver],
) -> None:
    """A batch holds the only connection to a node, and waits for it."""
    with nodes(2) as (source, target):
        table = slots((0, HALF - 1, source), (HALF, LAST, target))
        source.answer = answering(
            table, Refusal(f"ASK {key_slot(LOW.encode())} 127.0.0.1:{target.address[1]}")
        )
        target.answer = answering(table, "there")
        driver = connect(source, query="?max_connections=1&timeout=0.5")
        (first, second) = driver.execute([Get(LOW), Get(HIGH)])
        assert isinstance(first, Failed)
        assert second == b"there"
        assert driver.execute([Get(LOW), Get(HIGH)]) == [b"there", b"there"]
        assert target.count("ASKING") == 1


def test_asking_where_a_slot_moves_holds_up_nobody(
    connect: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch waits for a connection to one node while it holds that to another, which others wait for."""
    monkeypatch.setattr(topology, "LASTING_S", 0.0)
    asked, going_on = threading.Event(), threading.Event()
    with nodes(2) as (low, high):
        table = slots((0, HALF - 1, low), (HALF, LAST, high))

        def of_low(words: Words) -> Any:
            if words == ["CLUSTER", "NODES"]:
                asked.set()
                going_on.wait(HANGS_S)
                return b""
            return answering(table, Refusal("TRYAGAIN Multiple keys request during rehashing of slot"))(words)

        low.answer, high.answer = of_low, answering(table, "high")
        driver, threads = connect(low, high, query="?max_connections=1&timeout=0.5"), Threads()
        threads.start(driver.execute, [Get(LOW), Get(HIGH)])
        assert asked.wait(HANGS_S)
        assert driver.execute([Get(HIGH)]) == [b"high"]
        going_on.set()
        threads.join()


# --- stores that are closed, and nodes that leave --------------------------------------------------


class Gate:
    """Holds up the answer to a command until it is opened."""

    def __init__(self, answer: Callable[[Words], Any], *words: str) -> None:
        self._answer, self._words = answer, list(words)
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, words: Words) -> Any:
        if words[: len(self._words)] == self._words:
            self.reached.set()
            self.opened.wait(HANGS_S)
        return self._answer(words)


def test_a_store_that_is_closed_while_the_table_is_read(connect: Callable[..., Driver]) -> None:
    """A call that waits for the table is cancelled, as if somebody had cancelled its task, or hangs."""
    with nodes(1) as (node,):
        gate = node.answer = Gate(answering(slots((0, LAST, node)), "there"), "CLUSTER", "SLOTS")
        driver, threads = connect(node), Threads()
        threads.start(driver.execute, [Get(LOW)])
        assert gate.reached.wait(HANGS_S)
        closing = Threads()
        closing.start(driver.close)
        until(lambda: inner(driver)._closed, "it is not closed")
        gate.opened.set()
        assert closing.join() == [None]
        (result,) = threads.join()
        assert isinstance(result, StoreClosed), repr(result)


def test_a_node_that_leaves_while_calls_wait_for_it(connect: Callable[..., Driver]) -> None:
    """They are told that the store was closed."""
    with nodes(2) as (leaving, staying):
        everything = slots((0, HALF - 1, leaving), (HALF, LAST, staying))
        gate = leaving.answer = Gate(answering(everything, "leaving"), "GET")
        staying.answer = answering(everything, "staying")
        driver, threads = connect(staying, query="?max_connections=1"), Threads()
        threads.start(driver.execute, [Get(LOW)])
        assert gate.reached.wait(HANGS_S)
        threads.start(driver.execute, [Get("other:{c}")])
        until(lambda: is_waited_for(driver, leaving), "it does not wait")
        staying.answer = answering(slots((0, LAST, staying)), "staying")
        inner(driver)._stale = True
        assert driver.execute([Get(HIGH)]) == [b"staying"]
        gate.opened.set()
        for (reply,) in threads.join():
            assert reply == b"leaving" or (isinstance(reply, Failed) and reply.again)
        assert until_answered(driver, Get(LOW)) == b"staying"


def inner(driver: Driver) -> Any:
    return getattr(driver, "_async", driver)


def is_waited_for(driver: Driver, node: Node) -> bool:
    """Whether a call waits for a connection to the node."""
    made = inner(driver)._nodes[node.address]
    return bool(made._limiter._slots._waiters if hasattr(made, "_limiter") else made._pool._waiting)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_while_the_table_is_read() -> None:
    """A child waits for a reading of the table that only its parent would end."""

    async def used(driver: AsyncClusterDriver) -> Any:
        async with asyncio.timeout(HANGS_S):
            return await driver.execute([Get(LOW)])

    async def main(node: Node, gate: Gate) -> None:
        driver = AsyncClusterDriver.from_url(url(node))
        task = asyncio.ensure_future(driver.execute([Get(LOW)]))
        await asyncio.to_thread(gate.reached.wait, HANGS_S)
        gate.opened.set()
        child = os.fork()
        if not child:
            status = 1
            try:
                asyncio._set_running_loop(None)
                status = 0 if asyncio.run(used(driver)) == [b"there"] else 2
            finally:
                os._exit(status)
        assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0
        assert await task == [b"there"]
        await driver.close()

    with nodes(1) as (node,):
        gate = node.answer = Gate(answering(slots((0, LAST, node)), "there"), "CLUSTER", "SLOTS")
        asyncio.run(main(node, gate))


def test_a_store_whose_event_loop_ended_is_closed() -> None:
    """Closing it in another event loop waits for a reading of the table that nobody ends."""
    loop = asyncio.new_event_loop()
    with nodes(1) as (node,):
        driver = AsyncClusterDriver.from_url(url(node))
        driver._loading = loop.create_future()
        loop.close()

        async def end() -> None:
            async with asyncio.timeout(HANGS_S):
                await driver.close()

        asyncio.run(end())


def test_a_closed_store_has_no_batch_under_way_at_a_node_that_left() -> None:
    """A batch ends after the store was closed, or its event loop before the batch."""

    async def main() -> None:
        driver = AsyncClusterDriver.from_url(url(staying))
        task = asyncio.ensure_future(driver.execute([Get(LOW)]))
        await asyncio.to_thread(gate.reached.wait, HANGS_S)
        staying.answer = answering(slots((0, LAST, staying)), "staying")
        driver._stale = True
        assert await driver.execute([Get(HIGH)]) == [b"staying"]
        timer = threading.Timer(0.1, gate.opened.set)
        timer.start()
        await driver.close()
        assert task.done()
        assert await task == [b"leaving"]

    with nodes(2) as (leaving, staying):
        everything = slots((0, HALF - 1, leaving), (HALF, LAST, staying))
        gate = leaving.answer = Gate(answering(everything, "leaving"), "GET")
        staying.answer = answering(everything, "staying")
        asyncio.run(main())


# --- where a command goes --------------------------------------------------------------------------


def key_in(slot: int) -> str:
    return next(key for number in range(1 << 20) if key_slot((key := f"k{number}").encode()) == slot)


def test_the_first_and_the_last_slot_of_each_node_are_served(connect: Callable[..., Driver]) -> None:
    """Datasets in one slot of a node are unavailable, or another node is asked for them."""
    with nodes(2) as (low, high):
        table = slots((0, HALF - 1, low), (HALF, LAST, high))
        low.answer, high.answer = answering(table, "low"), answering(table, "high")
        driver = connect(low)
        replies = driver.execute([Get(key_in(slot)) for slot in (0, HALF - 1, HALF, LAST)])
        assert replies == [b"low", b"low", b"high", b"high"]


@pytest.mark.parametrize("host", ["", None, "?"], ids=["empty", "null", "unknown"])
def test_a_node_that_does_not_know_its_host_is_where_it_was_asked(
    connect: Callable[..., Driver], host: str | None
) -> None:
    """Nodes that were not told their own address cannot be reached, in the table or after a move."""
    with nodes(2) as (low, high):
        table = slots((0, HALF - 1, low), (HALF, LAST, high), host=host)
        moved = Refusal(f"MOVED {key_slot(LOW.encode())} {host or ''}:{high.address[1]}")
        low.answer, high.answer = answering(table, moved), answering(table, "high")
        driver = connect(low)
        assert driver.execute([Get(HIGH)]) == [b"high"]
        driver.execute([Get(LOW)])
        inner(driver)._stale = False
        assert driver.execute([Get(LOW)]) == [b"high"]


def test_a_slot_that_moves_to_an_address_of_ipv6(connect: Callable[..., Driver]) -> None:
    """The colons of an address are taken for the one before its port."""
    with ExitStack() as stack:
        old = stack.enter_context(Node())
        try:
            new = stack.enter_context(Node(host="::1"))
        except OSError:
            pytest.skip("this machine has no IPv6")
        table = slots((0, LAST, old))
        old.answer = answering(table, Refusal(f"MOVED {key_slot(LOW.encode())} ::1:{new.address[1]}"))
        new.answer = answering(table, "new")
        driver = connect(old)
        driver.execute([Get(LOW)])
        inner(driver)._stale = False
        assert driver.execute([Get(LOW)]) == [b"new"]


@pytest.mark.parametrize("word", ["ZSCAN", "ZRANGE", "zrange"])
def test_a_question_about_a_key_goes_where_the_key_is(connect: Callable[..., Driver], word: str) -> None:
    """What is asked in words goes to any node, and is refused there for ever."""
    with nodes(2) as (low, high):
        table = slots((0, HALF - 1, low), (HALF, LAST, high))
        low.answer, high.answer = answering(table, "low"), answering(table, "high")
        driver = connect(low)
        assert driver.execute([Ask((word, HIGH, "0")), Ask((word, LOW, "0"))]) == [b"high", b"low"]


def test_a_migration_that_is_given_up_is_not_followed(connect: Callable[..., Driver]) -> None:
    """A key goes to the node that an ASK named once, although that has not had the slot for long."""
    with nodes(2) as (source, target):
        table, slot = slots((0, LAST, source)), key_slot(LOW.encode())
        source.answer = answering(table, Refusal(f"ASK {slot} 127.0.0.1:{target.address[1]}"))
        target.answer = answering(table, Refusal(f"MOVED {slot} 127.0.0.1:{source.address[1]}"))
        driver = connect(source)
        driver.execute([Get(LOW)])
        source.answer = answering(table, "source")
        (reply,) = driver.execute([Get(LOW)])
        assert isinstance(reply, Failed)
        assert driver.execute([Get(LOW)]) == [b"source"]


def test_a_migration_of_long_ago_is_not_followed(
    connect: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that gave up leaves behind where its key went, and much later another call goes there."""
    monkeypatch.setattr(topology, "ASKED_S", 0.0)
    with nodes(2) as (source, target):
        table, slot = slots((0, LAST, source)), key_slot(LOW.encode())
        source.answer = answering(table, Refusal(f"ASK {slot} 127.0.0.1:{target.address[1]}"))
        target.answer = answering(table, None)
        driver = connect(source)
        driver.execute([Get(LOW)])
        source.answer = answering(table, "source")
        inner(driver)._stale = True
        assert driver.execute([Get(LOW)]) == [b"source"]


def test_a_commit_takes_its_records_along_where_its_slot_moves(connect: Callable[..., Driver]) -> None:
    """The commit goes to the new node and its records to the old one, so it can never be carried out."""
    stage = Stage("new:{c}", b'{"id":"a"}\n', 1000)
    commit = Swap(
        key="m:{c}",
        expected=b"",
        prefix=b"",
        manifest=b"{}",
        live_key="live:{c}",
        staged=(Staged(stage.key, stage.record),),
        staging_ttl_ms=1000,
        grace_ms=1000,
    )
    with nodes(2) as (source, target):
        table, slot = slots((0, LAST, source)), key_slot(LOW.encode())
        source.answer = answering(table, Refusal(f"ASK {slot} 127.0.0.1:{target.address[1]}"))
        target.answer = answering(table, b"committed")
        driver = connect(source)
        assert all(isinstance(reply, Failed) for reply in driver.execute([stage, commit]))
        assert driver.execute([stage, commit]) == [True, Committed()]
        assert [words[0] for words in target.asked] == ["ASKING", "EVAL"]


def test_a_slot_that_is_served_again_is_found(connect: Callable[..., Driver]) -> None:
    """A store never learns that a slot has a node again, as long as nothing else is wrong."""
    with nodes(2) as (low, high):
        low.answer = answering(slots((0, HALF - 1, low)), "low")
        driver = connect(low)
        (reply,) = driver.execute([Get(HIGH)])
        assert isinstance(reply, Failed)
        assert reply.again
        table = slots((0, HALF - 1, low), (HALF, LAST, high))
        low.answer, high.answer = answering(table, "low"), answering(table, "high")
        assert driver.execute([Get(HIGH)]) == [b"high"]


# --- several groups, of which one fails ------------------------------------------------------------


def test_one_node_that_is_gone_or_loading_is_no_failure_of_others(connect: Callable[..., Driver]) -> None:
    """What another node has carried out is told as not done, and is done twice."""
    with nodes(2) as (low, high):
        table = slots((0, HALF - 1, low), (HALF, LAST, high))
        low.answer = answering(table, "low")
        high.answer = answering(table, Refusal("LOADING Valkey is loading the dataset in memory"))
        driver = connect(low)
        for _ in range(2):
            for batch in ([Get(LOW), Get(HIGH)], [Get(HIGH), Get(LOW)]):
                replies = dict(zip(batch, driver.execute(batch), strict=True))
                assert replies[Get(LOW)] == b"low"
                assert isinstance(replies[Get(HIGH)], Failed)
                assert replies[Get(HIGH)].again
            high.stop()


def test_a_write_whose_reply_is_lost_is_not_hidden_by_reads_beside_it(connect: Callable[..., Driver]) -> None:
    """A write that may have been carried out is told as refused, because reads go with it."""
    with nodes(2) as (low, high):
        table = slots((0, HALF - 1, low), (HALF, LAST, high))

        def cut_off(words: Words) -> Any:
            if words[0] == "SET":
                high.stop()
            return answering(table, "high")(words)

        low.answer, high.answer = answering(table, "low"), cut_off
        driver = connect(low)
        with pytest.raises(ReplyLost):
            driver.execute([Get(LOW), Get(HIGH), Put(HIGH, b"1", 1000), Get(HIGH)])


def test_a_name_whose_registration_is_lost_is_registered_again(connect: Callable[..., Driver]) -> None:
    """A publish fails because of what can be done twice, and was asked of another node beside it."""
    with nodes(2) as (low, high):
        table = slots((0, HALF - 1, low), (HALF, LAST, high))

        def cut_off(words: Words) -> Any:
            if words[0] == "SADD":
                high.stop()
            return answering(table, 1)(words)

        low.answer, high.answer = answering(table, b"low"), cut_off
        (first, second) = connect(low).execute([Get(LOW), Register(HIGH, "mena")])
        assert first == b"low"
        assert isinstance(second, Failed)
        assert second.again


def test_batches_for_the_same_nodes_do_not_wait_for_each_other() -> None:
    """Each of two batches has a connection that the other one waits for."""
    with nodes(2) as (low, high):
        table = slots((0, HALF - 1, low), (HALF, LAST, high))
        low.answer, high.answer = answering(table, "low"), answering(table, "high")
        driver, threads = ClusterDriver.from_url(url(low, query="?max_connections=1&timeout=20")), Threads()
        driver.execute([Get(LOW), Get(HIGH)])
        both = threading.Barrier(2)
        for made in driver._nodes.values():
            meet_after_sending(made, both)
        threads.start(driver.execute, [Get(LOW), Get(HIGH)])
        threads.start(driver.execute, [Get(HIGH), Get(LOW)])
        assert sorted(threads.join()) == [[b"high", b"low"], [b"low", b"high"]]
        driver.close()


def meet_after_sending(made: Any, both: threading.Barrier) -> None:
    """Let two threads go on only when each has sent something, if both can."""
    send = made.send

    def sent(*arguments: Any, **options: Any) -> Any:
        request = send(*arguments, **options)
        with suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        return request

    made.send = sent


# --- the table -------------------------------------------------------------------------------------


def test_a_table_that_may_not_be_read_any_more_is_used_on(connect: Callable[..., Driver]) -> None:
    """A user who loses a right loses the whole store, although its nodes answer."""
    with nodes(2) as (low, high):
        table = slots((0, HALF - 1, low), (HALF, LAST, high))
        low.answer, high.answer = answering(table, "low"), answering(table, "high")
        driver = connect(low)
        assert driver.execute([Get(LOW), Get(HIGH)]) == [b"low", b"high"]
        refusal: Any = Refusal("NOPERM User app has no permissions to run the 'cluster|slots' command")
        low.answer, high.answer = answering(refusal, "low"), answering(refusal, "high")
        inner(driver)._stale = True
        assert driver.execute([Get(LOW), Get(HIGH)]) == [b"low", b"high"]


def test_connections_to_a_node_that_left_are_closed(connect: Callable[..., Driver]) -> None:
    """Nodes that were replaced keep a connection of each client, until the client ends."""
    with nodes(2) as (leaving, staying):
        everything = slots((0, HALF - 1, leaving), (HALF, LAST, staying))
        leaving.answer, staying.answer = answering(everything, "leaving"), answering(everything, "staying")
        driver = connect(staying)
        assert driver.execute([Get(LOW), Get(HIGH)]) == [b"leaving", b"staying"]
        kept = inner(driver)._nodes[leaving.address]
        staying.answer = answering(slots((0, LAST, staying)), "staying")
        inner(driver)._stale = True
        assert driver.execute([Get(LOW)]) == [b"staying"]
        until(lambda: not leaving.open, "it is open")
        assert staying.open
        assert kept, "it was not collected before"


def test_a_task_that_is_cancelled_stops_no_other_one_that_waits_for_the_table() -> None:
    """Cancelling one call cancels all that were made at the same time."""

    async def main() -> None:
        driver = AsyncClusterDriver.from_url(url(node))
        first, second = (asyncio.ensure_future(driver.execute([Get(LOW)])) for _ in range(2))
        await asyncio.to_thread(gate.reached.wait, HANGS_S)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gate.opened.set()
        assert await second == [b"there"]
        await driver.close()

    with nodes(1) as (node,):
        gate = node.answer = Gate(answering(slots((0, LAST, node)), "there"), "CLUSTER", "SLOTS")
        asyncio.run(main())


def test_a_scan_looks_at_a_node_that_has_joined(connect: Callable[..., Driver]) -> None:
    """Repair takes for lost what has moved to a node that this store has not heard of."""

    def holding(table: list[Any], key: str) -> Callable[[Words], Any]:
        return lambda words: ["0", [key]] if words[0] == "SCAN" else answering(table, "")(words)

    with nodes(3) as (low, high, new):
        before = slots((0, HALF - 1, low), (HALF, LAST, high))
        low.answer, high.answer = holding(before, "low"), holding(before, "high")
        driver = connect(low)
        assert driver.execute([Get(LOW)]) == [b""]
        after = slots((0, HALF - 1, low), (HALF, HALF, new), (HALF + 1, LAST, high))
        low.answer, high.answer, new.answer = (
            holding(after, "low"),
            holding(after, "high"),
            holding(after, "new"),
        )
        assert scan_all(driver, "*", 10)[0] == {"low", "high", "new"}


def test_a_follower_goes_on_at_another_node(connect: Callable[..., Driver]) -> None:
    """A follower subscribes again and again on a node that is gone."""
    with nodes(2) as (gone, there):
        table = slots((0, HALF - 1, gone), (HALF, LAST, there))
        there.answer = lambda words: (
            ["subscribe", LOW, 1] if words[0] == "SUBSCRIBE" else answering(table, "there")(words)
        )
        driver: Any = connect(there)
        assert driver.execute([Get(HIGH)]) == [b"there"]
        gone.stop()
        listener: Any = inner(driver).listen([LOW])

        async def waited() -> None:
            for _ in range(2):
                await listener.wait(0.0)
            listener.drop()

        if isinstance(driver, Blocking):
            driver._home.run(waited())
        else:
            listener.wait(0.0)
            listener.wait(0.0)
            listener.close()
        assert there.count("SUBSCRIBE", LOW) == 1


def test_addresses_that_hold_only_inside_the_cluster(connect: Callable[..., Driver]) -> None:
    """After a move, or for hints, an address is used that leads nowhere from here."""
    with nodes(2) as (low, high):
        table = slots((0, HALF - 1, low), (HALF, LAST, high), host="10.255.255.1")
        table[0].append(["10.255.255.1", 7, "a replica"])
        moved = Refusal(f"MOVED {key_slot(LOW.encode())} 10.255.255.1:{high.address[1]}")
        low.answer, high.answer = answering(table, moved), answering(table, "high")
        driver = connect(low)
        made = inner(driver)
        made._place = attrs.evolve(made._place, remap=lambda node: ("127.0.0.1", node[1]))
        assert driver.execute([Get(HIGH)]) == [b"high"]
        driver.execute([Get(LOW)])
        made._stale = False
        assert driver.execute([Get(LOW)]) == [b"high"]
        name = made._subscribers(LOW)
        assert {name() for _ in range(3)} == {low.address, high.address, ("127.0.0.1", 7)}


# --- interrupts, and a close in the middle ---------------------------------------------------------


@contextmanager
def two_nodes() -> Iterator[tuple[ClusterDriver, list[Node], list[Any]]]:
    """A driver with one connection to each of two nodes, these in the order of its groups, and a batch."""
    with nodes(2) as made:
        low, high = sorted(made, key=lambda node: node.address)
        table = slots((0, HALF - 1, low), (HALF, LAST, high))
        low.answer, high.answer = answering(table, "low"), answering(table, "high")
        driver = ClusterDriver.from_url(url(low, query="?max_connections=1&timeout=0.5"))
        batch: list[Any] = [Get(LOW), Get(HIGH)]
        assert driver.execute(batch) == [b"low", b"high"]
        yield driver, [low, high], batch
        driver.close()


@pytest.mark.parametrize("number", [0, 1])
def test_an_interrupt_that_is_kept_keeps_no_connection_to_other_nodes(number: int) -> None:
    """After Ctrl-C between sending and reading, the other nodes' connections count as lent."""
    with two_nodes() as (driver, made, batch):
        reading: Any = driver._nodes[made[number].address]

        def interrupted(_: Any) -> Any:
            raise KeyboardInterrupt

        reading.receive = interrupted
        with pytest.raises(KeyboardInterrupt) as kept:
            driver.execute(batch)
        other = 1 - number
        assert driver.execute([batch[other]]) == [(b"low", b"high")[other]]
        assert kept.tb


def test_an_interrupt_leaves_other_threads_their_connections() -> None:
    """Ctrl-C in one thread ends the batch of another, on a connection that was given back before."""
    with two_nodes() as (driver, (low, high), batch):
        gate, threads = Gate(low.answer, "GET", "other:{c}"), Threads()
        low.answer = gate
        reading: Any = driver._nodes[high.address]

        def interrupted(_: Any) -> Any:
            threads.start(driver.execute, [Get("other:{c}")])
            assert gate.reached.wait(HANGS_S)
            raise KeyboardInterrupt

        reading.receive = interrupted
        with pytest.raises(KeyboardInterrupt):
            driver.execute(batch)
        gate.opened.set()
        assert threads.join() == [[b"low"]]


def test_a_store_that_is_closed_in_the_middle_of_a_batch_opens_nothing() -> None:
    """A thread that was about to ask another node connects to it after the store was closed."""
    with two_nodes() as (driver, (low, high), batch):
        driver._nodes.pop(high.address).close()
        before = high.count("GET")
        sending: Any = driver._nodes[low.address]
        send = sending.send

        def closing(*arguments: Any, **options: Any) -> Any:
            request = send(*arguments, **options)
            driver.close()
            return request

        sending.send = closing
        with pytest.raises(StoreClosed):
            driver.execute(batch)
        assert high.count("GET") == before
