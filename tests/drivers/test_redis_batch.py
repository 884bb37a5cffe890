"""A batch that Redis carries out as one command replies and stores what its commands would, one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
import redis

from swapstore.commands import (
    NOT_ON_DISK,
    AwaitReplicas,
    Command,
    Committed,
    Failed,
    Get,
    Held,
    Mismatch,
    Stage,
    Staged,
    Unstaged,
)
from swapstore.drivers.redis.driver import RedisDriver, answers, misdirected, without_script
from swapstore.drivers.redis.wire import LARGEST_BUNDLED, Bundle, Wire, bundled, value
from swapstore.errors import Unscripted
from tests.support.batches import HEADERS, KEYS, TTL_MS, commit, likely, some
from tests.support.valkey import Server

A = Stage("a", HEADERS[0], TTL_MS, b"payload")
RELIES_ON_A = commit(b"", b"1;", Staged("a", HEADERS[0]))


class Place:
    """A database, its driver, and its content."""

    def __init__(self, client: redis.Redis) -> None:
        self.client: Any = client
        self.driver = RedisDriver.from_client(client)

    def state(self) -> dict[str, tuple[bytes | None, str]]:
        """Return every value, and the class of its TTL."""
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
    """Name the class of a TTL, independent of the time that has passed."""
    return "none" if age_ms < 0 else "staging" if age_ms <= TTL_MS else "grace"


def told(replies: list[Any]) -> list[Any]:
    """Return the replies without the parts that depend on the clock."""
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
def test_a_batch_equals_its_commands_one_by_one(places: tuple[Place, Place], seed: int) -> None:
    """A batch sent as one command keeps uncommitted data, or loses committed data."""
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


def test_a_small_publish_is_one_command(valkey: Server) -> None:
    """A small publish takes the server three commands, and as much longer."""
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
        [Stage("a", b"{}\n{}\n", TTL_MS, b"more"), commit(b"", b"1;", Staged("a", b"{}\n{}\n"))],
        [A, commit(b"", b"1;", Staged("a", HEADERS[0]), Staged("a", HEADERS[0]))],
    ],
    ids=["not relied on", "another header", "another TTL", "large", "two lines", "relied on twice"],
)
def test_a_record_that_the_commit_does_not_need_is_sent_separately(commands: list[Command[Any]]) -> None:
    """A commit is given a record that it does not depend on, and checks it against itself."""
    assert list(bundled(commands)) == commands


def test_each_commit_of_a_batch_carries_its_own_records() -> None:
    """A record that was sent with another dataset's commit is lost when that commit is refused."""
    b = Stage("b", HEADERS[1], TTL_MS)
    relies_on_b = commit(b"", b"2;", Staged("b", HEADERS[1]))
    found = bundled([A, RELIES_ON_A, b, relies_on_b])
    assert list(found) == [Bundle((A,), RELIES_ON_A), Bundle((b,), relies_on_b)]


def test_an_applied_commit_is_found_although_its_records_are_refused(places: tuple[Place, Place]) -> None:
    """After a lost reply on a server that is now full, an applied commit is reported as failed."""
    place, _ = places
    place.driver.execute([A, RELIES_ON_A])
    assert place.driver.execute([A, RELIES_ON_A])[1].__class__.__name__ == "Already"
    other = commit(b"another;", b"2;", Staged("b", HEADERS[1]))
    staged = Stage("b", HEADERS[1], TTL_MS)
    assert place.driver.execute([staged, other]) == [True, Mismatch(b"1;...")]
    assert place.driver.execute([staged, other]) == [False, Mismatch(b"1;...")], (
        "and it need not be sent again"
    )


def test_a_full_server_does_not_hide_the_outcome_of_the_commit(valkey: Server) -> None:
    """The error of a record that was sent with the commit hides the outcome of the commit."""
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


def test_every_command_of_the_batch_reports_that_scripts_are_denied(valkey: Server) -> None:
    """A refusal of the record alone ends the publish, instead of a commit without scripts."""
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


def test_records_of_a_refused_commit_stay_staged(places: tuple[Place, Place]) -> None:
    """A record that was written for a refused commit never expires, and its id stays taken."""
    place, _ = places
    place.client.set("b", b"another\n", px=TTL_MS)
    relies_on_both = commit(b"", b"1;", Staged("a", HEADERS[0]), Staged("b", HEADERS[1]))
    commands: list[Command[Any]] = [A, Stage("b", HEADERS[1], TTL_MS), relies_on_both]
    assert place.driver.execute(commands) == [True, False, Unstaged("b", present=True)]
    assert place.state() == {"a": (HEADERS[0] + b"payload", "staging"), "b": (b"another\n", "staging")}


@pytest.mark.parametrize("denied", ["persist", "pttl", "pexpire"])
def test_a_missing_permission_leaves_nothing_permanent(valkey: Server, denied: str) -> None:
    """An error in the middle of a commit leaves a permanent record that no version names."""
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


def test_a_committed_record_is_never_replaced(places: tuple[Place, Place]) -> None:
    """A record that was committed before is overwritten by one that is sent with a commit."""
    place, _ = places
    place.client.set("a", HEADERS[0] + b"committed")
    assert place.driver.execute([A, RELIES_ON_A]) == [False, Held("a")]
    assert place.client.get("a") == HEADERS[0] + b"committed"


def test_the_version_in_a_ts_record_is_compared(places: tuple[Place, Place]) -> None:
    """A commit takes over a ts record that states the version of another commit."""
    place, _ = places
    header, rest = b'{"entry":"c","version":2,', b'"epoch":"e"}\n'
    stage, relies_on_it = Stage("a", header, TTL_MS, rest), commit(b"", b"1;", Staged("a", header))
    assert len(bundled([stage, relies_on_it])) == 1, "one command, as for any record"
    place.client.set("a", b'{"entry":"c","version":1,"epoch":"e"}\n', px=TTL_MS)
    assert place.driver.execute([stage, relies_on_it]) == [False, Unstaged("a", present=True)]
    place.client.set("a", b'{"entry":"c","version":2,"epoch":"f"}\n', px=TTL_MS)
    assert place.driver.execute([stage, relies_on_it]) == [False, Committed()], "the rest may differ"
    assert place.state()["a"] == (b'{"entry":"c","version":2,"epoch":"f"}\n', "none")


# --- waits for replicas ----------------------------------------------------------------------------


def wait(key: str, replicas: int = 1, *, fsync: bool = False) -> AwaitReplicas:
    return AwaitReplicas(key, replicas, fsync, 1000)


def test_of_equal_waits_only_the_last_is_sent_and_answers_all() -> None:
    """Eight datasets wait eight times, or one of them gets the reply to another command."""
    choice = random.Random(1)
    kinds: list[Any] = [wait, lambda key: wait(key, 2), lambda key: wait(key, fsync=True), Get]
    for _ in range(300):
        batch: list[Command[Any]] = [choice.choice(kinds)(f"k{i}") for i in range(choice.randint(0, 9))]
        units = bundled(batch)
        sent = [Wire().frame(unit) for unit in units]
        assert len({frame for frame in sent if frame[0] != "GET"}) == sum(f[0] != "GET" for f in sent)
        found = answers(units, [frame if frame[0] == "GET" else _number(frame) for frame in sent], "here")
        expected = [Wire().frame(each) for each in batch]
        assert found == [frame if frame[0] == "GET" else _number(frame) for frame in expected]
        waits = [i for i, each in enumerate(batch) if isinstance(each, AwaitReplicas)]
        assert len(sent) == len(batch) - len(waits) + len({Wire().frame(batch[i]) for i in waits})
        assert not sent or not waits or sent[-1][0] != "GET" or isinstance(batch[-1], Get)


def _number(frame: Any) -> int:
    return len(frame) * 10 + int(frame[1])


def test_a_wait_says_what_it_asks_for_and_what_came_back() -> None:
    """`fsync` is forgotten, or a commit that is on no disk counts as safe."""
    assert Wire().frame(wait("k", 2)) == ("WAIT", 2, 1000)
    assert Wire().frame(wait("k", 2, fsync=True)) == ("WAITAOF", 1, 2, 1000)
    assert value(wait("k"), 2) == 2
    assert [value(wait("k", fsync=True), reply) for reply in ([1, 2], [1, 0], [0, 2])] == [2, 0, NOT_ON_DISK]


def test_too_few_replicas_make_the_server_suspect() -> None:
    """After a failover that nobody told, a producer stays with the old primary."""
    for replies, suspect in (([0], True), ([1], True), ([2], False), ([3], False), ([NOT_ON_DISK], True)):
        assert misdirected([wait("k", 2)], replies) is suspect
    assert not misdirected([wait("k", 0)], [0])


def test_after_a_script_was_forgotten_the_wait_is_sent_again_behind_it() -> None:
    """The wait is about the time before the commit."""
    unknown = redis.exceptions.NoScriptError("NOSCRIPT")
    units = bundled([A, RELIES_ON_A, wait("a"), RELIES_ON_A, wait("a")])
    assert without_script(units, [unknown, b"committed", 2]) == [0, 2]
    assert without_script(units, [b"committed", b"committed", 2]) == []
