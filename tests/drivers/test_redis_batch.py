"""A batch that Redis carries out as one command answers and leaves what its commands would, one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
import redis

from swapstore.commands import Command, Committed, Failed, Held, Mismatch, Stage, Staged, Unstaged
from swapstore.drivers.redis.driver import RedisDriver
from swapstore.drivers.redis.wire import LARGEST_BUNDLED, Bundle, bundled
from swapstore.errors import Unscripted
from tests.support.batches import HEADERS, KEYS, TTL_MS, commit, likely, some
from tests.support.valkey import Server

A = Stage("a", HEADERS[0], TTL_MS, b"payload")
RELIES_ON_A = commit(b"", b"1;", Staged("a", HEADERS[0]))


class Place:
    """A database, its driver, and what is in it."""

    def __init__(self, client: redis.Redis) -> None:
        self.client: Any = client
        self.driver = RedisDriver.from_client(client)

    def state(self) -> dict[str, tuple[bytes | None, str]]:
        """Return every value, and which TTL it has."""
        keys = (*KEYS, "manifest", "live", "names")
        ages = {key: self.client.pttl(key) for key in keys}
        return {
            key: (None if key == "names" else self.client.get(key), life(age))
            for key, age in ages.items()
            if age != -2
        }

    def current(self) -> bytes:
        found: bytes = self.client.get("manifest") or b""
        return found.partition(b"...")[0]


def life(age_ms: int) -> str:
    """Say which TTL this is, whatever has passed of it."""
    return "none" if age_ms < 0 else "staging" if age_ms <= TTL_MS else "grace"


def told(replies: list[Any]) -> list[Any]:
    """Return replies without what the clock makes of them."""
    return [life(reply) if type(reply) is int and reply > 0 else reply for reply in replies]


@pytest.fixture(params=["fakeredis", "valkey"])
def places(request: pytest.FixtureRequest, valkey: Server) -> Iterator[tuple[Place, Place]]:
    """Two empty databases."""
    if request.param == "valkey":
        clients = [redis.Redis(port=valkey.port, db=number) for number in (1, 2)]
    else:
        clients = [fakeredis.FakeRedis(server=fakeredis.FakeServer()) for _ in range(2)]
    for client in clients:
        client.flushdb()
    yield Place(clients[0]), Place(clients[1])
    for client in clients:
        client.close()


@pytest.mark.parametrize("seed", range(12))
def test_a_batch_is_its_commands_one_after_the_other(places: tuple[Place, Place], seed: int) -> None:
    """A shortcut that differs from the long way keeps what nobody committed, or loses what somebody did."""
    choice = random.Random(seed)
    short, long = places
    committed = 0
    for _ in range(15):
        for place in places:
            place.client.flushdb()
        for _ in range(4):
            odd = [some(choice) for _ in range(choice.randint(1, 7))]
            commands = odd if choice.random() < 0.4 else likely(choice, long.current())
            replies = told(short.driver.execute(commands))
            assert replies == told([long.driver.execute([each])[0] for each in commands]), commands
            assert short.state() == long.state(), commands
            committed += sum(reply == Committed() for reply in replies)
    assert committed > 8, "or nothing was tried"


def test_the_shortcut_is_taken(valkey: Server) -> None:
    """Without it a small publish takes the server three commands, and as long again."""
    driver = RedisDriver.from_url(valkey.url)
    with valkey.client() as client:
        driver.execute([RELIES_ON_A])  # or the server would be sent the text of the script, too
        client.flushdb()
        before = client.info("commandstats")
        assert driver.execute([A, RELIES_ON_A]) == [True, Committed()]
        after = client.info("commandstats")
        assert (client.get("a"), client.pttl("a")) == (HEADERS[0] + b"payload", -1)
    calls = {name: of["calls"] - before.get(name, {"calls": 0})["calls"] for name, of in after.items()}
    assert calls["cmdstat_evalsha"] == 1
    assert calls["cmdstat_set"] == 2, "the record and the manifest, each once"
    assert not calls.get("cmdstat_persist")
    driver.close()


@pytest.mark.parametrize(
    "commands",
    [
        [A, Stage("b", HEADERS[1], TTL_MS), RELIES_ON_A],
        [Stage("a", HEADERS[1], TTL_MS), RELIES_ON_A],
        [Stage("a", HEADERS[0], TTL_MS - 1), RELIES_ON_A],
        [Stage("a", HEADERS[0], TTL_MS, b"x" * LARGEST_BUNDLED), RELIES_ON_A],
        [Stage("a", b"{}\n{}\n", TTL_MS), commit(b"", b"1;", Staged("a", b"{}\n{}\n"))],
        [A, commit(b"", b"1;", Staged("a", HEADERS[0]), Staged("a", HEADERS[0]))],
    ],
    ids=["not relied on", "another header", "another TTL", "large", "two lines", "relied on twice"],
)
def test_what_does_not_fit_goes_by_itself(commands: list[Command[Any]]) -> None:
    """What is brought along must be just what the commit relies on: it is verified against itself."""
    assert list(bundled(commands)) == commands


def test_several_commits_bring_along_their_own() -> None:
    """Several datasets go in one batch: a record that went with another's commit would be lost with it."""
    b = Stage("b", HEADERS[1], TTL_MS)
    relies_on_b = commit(b"", b"2;", Staged("b", HEADERS[1]))
    found = bundled([A, RELIES_ON_A, b, relies_on_b])
    assert list(found) == [Bundle((A,), RELIES_ON_A), Bundle((b,), relies_on_b)]


def test_a_record_that_is_refused_beside_a_commit_that_is_not_needed(places: tuple[Place, Place]) -> None:
    """A lost reply, then a full server: the commit that was applied must still be found to be."""
    place, _ = places
    place.driver.execute([A, RELIES_ON_A])
    assert place.driver.execute([A, RELIES_ON_A])[1].__class__.__name__ == "Already"
    other = commit(b"another;", b"2;", Staged("b", HEADERS[1]))
    staged = Stage("b", HEADERS[1], TTL_MS)
    assert place.driver.execute([staged, other]) == [True, Mismatch(b"1;...")]
    assert place.driver.execute([staged, other]) == [False, Mismatch(b"1;...")], (
        "and it need not be sent again"
    )


def test_a_full_server_refuses_the_records_and_the_commit_tells(valkey: Server) -> None:
    """The error of a record that was brought along must not hide what became of the commit."""
    with valkey.client() as client:
        driver = RedisDriver.from_client(client)
        driver.execute([RELIES_ON_A])
        client.set("manifest", b"1;...")
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory", max(1, used // 2))
        try:
            stage, outcome = driver.execute([A, RELIES_ON_A])
            assert isinstance(stage, Failed)
            assert outcome.__class__.__name__ == "Already"
            stage, outcome = driver.execute([A, commit(b"1;", b"2;", Staged("a", HEADERS[0]))])
            assert isinstance(stage, Failed)
            assert outcome == Unstaged("a", present=False)
            assert client.get("manifest") == b"1;..."
        finally:
            client.config_set("maxmemory", 0)


def test_who_may_not_run_scripts_is_told_for_each_command(valkey: Server) -> None:
    """The operation then looks for another way; a refusal of the record alone would end the publish."""
    with valkey.client() as client:
        client.acl_setuser(
            "plain", enabled=True, passwords=["+pw"], categories=["+@all", "-@scripting"], keys=["*"]
        )
        try:
            driver = RedisDriver.from_url(valkey.url.replace("//", "//plain:pw@"))
            replies = driver.execute([A, RELIES_ON_A])
            driver.close()
        finally:
            client.acl_deluser("plain")
    assert [type(reply.error) for reply in replies] == [Unscripted, Unscripted]


def test_a_commit_that_is_refused_half_way_leaves_what_it_brought_staged(places: tuple[Place, Place]) -> None:
    """A record that was written for a commit that is refused must expire, or its id is taken for ever."""
    place, _ = places
    place.client.set("b", b"another\n", px=TTL_MS)
    relies_on_both = commit(b"", b"1;", Staged("a", HEADERS[0]), Staged("b", HEADERS[1]))
    commands: list[Command[Any]] = [A, Stage("b", HEADERS[1], TTL_MS), relies_on_both]
    assert place.driver.execute(commands) == [True, False, Unstaged("b", present=True)]
    assert place.state() == {"a": (HEADERS[0] + b"payload", "staging"), "b": (b"another\n", "staging")}


@pytest.mark.parametrize("denied", ["persist", "pttl", "pexpire"])
def test_a_right_that_is_missing_leaves_nothing_permanent(valkey: Server, denied: str) -> None:
    """An error in the middle of a commit must not leave a record that no version will ever name."""
    rules = {"categories": ["+@all"], "keys": ["*"], "channels": ["*"], "passwords": ["+pw"]}
    relies_on_both = commit(b"", b"1;", Staged("a", HEADERS[0]), Staged("b", HEADERS[1]))
    with valkey.client() as client:
        client.acl_setuser("clerk", enabled=True, commands=[f"-{denied}"], **rules)
        driver = RedisDriver.from_url(valkey.url.replace("//", "//clerk:pw@"))
        try:
            client.set("b", HEADERS[1], px=TTL_MS)
            if denied == "pexpire":  # it takes another failure to need that
                client.set("b", b"another\n", px=TTL_MS)
            driver.execute([A, relies_on_both])
            assert client.pttl("a") != -1
            assert client.get("manifest") is None
        finally:
            driver.close()
            client.acl_deluser("clerk")


def test_an_id_that_is_taken_is_held(places: tuple[Place, Place]) -> None:
    """A record without a TTL was committed before: it must stay, whatever comes for its key."""
    place, _ = places
    place.client.set("a", HEADERS[0] + b"committed")
    assert place.driver.execute([A, RELIES_ON_A]) == [False, Held("a")]
    assert place.client.get("a") == HEADERS[0] + b"committed"
