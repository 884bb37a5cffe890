"""Views on real servers: changes come at once, outages take nothing away, and afterwards it catches up."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore import Unavailable
from swapstore.protocol import watch
from swapstore.views import View
from tests.follow.followers import Collected
from tests.support.valkey import Server
from tests.views.test_view import value
from tests.views.watched import WITHIN_S, eventually

pytestmark = [pytest.mark.slow, pytest.mark.server]

LONG = 60.0  # a poll that no test waits for
QUICK = 0.05


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server that keeps its data over a restart."""
    with Server(tmp_path / "own", "--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


def subscribed(server: Server) -> int:
    """How many connections listen."""
    with server.client() as client:
        return sum(int(each["sub"]) + int(each["psub"]) > 0 for each in client.client_list())


def age_grows(view: View, name: str) -> bool:
    before = view.age(name)
    time.sleep(0.1)
    return view.age(name) >= before + 0.09


@pytest.mark.parametrize("of", [{"datasets": ["a", "b"]}, {"prefix": ""}], ids=["names", "prefix"])
def test_a_change_comes_at_once(valkey: Server, of: dict[str, Any]) -> None:
    """Readers see a new version at the next poll only, although the server announces it."""
    with swapstore.connect(valkey.url) as store, swapstore.connect(valkey.url) as producer:
        producer.publish("a", 0)
        with store.view(**of, poll=LONG) as view:
            eventually(lambda: subscribed(valkey) == 1)
            for number in range(1, 4):
                producer.publish("a", number)
                assert view.wait(WITHIN_S) == ["a"]
                assert value(view["a"]) == number
            producer.publish("b", 1)
            assert view.wait(WITHIN_S) == ["b"]


def test_one_connection_for_any_number_of_datasets(valkey: Server) -> None:
    """Three hundred datasets take three hundred connections and threads."""
    names = [f"d{number}" for number in range(300)]
    with swapstore.connect(valkey.url) as store, swapstore.connect(valkey.url) as producer:
        threads = threading.active_count()
        with store.view(names, poll=LONG) as view, valkey.client() as client:
            eventually(lambda: subscribed(valkey) == 1)
            producer.publish_many(dict.fromkeys(names, 1))
            found: set[str] = set()
            while len(found) < 300:
                found |= set(view.wait(WITHIN_S))
            assert threading.active_count() == threads + 1
            assert len(client.client_list()) <= 4  # this one, the producer's, and two of the store


def test_follow_many_takes_one_connection(valkey: Server) -> None:
    """A consumer of three hundred datasets takes three hundred connections, or misses commits."""
    names = [f"d{number}" for number in range(300)]
    with swapstore.connect(valkey.url) as store, swapstore.connect(valkey.url) as producer:
        producer.publish_many(dict.fromkeys(names, 0))
        follower = store.follow_many(names, poll=LONG)
        producer.publish_many(dict.fromkeys(names, 1))
        collected = Collected(follower)  # type: ignore[arg-type]
        collected.until(300)
        eventually(lambda: subscribed(valkey) == 1)
        producer.publish("d7", 2)
        found: Any = collected.until(301)
    assert [(name, row.version) for name, row in found] == [*((name, 2) for name in names), ("d7", 3)]
    assert collected.ended()


def test_a_lost_hint_for_one_dataset_among_busy_ones(valkey: Server) -> None:
    """Hints for one dataset never end, and the poll of the others, whose hint was lost, never comes."""
    stop = threading.Event()
    with (
        swapstore.connect(valkey.url) as store,
        swapstore.connect(valkey.url) as producer,
        store.view(["busy", "quiet"], poll=0.3) as view,
        valkey.client() as client,
    ):
        eventually(lambda: subscribed(valkey) == 1)
        producer.publish("quiet", 1)
        eventually(lambda: view["quiet"] is not None)
        manifest = client.get("swapstore:manifest:{quiet}")
        producer.publish("quiet", 2)
        eventually(lambda: value(view["quiet"]) == 2)

        def publish() -> None:
            while not stop.wait(0.005):
                producer.publish("busy", 1)

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            client.set("swapstore:manifest:{quiet}", manifest)  # without a hint
            eventually(lambda: value(view["quiet"]) == 1)
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize(
    ("granted", "of", "hints"),
    [
        ("+subscribe +ping &swapstore:manifest:*", {"datasets": ["region/a"]}, True),
        ("+subscribe +ping &swapstore:manifest:*", {"prefix": "region/"}, False),
        ("+psubscribe +ping &swapstore:manifest:{region/*", {"prefix": "region/"}, True),
        ("", {"datasets": ["region/a"]}, False),
    ],
)
def test_a_reader_with_few_rights(valkey: Server, granted: str, of: dict[str, Any], *, hints: bool) -> None:
    """A reader without the right to subscribe fails, or never learns of a change."""
    rights = f"on >secret resetchannels %R~swapstore:* +get +getrange +smembers {granted}".split()
    url = valkey.url.replace("redis://", "redis://reader:secret@")
    with valkey.client() as client:
        client.execute_command("ACL", "SETUSER", "reader", *rights)
        try:
            with swapstore.connect(url) as store, swapstore.connect(valkey.url) as producer:
                producer.publish("region/a", 0)
                with store.view(**of, poll=LONG if hints else QUICK) as view:
                    if hints:
                        eventually(lambda: subscribed(valkey) == 1)
                    producer.publish("region/a", 1)
                    assert view.wait(WITHIN_S) == ["region/a"]
        finally:
            client.execute_command("ACL", "DELUSER", "reader")


def _stopped(server: Server) -> Callable[[], None]:
    assert server._process is not None
    pid = server._process.pid
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def _killed(server: Server) -> Callable[[], None]:
    server.stop()
    return lambda: (server.start(), None)[1]


@pytest.mark.parametrize("outage", [_stopped, _killed], ids=["stopped", "killed"])
def test_an_outage_takes_nothing_away(
    own: Server, outage: Callable[[Server], Callable[[], None]], caplog: pytest.LogCaptureFixture
) -> None:
    """A service goes dark with its store, or serves old data for ever after the store is back."""
    caplog.set_level(logging.INFO, "swapstore")
    with swapstore.connect(own.url, timeout=0.5) as store:
        store.publish("a", 1)
        with store.view(["a"], poll=QUICK) as view:
            assert view.age("a") < WITHIN_S
            end = outage(own)
            try:
                eventually(lambda: not view.health().connected)
                assert value(view["a"]) == 1
                assert age_grows(view, "a")
                health = view.health()
                assert health.ready
                assert health.behind == ("a",)
                assert isinstance(health.last_error, Unavailable)
                assert isinstance(health.datasets["a"].error, Unavailable)
            finally:
                end()
            with swapstore.connect(own.url) as producer:
                producer.publish("a", 2)
            assert view.wait(WITHIN_S) == ["a"]
            assert value(view["a"]) == 2
            eventually(lambda: view.health().connected and view.health().behind == ())
    assert [record.message.partition(":")[0] for record in caplog.records][:2] == [
        "the view of dataset 'a' cannot be kept current now",
        "the view of dataset 'a' can be kept current again",
    ]


def test_a_store_that_comes_back_empty_or_older(
    own: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a flush or a restore readers keep what nobody else sees; or no log says what has happened."""
    with swapstore.connect(own.url) as store, own.client() as client:
        store.publish("a", 1)
        old = client.dump("swapstore:manifest:{a}")
        store.publish("a", 2)
        with swapstore.connect(own.url) as reader, reader.view(["a"], poll=QUICK) as view:
            assert value(view["a"]) == 2
            client.restore("swapstore:manifest:{a}", 0, old, replace=True)
            assert view.wait(WITHIN_S) == ["a"]
            assert value(view["a"]) == 1
            assert not caplog.records
            client.flushall()
            assert view.wait(WITHIN_S) == ["a"]
            assert view["a"] is None
            (record,) = caplog.records
            assert (record.levelname, record.name) == ("WARNING", "swapstore")
            assert "dataset 'a': the store has nothing of it any more" in record.message
            with swapstore.connect(own.url) as producer:
                producer.publish("a", "new")
            assert view.wait(WITHIN_S) == ["a"]
            assert value(view["a"]) == "new"


def test_a_service_that_starts_before_its_store(tmp_path: Path) -> None:
    """A deployment has to start services and their store in order."""
    server = Server(tmp_path / "late")
    with swapstore.connect(server.url, patience=0) as store:
        with pytest.raises(Unavailable):
            store.view(["a"]).start()
        with store.view(["a"], wait_ready=0.1, poll=QUICK) as view:
            with pytest.raises(Unavailable):
                view["a"]
            assert view.age("a") == math.inf, "a line of a log that tells the age fails"
            assert not view.health().ready
            with server, swapstore.connect(server.url) as producer:
                producer.publish("a", 1)
                assert view.wait(WITHIN_S) == ["a"]
                assert value(view["a"]) == 1


def test_a_hundred_threads_read_beside_a_publisher(valkey: Server) -> None:
    """A reader sees a version, and then an older one, or a value that is not whole."""
    with swapstore.connect(valkey.url) as store, swapstore.connect(valkey.url) as producer:
        producer.publish("a", [0] * 100)
        wrong: list[Any] = []
        stop = threading.Event()

        def read(view: View) -> None:
            version = 0
            while not stop.is_set():
                snapshot = view["a"]
                if snapshot is None or snapshot.version < version or len(set(snapshot.value)) != 1:
                    wrong.append(snapshot)
                version = snapshot.version if snapshot else 0
                time.sleep(0.001)

        with store.view(["a"], poll=LONG) as view:
            threads = [threading.Thread(target=read, args=(view,)) for _ in range(100)]
            for thread in threads:
                thread.start()
            for number in range(1, 101):
                producer.publish("a", [number] * 100)
            eventually(lambda: value(view["a"]) == [100] * 100)
            stop.set()
            for thread in threads:
                thread.join()
        assert not wrong


# --- asyncio ------------------------------------------------------------------------------------------


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - nothing would set an event
            await asyncio.sleep(0.01)


def test_for_asyncio(valkey: Server) -> None:
    """A view for asyncio misses what the blocking one has, or blocks the loop."""
    seen: list[dict[str, Any]] = []

    async def note(changed: Any) -> None:
        await asyncio.sleep(0)
        seen.append({name: snapshot and snapshot.value for name, snapshot in changed.items()})

    async def scenario() -> None:
        async with swapstore.aio.connect(valkey.url) as store:
            await store.publish("a", 1)
            async with store.view(["a", "b"], poll=LONG, on_change=note) as view:
                assert value(view["a"]) == 1
                assert view["b"] is None
                await until(lambda: subscribed(valkey) == 1)
                await store.publish("b", 2)
                assert await view.wait(WITHIN_S) == ["b"]
                assert value(view["b"]) == 2
                assert await view.wait(0.01) == []
                health = view.health()
                assert health.ready
                assert health.connected
            assert subscribed(valkey) == 0
            with pytest.raises(swapstore.StoreClosed):
                view["a"]
            unclosed = await store.view(prefix="", poll=LONG).start()
            waiting = asyncio.ensure_future(unclosed.wait())
            await asyncio.sleep(0)
        assert await waiting == []

    asyncio.run(scenario())
    assert seen == [{"a": 1}, {"b": 2}]


def test_an_outage_for_asyncio(own: Server) -> None:
    """A view for asyncio gives up at the first outage."""

    async def scenario() -> None:
        async with swapstore.aio.connect(own.url, timeout=0.5) as store:
            await store.publish("a", 1)
            async with store.view(["a"], poll=QUICK) as view:
                own.stop()
                await until(lambda: not view.health().connected)
                assert value(view["a"]) == 1
                own.start()
                await store.publish("a", 2)
                assert await view.wait(WITHIN_S) == ["a"]
                await until(lambda: view.health().behind == ())
            own.stop()
            async with store.view(["a"], poll=QUICK, wait_ready=0) as view:
                with pytest.raises(Unavailable):
                    view["a"]
                own.start()
                assert await view.wait(WITHIN_S) == ["a"]

    asyncio.run(scenario())


def test_a_server_that_says_nothing_is_an_outage_soon(own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a minute a view calls itself connected, while the server takes each request and answers none."""
    monkeypatch.setattr(watch, "LOOK_S", 0.3)
    with swapstore.connect(own.url) as store:  # which waits 10 s for each reply
        store.publish("a", 1)
        with store.view(["a"], poll=QUICK) as view:
            end = _stopped(own)
            try:
                eventually(lambda: view.health().behind == ("a",))
            finally:
                end()
            eventually(lambda: view.health().behind == ())
