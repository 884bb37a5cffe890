"""A store behind sentinels: three of them, a primary and two replicas; on real servers."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

import swapstore
import swapstore.aio
from swapstore import AccessDenied, InvalidInput, Misconfigured, SwapstoreError, Unavailable
from tests.support.deployment import kinds, until
from tests.support.sentinels import Sentinels
from tests.support.traffic import FACES, Blocking, Traffic
from tests.support.valkey import Server, free_port
from tests.views.watched import Watched, eventually, publish

pytestmark = [pytest.mark.server, pytest.mark.slow]

ROUNDS = 8  # two or three are enough, as a rule


def failures(url: str, **options: Any) -> list[SwapstoreError]:
    """What reading from an address raises, blocking and in asyncio."""
    found = []
    for connect in (swapstore.connect, Blocking):
        store: Any = connect(url, **options)
        with pytest.raises(SwapstoreError) as caught:
            store.read_latest("mena")
        store.close()
        found.append(caught.value)
    return found


# --- failovers under load --------------------------------------------------------------------------


@FACES
def test_nobody_notices_failovers(sentinels: Sentinels, connect: Callable[..., Any]) -> None:
    """A failover, planned or not, ends a producer, a reader or a follower, or doubles or tears something.

    Commits that were acknowledged can be lost by any failover, because replication is asynchronous.
    """
    store = connect(sentinels.url, patience=30)
    with swapstore.connect(sentinels.url, patience=30) as fresh:
        with Traffic(store) as traffic:
            sentinels.fail_over()
            traffic.go_on()
            sentinels.kill_primary()
            traffic.go_on()
        lost = traffic.check(fresh)
        sys.stdout.write(
            f"{len(traffic.acknowledged)} acknowledged, {lost} lost; longest {traffic.longest_s:.1f} s\n"
        )
        store.close()
        assert fresh.publish("mena", {"id": "last"}, id="last").created


def _kill_a_new_primary(sentinels: Sentinels) -> bool:
    """Kill a server while the first sentinel promotes it. Returns whether that one goes on naming it.

    It does if it still waits for the other replica, which has stopped, when the others agree on the next.
    """
    before = sentinels.primary
    sentinels.begin_failover()
    until(lambda: sentinels.primary_of(0) is not before, "no failover")
    dead = sentinels.primary_of(0)
    (third,) = (each for each in sentinels.servers if each not in (before, dead))
    assert third._process is not None
    third._process.send_signal(signal.SIGSTOP)
    try:
        until(lambda: all(sentinels.primary_of(n) is dead for n in range(3)), "two sentinels do not know")
        dead.stop()
        until(lambda: any(sentinels.primary_of(n) is before for n in range(3)), "no other failover", 60)
    finally:
        third._process.send_signal(signal.SIGCONT)
    until(lambda: all(sentinels.primary_of(n) is not dead for n in (1, 2)), "the others do not agree")
    time.sleep(3)  # more than one round of what sentinels tell each other
    return sentinels.primary_of(0) is dead


@pytest.mark.nightly
def test_a_new_primary_that_dies_before_its_failover_is_over(sentinels: Sentinels) -> None:
    """A client that asks the sentinel that led the failover first finds no primary, as long as it tries."""
    with swapstore.connect(sentinels.url) as store:
        store.publish("mena", 1)
    for _ in range(ROUNDS):
        if _kill_a_new_primary(sentinels):
            break
        sentinels.settle()
    hosts = sentinels.hosts.split(",")
    for number in range(3):
        url = sentinels.url.replace(sentinels.hosts, ",".join(hosts[number:] + hosts[:number]))
        for connect in (swapstore.connect, Blocking):
            fresh: Any = connect(url, patience=10)
            assert fresh.publish("mena", number).created
            fresh.close()


def _await_replicas(sentinels: Sentinels) -> None:
    """Wait until both replicas, of which one is promoted, have all that was published.

    WAIT is about what its own connection has written.
    """
    with sentinels.primary.client() as client:
        until(
            lambda: client.set("swapstore-tests:sync", "") and client.wait(2, 1000) == 2,
            "a replica is behind",
        )


def test_a_view_goes_on(sentinels: Sentinels) -> None:
    """After a failover a view stays with the old primary, and is old until its service is restarted."""
    names = ["a", "b"]
    with swapstore.connect(sentinels.url) as store, swapstore.connect(sentinels.url, patience=30) as producer:
        publish(producer, names, 1)
        with store.view(names, poll=0.2) as view, Watched(view, names) as watched:
            for number, fail_over in ((2, sentinels.fail_over), (3, sentinels.kill_primary)):
                _await_replicas(sentinels)
                old = fail_over()
                until(lambda old=old: not old.is_running or sentinels.role(old) == "slave", "not demoted")
                publish(producer, names, number)  # on the old primary it would be lost
                watched.shows(number)
                eventually(lambda: view.health().connected and not view.health().behind)


def test_connections_to_a_primary_that_was_cut_off_are_not_used(sentinels: Sentinels) -> None:
    """Producers go on to publish on a primary that the sentinels replaced: all of that is lost.

    The old primary goes on to answer, and nobody tells it that it was replaced.
    """
    with swapstore.connect(sentinels.url) as store:
        store.publish("mena", 1)
        old = sentinels.primary
        with old.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "-replicaof", "-slaveof")
            try:
                sentinels.fail_over()
                assert client.execute_command("ROLE")[0] == b"master", "it does not know"
                until(
                    lambda: store.publish("mena", 2) and new_version(sentinels) > 1,
                    "it stays with the old one",
                )
            finally:
                client.execute_command("ACL", "SETUSER", "default", "+@all")


def new_version(sentinels: Sentinels) -> int:
    """The version that the primary has which the sentinels name."""
    with swapstore.connect(sentinels.primary.url, patience=0) as there:
        status = there.status("mena")
        return 0 if status is None else status.version


@FACES
def test_a_sentinel_that_is_down_is_no_failure(sentinels: Sentinels, connect: Callable[..., Any]) -> None:
    """A store cannot be connected to because the first sentinel of its address is away."""
    store = connect(f"redis+sentinel://127.0.0.1:{free_port()},{sentinels.hosts}/mymaster/0", patience=0)
    assert store.publish("mena", 1).version == 1
    assert store.read_latest("mena").value == 1
    store.close()


@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "asyncio"])
def test_a_client_from_sentinels_goes_on(sentinels: Sentinels, is_async: bool) -> None:  # noqa: FBT001
    """A caller's `Sentinel(...).master_for()` fails while there is no primary."""
    hosts = [("127.0.0.1", each.port) for each in sentinels.sentinels]

    async def main() -> None:
        make: Any = redis.asyncio.Sentinel
        asked = make(hosts)
        async with (
            asked.master_for("mymaster") as client,
            swapstore.aio.connect(client, patience=30) as store,
        ):
            await store.publish("mena", 1)
            sentinels.primary.stop()
            await store.publish("mena", 2)
        for each in asked.sentinels:
            await each.aclose()

    if is_async:
        asyncio.run(main())
        return
    make: Any = redis.Sentinel
    with make(hosts).master_for("mymaster") as client, swapstore.connect(client, patience=30) as store:
        store.publish("mena", 1)
        sentinels.primary.stop()
        store.publish("mena", 2)


# --- what is wrong ---------------------------------------------------------------------------------


def test_a_name_that_the_sentinels_do_not_know(running: Sentinels) -> None:
    """A misspelt name looks like an outage, and is waited for."""
    for error in failures(f"redis+sentinel://{running.hosts}/mymster/0"):
        assert isinstance(error, Misconfigured)
        assert "no primary by the name 'mymster'" in str(error)
        assert "they know 'mymaster'" in str(error)


def test_no_sentinel_can_be_reached() -> None:
    """The error says that the server is down, or names one sentinel of two."""
    one, two = free_port(), free_port()
    for error in failures(f"redis+sentinel://127.0.0.1:{one},127.0.0.1:{two}/mymaster", patience=0.1):
        assert type(error) is Unavailable
        for words in (
            "no sentinel of",
            f"127.0.0.1:{one}: ",
            f"127.0.0.1:{two}: ",
            "Tried",
            "patience: 0.1 s",
        ):
            assert words in str(error)


def test_a_server_in_the_place_of_a_sentinel(valkey: Server) -> None:
    """A server's port in the address of sentinels is told as an outage."""
    for error in failures(f"redis+sentinel://127.0.0.1:{valkey.port}/mymaster"):
        assert isinstance(error, Misconfigured)
        assert f"127.0.0.1:{valkey.port} is a server and no sentinel: write redis://" in str(error)


def test_passwords_of_both(tmp_path: Path) -> None:
    """A password for one of them is sent to the other, or the error names the wrong one, or shows it."""
    passwords: Any = {"password": "of-the-primary", "sentinel_password": "of-the-sentinels"}
    with Sentinels(tmp_path, kinds()["valkey"], **passwords) as made:
        for connect in (swapstore.connect, Blocking):
            store: Any = connect(made.url)
            store.publish("mena", 1)
            assert "of-the" not in repr(store)
            store.close()
        hosts = made.hosts
        cases = {
            f":of-the-primary@{hosts}/mymaster": "add ?sentinel_password=",
            f":of-the-primary@{hosts}/mymaster?sentinel_password=of-the-primary": "check sentinel_",
            f"{hosts}/mymaster?sentinel_password=of-the-sentinels": "requires a password",
        }
        for rest, words in cases.items():
            for error in failures(f"redis+sentinel://{rest}"):
                assert isinstance(error, AccessDenied)
                assert words in str(error)
                assert "of-the" not in str(error)


def test_a_password_for_sentinels_that_have_none(running: Sentinels) -> None:
    """The error says that the password is wrong, and a user looks for the right one."""
    for error in failures(f"redis+sentinel://{running.hosts}/mymaster?sentinel_password=none-there"):
        assert isinstance(error, AccessDenied)
        assert "has no password" in str(error)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+sentinel://h1:26379,h2:26379", "what they call the primary"),
        ("redis+sentinel://h1:26379,h2:26379/", "what they call the primary"),
        ("redis+sentinel://h1:26379/0", "what they call the primary"),
        ("redis+sentinel://h1:26379,redis://h2:26379/mymaster/0", "mixes several schemes"),
        ("redis+sentinel://:s3cret@h1:99999/mymaster/0", "malformed"),
        ("redis+sentinel://:s3cret@h1:26379,/mymaster/0", "malformed"),
        ("redis+sentinel://:s3cret@h1/mymaster/x", "malformed"),
        ("redis+sentinel://:s3cret@h1/mymaster/0#x", "malformed"),
        ("redis+sentinel://h1/mymaster/0?sentinel_pasword=s3cret", "cannot set: sentinel_pasword"),
        ("redis+sentinel://h1/mymaster/0?max_connections=0", "max_connections must be 1 or more"),
        ("redis://:s3cret@h1:26379,h2:26379/0", r"write redis\+sentinel://"),
        ("redis+sentinels://h1/mymaster/0", "unknown kind of store"),
        ("sentinel://h1/mymaster/0", r"redis\+sentinel://"),
    ],
)
def test_an_address_that_cannot_be_used(url: str, words: str) -> None:
    """It is found at the first call only, or the error shows the password."""
    for connect in (swapstore.connect, swapstore.aio.connect):
        with pytest.raises(InvalidInput, match=words) as caught:
            connect(url)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_what_an_address_says(scheme: str) -> None:
    """A part of the address is ignored, or an IPv6 address or an encoded password is misread."""
    url = f"{scheme}+sentinel://me:p%40ss@h1,[::1]:5000/my%20master/3?sentinel_username=you&socket_timeout=2"
    store: Any = swapstore.connect(url)
    assert store.where == f"{scheme}+sentinel://h1:26379,[::1]:5000/my master/3"
    pool = store._driver._pool
    options = pool.connection_kwargs
    assert {key: options[key] for key in ("username", "password", "db", "socket_timeout")} == {
        "username": "me",
        "password": "p@ss",
        "db": 3,
        "socket_timeout": 2.0,
    }
    assert ("SSL" in pool.connection_class.__name__) == (scheme in {"rediss", "valkeys"})
    for (host, port), client in options["sentinels"]._clients:
        asked = client.connection_pool.connection_kwargs
        assert (asked["host"], asked["port"], asked["username"]) == (host, port, "you")
        assert asked.get("password") is None
        assert asked.get("db", 0) == 0
        assert ("SSL" in client.connection_pool.connection_class.__name__) == (
            scheme in {"rediss", "valkeys"}
        )
    store.close()


def test_valkey_is_redis(valkey: Server) -> None:
    """`valkey://` is an unknown kind of store."""
    for connect in (swapstore.connect, Blocking):
        store: Any = connect(f"valkey://127.0.0.1:{valkey.port}/0")
        store.publish("mena", 1)
        assert store.where == f"valkey://127.0.0.1:{valkey.port}/0"
        store.close()
