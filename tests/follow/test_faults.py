"""Followers under lost hints, connections and replies, and restarts: no commit is skipped or repeated."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

import swapstore
from swapstore import Damaged, Row, Store, Unavailable
from swapstore.drivers.redis import subscription
from swapstore.drivers.redis.subscription import RedisListener
from swapstore.testing import Kind, SimulatedStore, every_fault, faulty
from tests.follow.followers import Collected, in_time, publish, take, versions
from tests.support.drivers import another, meddled
from tests.support.proxy import Proxy
from tests.support.valkey import Server, client_of, free_port

pytestmark = pytest.mark.slow

LONG = 60.0  # a poll that no test waits for
FAST = 0.02


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace connections without waiting."""
    monkeypatch.setattr(subscription, "LASTED_S", 0.0)


def subscribers(server: Server, dataset: str = "mena") -> int:
    with server.client() as client:
        ((_, count),) = client.pubsub_numsub(f"swapstore:manifest:{{{dataset}}}")
        return int(count)


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_hint_wakes_a_follower(valkey: Server) -> None:
    """Consumers learn of a commit at the next poll, although the server announces it at once."""
    with swapstore.connect(valkey.url) as store, swapstore.connect(valkey.url) as producer:
        follower = Collected(store.follow("mena", poll=LONG))
        for number in range(5):
            eventually(lambda: subscribers(valkey) == 1)
            began = time.monotonic()
            publish(producer, 1, begin=number)
            follower.until(number + 1)
            assert time.monotonic() - began < 5


def test_a_commit_between_the_look_and_the_wait(valkey: Server) -> None:
    """A commit between the last look and the wait is noticed only at the next poll."""
    with swapstore.connect(valkey.url) as store:
        client, meddler = meddled(store)
        follower = client.follow("mena", poll=LONG)  # it has looked once, and does not wait
        for number in range(3):
            now = len(meddler.batches)
            producer = another(store)
            meddler.after(now, lambda p=producer, n=number: publish(p, 1, begin=n))  # type: ignore[misc]
            assert versions(take(follower, 1)) == [number + 1]
        follower.close()


def test_a_commit_before_the_subscription_is_active(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit while the follower subscribes is noticed only at the next poll."""
    with swapstore.connect(valkey.url) as store, swapstore.connect(valkey.url) as producer:
        subscribe = RedisListener._subscribe

        def late(self: RedisListener) -> bool:
            publish(producer, 1)
            return subscribe(self)

        monkeypatch.setattr(RedisListener, "_subscribe", late)
        follower = store.follow("mena", poll=LONG)
        assert versions(take(follower, 1)) == [1]
        follower.close()


def test_hints_that_never_come(valkey: Server) -> None:
    """A proxy or a permission drops the hints, and the follower waits forever instead of polling."""
    with swapstore.connect(valkey.url) as store, swapstore.connect(valkey.url) as producer:
        follower = Collected(store.follow("mena", poll=FAST))
        for number in range(5):
            client_kill(valkey)
            publish(producer, 1, begin=number)
        assert versions(follower.until(5)) == [1, 2, 3, 4, 5]


def client_kill(server: Server) -> None:
    """Disconnect every subscriber."""
    with server.client() as client:
        client.client_kill_filter(_type="pubsub")


def test_no_permission_to_subscribe(valkey: Server) -> None:
    """A user who may not use channels cannot follow, although reading the manifest is enough."""
    with valkey.client() as client:
        client.execute_command("ACL SETUSER reader on >pw ~* +@all -subscribe resetchannels")
    try:
        url = valkey.url.replace("redis://", "redis://reader:pw@")
        with swapstore.connect(url) as store, swapstore.connect(valkey.url) as producer:
            follower = store.follow("mena", poll=FAST)
            publish(producer, 2)
            assert versions(take(follower, 2)) == [1, 2]
            follower.close()
    finally:
        with valkey.client() as client:
            client.execute_command("ACL DELUSER reader")


@pytest.mark.usefixtures("quick")
def test_a_subscription_that_was_cut_is_renewed_at_once(valkey: Server) -> None:
    """After one broken connection every commit comes a poll late, until the next restart."""
    with swapstore.connect(valkey.url) as store, swapstore.connect(valkey.url) as producer:
        follower = Collected(store.follow("mena", poll=LONG))
        for number in range(3):
            eventually(lambda: subscribers(valkey) == 1)
            client_kill(valkey)
            publish(producer, 1, begin=number)  # perhaps while there is no subscription
            assert versions(follower.until(number + 1)) == list(range(1, number + 2))


@pytest.mark.usefixtures("quick")
def test_a_network_that_goes_silent(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall drops an idle connection, and hints are missed permanently."""
    monkeypatch.setattr(subscription, "SILENCE_S", 0.1)
    with swapstore.connect(valkey.url) as store:
        listener = store._driver.listen(["channel"])  # type: ignore[attr-defined]
        listener.wait(0)
        first = listener._connection
        listener.wait(0.3)
        assert listener._connection is first  # it is asked, answers, and is kept
        monkeypatch.setattr(first, "send_command", lambda *_, **__: None)  # what is sent is dropped
        listener.wait(5)
        assert listener._connection is not first
        listener.close()


def test_a_frozen_clock_does_not_stop_a_follower(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that freezes the clock waits permanently for a follower whose hint was lost."""
    with swapstore.connect(valkey.url) as store:
        listener = store._driver.listen(["channel"])  # type: ignore[attr-defined]
        monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
        listener.wait(0)
        waiting = threading.Thread(target=listener.wait, args=[0.25], daemon=True)
        waiting.start()
        waiting.join(10)
        assert not waiting.is_alive()
        listener.close()


def test_a_version_that_does_not_exist_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A follower that was given a wrong version is told of a reset that nobody made."""
    sim = SimulatedStore()
    publish(sim.connect(), 3)
    assert versions(take(sim.connect().follow("mena", after=9, poll=1), 2)) == [(9, 1, "reset"), 1]
    (said,) = told(caplog, "WARNING")
    assert said.startswith("dataset 'mena': version 9 does not exist: the newest is 3")
    caplog.clear()
    take(sim.connect().follow("mena", after=2, poll=1), 1)
    assert told(caplog, "WARNING") == []


def test_a_name_that_does_not_exist_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A follower of a misspelt name waits mutely."""
    sim = SimulatedStore()
    follower = sim.connect().follow("menna", poll=1)
    threading.Timer(0.5, lambda: publish(sim.connect(), 1, dataset="menna")).start()
    assert versions(take(follower, 1)) == [1]
    (said,) = told(caplog, "WARNING")
    assert said.startswith("dataset 'menna': nothing is published")
    caplog.clear()
    follower = sim.connect().follow("menna", after=0, poll=1)
    assert versions(take(follower, 1)) == [1]
    assert told(caplog, "WARNING") == []


@pytest.mark.every_store
def test_a_foreign_message_is_not_a_commit(store: Store) -> None:
    """A message that someone else publishes on the channel counts as a commit, or breaks the follower."""
    driver: Any = store._driver
    if hasattr(driver, "_pool"):
        follower = Collected(store.follow("mena", poll=FAST))
        with client_of(driver) as client:
            for text in (b"", b"\xff", b'{"etag":"x.9.y"'):
                client.publish("swapstore:manifest:{mena}", text)
        publish(another(store), 2)
        assert versions(follower.until(2)) == [1, 2]
        store.close()
        assert follower.ended()


def test_a_server_that_restarts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A follower dies when its server is upgraded, or misses commits around the restart."""
    server = Server(tmp_path, "--appendonly", "yes", "--appendfsync", "always").start()
    caplog.set_level(logging.INFO, "swapstore")
    try:
        with swapstore.connect(server.url) as store:
            follower = Collected(store.follow("mena", poll=0.1))
            eventually(lambda: len(told(caplog, "WARNING")) == 1)  # nothing is published yet
            caplog.clear()
            for restarts in range(2):
                with swapstore.connect(server.url) as producer:
                    publish(producer, 3, begin=6 * restarts)
                    follower.until(6 * restarts + 3)
                    server.stop()
                    eventually(lambda n=restarts: len(told(caplog, "WARNING")) == n + 1)  # type: ignore[misc]
                    server.start()
                    publish(producer, 3, begin=6 * restarts + 3)
                assert versions(follower.until(6 * restarts + 6)) == list(range(1, 6 * restarts + 7))
        assert follower.ended()
        assert len(told(caplog, "WARNING")) == 2
        assert len(told(caplog, "INFO")) == 2
    finally:
        server.stop()


def told(caplog: pytest.LogCaptureFixture, level: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "swapstore" and r.levelname == level]


def test_a_proxy_that_loses_replies(valkey: Server) -> None:
    """Connections that break between request and reply make commits come twice, or never."""
    with Proxy(valkey.port) as proxy, swapstore.connect(proxy.url) as store:
        with swapstore.connect(valkey.url) as producer:
            follower = Collected(store.follow("mena", after=0, poll=FAST))
            for number in range(40):
                proxy.lose_reply_of((b"GETRANGE", b"GET", b"SUBSCRIBE")[number % 3])
                publish(producer, 1, begin=number)
                follower.until(number + 1)
            assert versions(follower.until(40)) == list(range(1, 41))
        assert proxy.lost > 5
        store.close()
        assert follower.ended()


def test_a_wrong_address_is_an_error() -> None:
    """A typo in the address is retried silently and forever."""
    with (
        swapstore.connect(f"redis://127.0.0.1:{free_port()}/0", patience=0) as store,
        pytest.raises(Unavailable),
    ):
        store.follow("mena")


def test_retries_during_an_outage_are_spread() -> None:
    """All followers reconnect at the same moment when a server comes back, again and again."""
    waits: list[float] = []

    class Noting:
        def wait(self, seconds: float) -> list[str]:
            waits.append(seconds)
            return []

        def close(self) -> None:
            pass

    sim = SimulatedStore()
    producer, store = sim.connect(), sim.connect()
    client, meddler = meddled(store)
    meddler._driver.listen = lambda *_: Noting()  # type: ignore[attr-defined]
    follower = client.follow("mena", after=0, poll=2)

    def down() -> None:
        raise Unavailable("down, on purpose")

    for number in range(1, 13):
        meddler.before(number, down)
    meddler.before(13, lambda: publish(producer, 1))
    assert versions(take(follower, 1)) == [1]
    assert len(waits) == 12
    assert all(wait <= 2 for wait in waits)
    assert waits[0] <= 0.05
    assert all(1 <= wait <= 2 for wait in waits[6:])


def test_an_outage_of_hours() -> None:
    """The time between two looks is doubled until it is no number any more, and that ends the follower."""
    sim = SimulatedStore()
    producer = sim.connect()
    client, meddler = meddled(sim.connect())
    follower = client.follow("mena", after=0, poll=2)

    def down() -> None:
        raise Unavailable("down, on purpose")

    for number in range(1, 3000):
        meddler.before(number, down)
    meddler.before(3000, lambda: publish(producer, 1))
    assert versions(take(follower, 1)) == [1]


@pytest.mark.parametrize("cold", [True, False])
def test_every_fault_at_every_command(cold: bool) -> None:  # noqa: FBT001
    """A fault at some command makes a follower skip or repeat a commit."""
    kinds = (Kind.LOST_BEFORE, Kind.LOST_AFTER, Kind.LATE, Kind.REFUSED, Kind.EXPIRED)
    faults = [fault for fault in every_fault(16) if fault.kind in kinds]
    for fault in faults:
        sim = SimulatedStore()
        producer = sim.connect()
        publish(producer, 70)
        client, driver = faulty(sim.connect())
        follower = client.follow("mena", after=0)
        if cold:
            driver.plan(fault)
        found = take(follower, 70)
        driver.plan(fault)
        publish(producer, 70, begin=70)
        found += take(follower, 70)
        assert versions(found) == list(range(1, 141)), fault


def test_a_fork_leaves_the_parent_its_connection(valkey: Server) -> None:
    """A process that forks workers gets no more hints when the first worker exits."""
    with swapstore.connect(valkey.url) as store:
        listener = store._driver.listen(["channel"])  # type: ignore[attr-defined]
        listener.wait(0)
        listener._pid = -1  # as in a forked child
        inherited = listener._connection
        listener.wait(0)
        assert listener._connection is not inherited
        assert inherited._sock is not None
        inherited.disconnect()
        listener.close()


def test_a_burst_of_hints_is_one_look(valkey: Server) -> None:
    """A slow consumer of a busy dataset looks once for each commit that it already has."""
    with swapstore.connect(valkey.url) as store, swapstore.connect(valkey.url) as producer:
        client, meddler = meddled(store)
        follower = client.follow("mena", after=0, poll=LONG)
        publish(producer, 1)
        take(follower, 1)
        publish(producer, 1, begin=1)
        take(follower, 1)  # it is subscribed
        publish(producer, 30, begin=2)
        before = len(meddler.batches)
        take(follower, 30)
        later = threading.Timer(0.1, lambda: publish(producer, 1, begin=32))
        later.start()
        assert versions(take(follower, 1)) == [33]
        later.join()  # the hint comes before the producer has its reply
        assert len(meddler.batches) - before <= 12
        follower.close()


def test_commits_are_returned_before_the_error_of_another_dataset() -> None:
    """One damaged dataset takes the commits of the others with it: the consumer never gets them."""
    sim = SimulatedStore()
    producer, store = sim.connect(), sim.connect()
    for name in ("a", "b"):
        producer.publish(name, 0)
    follower = store.follow_many(["a", "b"], poll=0.01)
    producer.publish("a", 1)
    key = store._context.keys.manifest("b")
    sim.keyspace.values[key] = attrs.evolve(sim.keyspace.values[key], data=b"nonsense")
    with in_time():
        name, commit = next(follower)
        assert isinstance(commit, Row)
        assert (name, commit.version) == ("a", 2)
        with pytest.raises(Damaged) as caught:
            next(follower)
    assert caught.value.dataset == "b"
