"""Server-sent events, behind a real server: what is served, as it changes."""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

import swapstore
import swapstore.aio
from swapstore.serve import feeds
from swapstore.serve.api import events
from tests.serve.conftest import READ_TOKEN, served
from tests.support.streams import Event, Stream
from tests.support.valkey import Server
from tests.support.web import Site

WAIT_S = 20


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def _frequent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for a store that sends no hints, and get nothing by chance."""
    monkeypatch.setattr(feeds, "POLL_S", 0.02)
    monkeypatch.setattr(events, "PULSE_S", 3600)


async def auntil(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - of several things
            await asyncio.sleep(0.001)


class Known(feeds.Feed):
    """A feed that counts its looks."""

    made: ClassVar[list[Known]] = []
    looks = 0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.made.append(self)

    def _look(self) -> None:
        self.looks += 1
        super()._look()


@pytest.fixture
def every_feed(monkeypatch: pytest.MonkeyPatch) -> list[Known]:
    """All feeds that are made."""
    monkeypatch.setattr(Known, "made", [])
    monkeypatch.setattr(feeds, "Feed", Known)
    return Known.made


def test_what_is_served_arrives_at_once_and_then_each_commit(store: swapstore.Store, site: Site) -> None:
    """A dashboard shows nothing until the next publish, or misses one."""
    name = "eu/../a.b"
    first = store.publish(name, {"a": 1}, labels={"line": "a\nid: 9\n\nb"})
    with Stream(site.port, name) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers["x-accel-buffering"] == "no"
        event = stream.next()
        snapshot = store.read_latest(name)
        assert snapshot is not None
        assert (event.kind, event.id) == ("served", f"1-{snapshot.committed_at}")
        assert event.data == {field: getattr(snapshot, field) for field in feeds.SENT}
        assert event.data["id"] == first.id
        assert stream.retry_ms is not None
        assert 1000 < stream.retry_ms < 10_000
        assert stream.next() == Event("current", None, {})
        for number in (2, 3):
            store.publish(name, {"a": number})
            event = stream.next()
            assert (event.kind, event.version) == ("served", number)


def test_each_dataset_has_its_own_stream(store: swapstore.Store, site: Site) -> None:
    """A client of one dataset gets the events of another one."""
    store.publish("a", 1)
    store.publish("a/b", 1)
    with Stream(site.port, "a") as of_a, Stream(site.port, "a/b") as of_b:
        of_a.next("current")
        of_b.next("current")
        store.publish("a/b", 2)
        assert of_b.next().version == 2
        store.publish("a", 2)
        store.publish("a/b", 3)
        assert (of_a.next().version, of_b.next().version) == (2, 3)


def test_a_rollback_a_pin_and_a_drop_are_events(
    store: swapstore.Store, site: Site, every_feed: list[Known]
) -> None:
    """A client goes on to show what was rolled back, because its version is greater, or what is gone."""
    store.publish("mena", 1)
    store.publish("mena", 2)
    with Stream(site.port, "mena") as stream:
        stream.next("current")
        store.pin("mena", version=1)
        assert (stream.next().version, stream.status) == (1, 200)
        store.unpin("mena")
        assert stream.next().version == 2
        store.rollback("mena", version=1)
        assert stream.next().version == 1
        confirmed = store.confirm("mena")
        until(lambda: confirmed.etag.encode() in every_feed[0].served)  # that is none
        published = store.publish("mena", 3)
        assert stream.next().version == published.version
        store.drop("mena")
        assert stream.next() == Event("gone", "", {})
        again = store.publish("mena", 1)
        assert stream.next().version == again.version


def test_a_client_that_comes_back_gets_what_it_does_not_have(store: swapstore.Store, site: Site) -> None:
    """Each reconnect loads the document again, or a rollback in between is missed."""
    store.publish("mena", 1)
    store.publish("mena", 2)
    with Stream(site.port, "mena") as stream:
        second = str(stream.next().id)
    with Stream(site.port, "mena", Last_Event_ID=second) as stream:
        assert stream.next().kind == "current"
        store.publish("mena", 3)
        assert stream.next().version == 3
        store.pin("mena", version=2)
        assert stream.next().version == 2, "it is what the client had when it came, and not any more"
        store.unpin("mena")
        newest = stream.next()
        third = str(newest.id)
        assert newest.version == 3
    for known in (second, "3", "9-1", "", "x"):
        with Stream(site.port, "mena", Last_Event_ID=known) as stream:
            assert stream.next().version == 3
    store.rollback("mena", version=1)
    with Stream(site.port, "mena", Last_Event_ID=third) as stream:
        until(lambda: stream.next("served").version == 1)


def test_a_client_that_comes_back_after_a_drop_gets_what_is_served(
    store: swapstore.Store, site: Site, every_feed: list[Known]
) -> None:
    """A client that was away during a drop shows what was dropped, because versions began anew."""
    store.publish("mena", "dropped")
    with Stream(site.port, "mena") as stream:
        before = stream.next()
    store.drop("mena")
    again = store.publish("mena", "new")
    assert again.version == before.version
    until(lambda: again.id.encode() in every_feed[-1].served or every_feed[-1].over)
    with Stream(site.port, "mena", Last_Event_ID=str(before.id)) as stream:
        assert stream.next().data["id"] == again.id


def test_refused_before_a_stream_begins(real_url: str, store: swapstore.Store, site: Site) -> None:
    """A name that is misspelt waits silently, a stream is open to all, or a HEAD request never ends."""
    store.publish("mena", 1)
    answer = site.get("/api/datasets/none/events")
    assert (answer.status, answer.json["title"]) == (404, "NotFound")
    assert site.get("/api/datasets/a%20b/events").status == 422
    asking = http.client.HTTPConnection("127.0.0.1", site.port, timeout=WAIT_S)
    for _ in range(2):  # the second one waits for the end of the first
        asking.request("HEAD", "/api/datasets/mena/events")
        with asking.getresponse() as ended:
            assert ended.status == 200
    asking.close()
    head = site.get("/api/datasets/mena/events", "HEAD")
    assert (head.status, head.headers["Content-Type"], head.body) == (200, "text/event-stream", b"")
    with served(real_url, read_token=READ_TOKEN) as closed:
        assert closed.get("/api/datasets/mena/events").status == 401
        with Stream(closed.port, "mena", Authorization=f"Bearer {READ_TOKEN}") as stream:
            assert stream.next().version == 1


def test_mounted_below_a_path(real_url: str, store: swapstore.Store) -> None:
    """A mounted app, whose lifespan nobody runs, has no events."""
    store.publish("a/b", 1)
    with served(real_url, mount="/data") as site, Stream(site.port, "a/b", mount="/data") as stream:
        assert stream.next().version == 1
        store.publish("a/b", 2)
        assert stream.next("served").version == 2


def test_clients_share_a_view_that_is_closed_when_nobody_needs_it(
    store: swapstore.Store, site: Site, every_feed: list[Known], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each client takes a connection to the store, or one is kept up for clients that left."""
    monkeypatch.setattr(feeds, "LOOK_S", 0.01)
    store.publish("mena", 1)
    with Stream(site.port, "mena") as one, Stream(site.port, "mena") as two:
        assert one.next().version == two.next().version == 1
        (feed,) = every_feed
        assert len(feed.clients) == 2
        one.close()
        until(lambda: len(feed.clients) == 1)
    until(lambda: not feed.clients)
    looks = feed.looks
    until(lambda: feed.looks > looks + 2 or feed.over)
    assert not feed.over, "the next client soon comes"
    with Stream(site.port, "mena") as again:
        again.next()
    assert every_feed == [feed]
    monkeypatch.setattr(feeds, "LINGER_S", 0.0)
    until(lambda: feed.over and feed.task.done())
    with Stream(site.port, "mena") as again:
        assert again.next().version == 1
    assert len(every_feed) == 2


def test_names_of_nothing_cost_no_view(
    store: swapstore.Store, site: Site, every_feed: list[Known], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who asks for made-up names takes all connections to the store."""
    for number in range(3):
        assert site.get(f"/api/datasets/none{number}/events").status == 404
    until(lambda: all(feed.task.done() for feed in every_feed))
    monkeypatch.setattr(feeds, "MOST_FEEDS", 2)
    for name in "abc":
        store.publish(name, 1)
    with Stream(site.port, "a") as one, Stream(site.port, "b") as two:
        assert (one.next().version, two.next().version) == (1, 1)
        refused = site.get("/api/datasets/c/events")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        one.close()
        until(lambda: not every_feed[3].clients)
        with Stream(site.port, "c") as three:
            assert three.next().version == 1
            until(lambda: every_feed[3].over)  # its connection is free
        store.publish("b", 2)
        assert two.next("served").version == 2


def test_no_stream_begins_while_the_server_stops(tmp_path: Path) -> None:
    """A server that stops waits for a stream that began just then, and has no end."""

    async def run() -> None:
        async with swapstore.aio.connect(f"sqlite:///{tmp_path}/store.db") as store:
            every = feeds.Feeds(store)
            feed = every.of("mena")
            await every.close()
            assert feed.over
            with pytest.raises(feeds.TooManyFeeds):
                every.of("mena")

    asyncio.run(run())


def test_comments_keep_a_stream_open(
    store: swapstore.Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy closes a stream without traffic after a minute, and a client that vanished stays a client."""
    monkeypatch.setattr(events, "PULSE_S", 0.01)
    store.publish("mena", 1)
    with Stream(site.port, "mena") as stream:
        stream.next("current")
        timer = threading.Timer(0.5, store.publish, ("mena", 2))
        timer.start()
        assert stream.next().version == 2
        timer.join()
        assert stream.comments > 3


def test_commits_that_are_faster_than_a_client_are_merged(tmp_path: Path) -> None:
    """A slow client takes memory for each commit that it has not read."""
    sent: list[bytes] = []

    async def run() -> None:
        async with swapstore.aio.connect(f"sqlite:///{tmp_path}/store.db") as store:
            await store.publish("mena", 0)
            feed = feeds.Feed(store, "mena")
            await feed.first_look(WAIT_S)
            ready, over = asyncio.Event(), asyncio.Event()

            async def receive() -> dict[str, Any]:
                await over.wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.body":
                    sent.append(message["body"])
                    await ready.wait()

            stream = asyncio.create_task(events._Stream(feed, None)({}, receive, send))
            await auntil(lambda: sent)
            for number in range(1, 50):
                await store.publish("mena", number)
            await auntil(lambda: feed.id.startswith("50-"))
            assert len(sent) == 1
            ready.set()
            await auntil(lambda: len(sent) == 2)
            over.set()
            await stream
            assert not feed.clients
            feed.end()
            await asyncio.wait([feed.task])

    asyncio.run(run())
    assert [each.count(b"event: served") for each in sent] == [1, 1]
    assert b"id: 50-" in sent[1]


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_a_client_that_reads_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """A client that stopped reading is a client as long as its connection is open."""
    monkeypatch.setattr(events, "SEND_S", 0.01)
    monkeypatch.setattr(events, "PULSE_S", 0.01)
    sent: list[Any] = []

    async def run() -> None:
        async with swapstore.aio.connect(f"sqlite:///{tmp_path}/store.db") as store:
            await store.publish("mena", 0)
            feed = feeds.Feed(store, "mena")
            await feed.first_look(WAIT_S)

            async def blocked() -> Any:
                await asyncio.Event().wait()

            async def send(message: Any) -> None:
                if len(sent) == taken:
                    await blocked()
                sent.append(message)

            async with asyncio.timeout(WAIT_S):
                await events._Stream(feed, None)({}, blocked, send)
            assert not feed.clients
            feed.end()
            await asyncio.wait([feed.task])
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing of it is left"

    asyncio.run(run())


# --- outages -----------------------------------------------------------------------------------------


@pytest.fixture
def fallible(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may stop and start."""
    server = Server(tmp_path / "valkey", "--appendonly", "yes", "--appendfsync", "always").start()
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.server
def test_an_outage_is_an_event_and_so_is_its_end(fallible: Server) -> None:
    """A dashboard shows old data as current, or is never told that it is current again."""
    with swapstore.connect(fallible.url) as store:
        store.publish("mena", 1)
    with served(fallible.url) as site, Stream(site.port, "mena") as stream:
        first = stream.next()
        assert first.version == 1
        assert stream.next().kind == "current"
        fallible.stop()
        behind = stream.next()
        assert (behind.kind, behind.id, behind.data["error"]) == ("behind", None, "Unavailable")
        assert abs(behind.data["seen_at"] - time.time() * 1000) < 60_000
        assert str(fallible.port) not in str(behind.data)
        with Stream(site.port, "mena", Last_Event_ID=str(first.id)) as late:
            assert late.next().kind == "behind"
        with Stream(site.port, "other") as early:
            assert early.next().data == {"error": "Unavailable", "seen_at": None}
            fallible.start()
            assert stream.next() == Event("current", None, {})
            with swapstore.connect(fallible.url) as store:
                store.publish("mena", 2)
                assert stream.next("served").version == 2
                store.publish("other", 1)
            until(lambda: early.next("served").version == 1)
