"""Followers stop at once when they are told to, and leave nothing open."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

import swapstore
from swapstore import Store, StoreClosed
from swapstore.commands import Command
from swapstore.protocol.operation import Listen
from swapstore.subscription import Subscription
from tests.follow.followers import Collected, publish, take
from tests.follow.test_faults import LONG, eventually, subscribers
from tests.support.drivers import Meddler
from tests.support.valkey import Server

pytestmark = pytest.mark.every_store

SOON_S = 5.0  # a tenth of a second, and time for a busy machine; a poll would take a minute


def test_closing_the_store_ends_a_follower_that_waits(store: Store) -> None:
    """A service that shuts down hangs for a poll, or dies with an error of a closed connection."""
    follower = Collected(store.follow("mena", after=0, poll=LONG))
    publish(store, 1)
    store.publish("mena", "more")
    time.sleep(0.05)
    began = time.monotonic()
    store.close()
    assert follower.ended()
    assert time.monotonic() - began < SOON_S
    assert follower.error is None


def test_closing_the_store_ends_all_its_followers(store: Store) -> None:
    """One of a service's followers does not end when the store is closed."""
    publish(store, 5)
    followers = [Collected(store.follow("mena", after=number % 5, poll=0.01)) for number in range(8)]
    for follower in followers:
        follower.until(1)
    store.close()
    assert [(follower.ended(), follower.error) for follower in followers] == [(True, None)] * 8


def test_closing_the_store_within_the_loop(store: Store) -> None:
    """A loop that closes its store gets further commits, or an error, instead of ending."""
    publish(store, 5)
    seen = []
    for commit in store.follow("mena", after=0):
        seen.append(commit)
        if len(seen) == 2:
            store.close()
    assert len(seen) == 2


def test_what_a_step_opens_while_the_store_is_closed_is_closed_too(store: Store) -> None:
    """A connection that a follower opened while another thread closed the store stays open."""

    class Opening(Meddler):
        is_open = False

        def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
            replies = super().execute(commands)
            self.is_open = True
            return replies

        def close(self) -> None:
            self.is_open = False

    publish(store, 1)
    driver = Opening(store._driver)
    client = Store(driver, store._context)
    follower = client.follow("mena", after=0, poll=0.01)
    assert isinstance(next(follower), swapstore.Row)
    driver.before(len(driver.batches), client.close)
    assert list(follower) == []
    assert not driver.is_open


def test_a_closed_store_cannot_be_followed(store: Store) -> None:
    """Following a closed store looks like a dataset without commits."""
    follower = store.follow("mena")
    store.close()
    with pytest.raises(StoreClosed):
        next(follower)
    with pytest.raises(StoreClosed):
        store.follow("mena")


def test_closing_a_follower_returns_its_connection(valkey: Server) -> None:
    """A service that follows one dataset after the other runs out of connections."""
    with swapstore.connect(valkey.url) as store:
        for _ in range(3):
            follower = store.follow("mena", after=0, poll=0.01)
            publish(store, 2)
            take(follower, 1)
            take(follower, 1)
            store.publish("mena", "more")
            take(follower, 1)
            follower.close()
            eventually(lambda: subscribers(valkey) == 0)
        assert store._subscriptions == set()


def test_a_follower_that_is_never_closed(valkey: Server) -> None:
    """A loop that is left with `break` keeps its connection open."""
    with swapstore.connect(valkey.url) as store:
        publish(store, 1)

        def one() -> None:
            for number, _ in enumerate(store.follow("mena", after=0, poll=0.01)):
                if number == 1:
                    break

        timer = threading.Timer(0.05, lambda: store.publish("mena", 2))
        timer.start()
        one()
        timer.join()
        gc.collect()
        eventually(lambda: subscribers(valkey) == 0)


def test_a_pool_of_one_connection(valkey: Server) -> None:
    """A follower uses up the connections of the pool, and the store it follows stops."""
    with swapstore.connect(f"{valkey.url}?max_connections=1") as store:
        followers = [Collected(store.follow("mena", poll=0.05)) for _ in range(4)]
        publish(store, 3)
        for follower in followers:
            follower.until(3)
    assert [(follower.ended(), follower.error) for follower in followers] == [(True, None)] * 4


def test_a_borrowed_client(valkey: Server) -> None:
    """A caller's client that decodes replies, or speaks RESP3, gets no hints."""
    for options in ({"decode_responses": True}, {"protocol": 3}, {"protocol": 2}):
        with valkey.client(**options) as client, swapstore.connect(client) as store:
            name = f"of-{'-'.join(options)}-{options.get('protocol')}"
            follower = Collected(store.follow(name, poll=LONG))
            eventually(lambda n=name: subscribers(valkey, n) == 1)  # type: ignore[misc]
            publish(store, 1, dataset=name)
            follower.until(1)
        assert follower.ended()


def test_ctrl_c(real_url: str) -> None:
    """Ctrl-C in a terminal ends a follower only after the next poll."""
    program = f"""
        import signal, swapstore
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with swapstore.connect({real_url!r}) as store:
            store.publish("mena", 0)
            follower = store.follow("mena", poll=60)
            try:
                print("following", flush=True)
                next(follower)
            except KeyboardInterrupt:
                print("interrupted")
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"following\n"
        time.sleep(0.2)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (out, err, process.returncode) == (b"interrupted\n", b"", 0)
        assert time.monotonic() - began < SOON_S
    finally:
        process.kill()
        process.wait()


def test_a_subscription_that_begins_while_it_is_closed() -> None:
    """A store that is closed just as a follower subscribes leaves it waiting for a whole poll."""

    class Listener:
        closed = False

        def wait(self, _seconds: float) -> list[str]:
            assert self.closed, "it would wait"
            return []

        def close(self) -> None:
            self.closed = True

    class Driver:
        def listen(self, _channels: tuple[str, ...], _pattern: str) -> Listener:
            subscription.close()  # by another thread
            return Listener()

    subscription = Subscription(Driver())  # type: ignore[arg-type]
    subscription.listen(Listen(60.0, ("channel",)))
