"""Endpoints without scripts: compare-and-set where the server has it, otherwise a lease."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

import swapstore
import swapstore.aio
from swapstore import Mirror, Retention, Store
from swapstore.cache import Cache
from swapstore.commands import CompareAndSet, Keep, Remove, Write
from swapstore.errors import (
    Contended,
    InvalidInput,
    LeaseLost,
    OutcomeUnknown,
    ReplyLost,
    Throttled,
    Unavailable,
    Unsupported,
)
from swapstore.format import manifest
from swapstore.fsck.findings import Problem
from swapstore.protocol.commit import Scripted
from tests.support.committers import Way
from tests.support.drivers import meddled
from tests.support.rest import RestServer
from tests.support.rest_switches import NO_SCRIPTS
from tests.support.times import at
from tests.support.valkey import Server

WAYS = [Way.COMPARE, Way.LEASE]


@pytest.fixture
def scriptless(rest: RestServer) -> RestServer:
    """A proxy that allows a list of commands without any script."""
    rest.switches.denied = NO_SCRIPTS
    return rest


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, scriptless: RestServer) -> Way:
    """The kind of commit that the store in the test uses."""
    chosen: Way = request.param
    scriptless.switches.compares = chosen is Way.COMPARE
    return chosen


@pytest.fixture
def connect(scriptless: RestServer, way: Way) -> Iterator[Callable[[], Store]]:
    """Make clients of the endpoint, whose lease lasts for two seconds only."""
    made: list[Store] = []

    def connected(**options: object) -> Store:
        store = swapstore.connect(scriptless.url, token=scriptless.token, single_writer=True, **options)  # type: ignore[arg-type]
        assert isinstance(store._context.capabilities.committer, way.committer)
        policy = msgspec.structs.replace(
            store._context.policy, lease_ttl_ms=2000, lease_margin_ms=1000, lease_poll_ms=50
        )
        made.append(Store(store._driver, msgspec.structs.replace(store._context, policy=policy)))
        return made[-1]

    yield connected
    for store in made:
        store.close()


def test_publish_and_read(connect: Callable[[], Store]) -> None:
    """A producer behind such a proxy cannot publish at all."""
    store = connect()
    for number in range(70):  # far enough to seal a page
        assert (
            store.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number + 1)).version == number + 1
        )
    assert store.read_latest("mena").value == {"n": 69}  # type: ignore[union-attr]
    assert store.read("mena", id="id-3").value == {"n": 3}  # type: ignore[union-attr]
    assert [row.version for row in store.history("mena", limit=None)] == list(range(70, 0, -1))
    assert list(store.verify()) == []


def test_everything_that_swaps_works(connect: Callable[..., Store]) -> None:
    """A pin, rollback, confirmation or prune does not use the same commit."""
    store = connect(retention=Retention(max_count=40))
    for number in range(80):
        store.publish("mena", number, id=f"id-{number}")
    store.pin("mena", id="id-60")
    assert store.read_latest("mena").value == 60  # type: ignore[union-attr]
    store.unpin("mena")
    store.confirm("mena")
    store.put_live("mena", {"view": 1}, ttl=60)
    store.rollback("mena", id="id-70")
    assert store.read_live("mena") is None
    assert store.read_latest("mena").value == 70  # type: ignore[union-attr]
    store.prune("mena", retention=Retention(max_count=10))
    assert len(list(store.history("mena", limit=None))) <= 11
    assert [each for each in store.verify() if each.wrong] == []


def test_published_again_and_with_other_content(connect: Callable[[], Store]) -> None:
    """A retry ends in two commits, or an id gets other content."""
    store, other = connect(), connect()
    first = store.publish("mena", {"n": 1}, id="run-1")
    again = other.publish("mena", {"n": 1}, id="run-1")
    assert (again.created, again.version) == (False, first.version)
    with pytest.raises(swapstore.errors.IdConflict, match="another payload"):
        other.publish("mena", {"n": 2}, id="run-1")


def test_an_id_deep_in_the_history_is_still_taken(connect: Callable[[], Store]) -> None:
    """A retry of a publish whose row is in a page would become a second row of the same id."""
    store, other = connect(), connect()
    for number in range(70):  # far enough to seal a page
        store.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number + 1))
    again = other.publish("mena", {"n": 3}, id="id-3", ts=at(4))
    assert (again.created, again.version) == (False, 4)
    with pytest.raises(swapstore.errors.IdConflict, match="another payload"):
        other.publish("mena", {"n": "other"}, id="id-3", ts=at(4))
    assert store.status("mena").version == 70  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("way", "request_number"),
    [(Way.COMPARE, 1), (Way.LEASE, 1), (Way.LEASE, 2)],
    indirect=["way"],
)
def test_a_cut_publish_does_not_block_its_own_retry(
    scriptless: RestServer, connect: Callable[[], Store], way: Way, request_number: int
) -> None:
    """A cron job that dies during a publish is refused its id permanently."""
    store = connect()
    store.publish("mena", 0, id="old", ts=at(1))
    with pytest.MonkeyPatch.context() as patch:
        real = store._driver.execute
        calls = iter(range(1, 100))

        def dying(commands: list[object]) -> object:
            if next(calls) > request_number:
                raise SystemExit("the process dies here")
            return real(commands)  # type: ignore[arg-type]

        patch.setattr(store._driver, "execute", dying)
        with pytest.raises(SystemExit):
            store.publish("mena", {"n": 1}, id="run-1", ts=at(5))
    assert connect().read_latest("mena").value == 0  # type: ignore[union-attr]
    commit = connect().publish("mena", {"n": 1}, id="run-1", ts=at(5))
    assert (commit.created, commit.version) == (True, 2)
    assert [each for each in connect().verify() if each.wrong] == []


def test_a_single_writer_may_retry_with_other_content(
    scriptless: RestServer, connect: Callable[[], Store], way: Way
) -> None:
    """A single writer cannot use the id of its interrupted publish for newer content."""
    store = connect()
    store.publish("mena", 0)
    scriptless.switches.fail(1, when="SET", skip=1 if way is Way.COMPARE else 2)  # the swap itself
    with pytest.raises(swapstore.errors.StoreFull):
        store.publish("mena", {"n": 1}, id="run-1")
    if way is Way.LEASE:
        assert store.publish("mena", {"n": 2}, id="run-1").version == 2
        assert store.read_latest("mena").value == {"n": 2}  # type: ignore[union-attr]
    else:
        with pytest.raises(Contended, match=r"of ts \d+ that no version names"):
            connect().publish("mena", {"n": 2}, id="run-1")
        assert connect().publish("mena", {"n": 1}, id="run-1").version == 2  # which goes on with its ts
    assert [each for each in store.verify() if each.wrong and each.problem is not Problem.LEAKED] == []


def test_a_lost_reply_ends_in_one_commit(
    scriptless: RestServer, connect: Callable[[], Store], way: Way
) -> None:
    """A publish that was applied is reported as failed, or is committed twice."""
    store = connect()
    store.publish("mena", 0)
    for skip in range(4):
        for drop in (scriptless.switches.drop_after, scriptless.switches.drop_before):
            drop(skip=skip, when="SET")
            name = f"run-{skip}-{drop.__name__}"
            try:
                commit = store.publish("mena", {"n": skip}, id=name)
            except OutcomeUnknown as error:
                assert way is Way.LEASE
                commit = store.publish("mena", {"n": skip}, id=error.id)
            assert store.read("mena", version=commit.version).id == name  # type: ignore[union-attr]
    ids = [row.id for row in store.history("mena", limit=None)]
    assert len(ids) == len(set(ids)) == 9


@pytest.mark.parametrize("way", [Way.COMPARE], indirect=True)
def test_a_publish_that_is_overtaken_comes_after_the_other(connect: Callable[[], Store]) -> None:
    """A producer that leaves id and `ts` to the library would fail whenever another's clock is ahead."""
    store = connect()
    store.publish("mena", 0)
    slow, meddler = meddled(store)
    slow.publish("mena", 1)
    ahead = time.time_ns() // 1_000_000 + 60_000
    swap = len(meddler.batches) + 1  # by then its records are permanent, with an earlier ts
    meddler.before(swap, lambda: store.publish("mena", "ahead", ts=ahead))
    commit = slow.publish("mena", 2)
    assert isinstance(meddler.batches[swap][0], CompareAndSet)
    assert (commit.version, commit.ts, commit.is_latest) == (4, ahead, True)
    assert store.read_latest("mena").value == 2  # type: ignore[union-attr]


def test_concurrent_producers(connect: Callable[[], Store]) -> None:
    """An acknowledged publish is lost when producers race."""
    start = threading.Barrier(4)

    def work(name: str) -> list[tuple[str, int]]:
        store, acknowledged = connect(), []
        start.wait()
        for number in range(6):
            try:
                commit = store.publish("mena", {"n": number}, id=f"{name}-{number}", ts=at(number + 1))
            except Contended:
                continue
            acknowledged.append((commit.id, commit.version))
        return acknowledged

    with ThreadPoolExecutor(4) as pool:
        acknowledged = [each for done in pool.map(work, "abcd") for each in done]
    store = connect()
    assert (
        dict(acknowledged).items()
        <= {row.id: row.version for row in store.history("mena", limit=None)}.items()
    )
    assert len(acknowledged) > 4
    assert [each for each in store.verify() if each.wrong and each.problem is not Problem.LEAKED] == []


@pytest.mark.parametrize("way", [Way.LEASE], indirect=True)
def test_a_crashed_writers_lease_runs_out(connect: Callable[[], Store], valkey: Server) -> None:
    """The next run waits forever, or goes on beside a writer that is still at work."""
    store = connect()
    key = store._context.keys.lease("mena")
    with valkey.client() as client:
        client.set(key, b"another's", px=300)
        assert store.publish("mena", 1).version == 1
        client.set(key, b"another's", px=60_000)
        with pytest.raises(Contended, match="another writer has held the lease"):
            store.publish("mena", 2)
        client.delete(key)
    assert store.publish("mena", 3).version == 2


@pytest.mark.parametrize("way", [Way.LEASE], indirect=True)
def test_a_lost_swap_keeps_its_lease_and_is_not_sent_again(
    scriptless: RestServer, connect: Callable[[], Store], valkey: Server
) -> None:
    """A SET that arrives late, under another writer's lease, undoes what was committed since."""
    store = connect()
    store.publish("mena", 1)
    scriptless.switches.drop_before(when="DEL")  # the request that swaps
    with pytest.raises(OutcomeUnknown):
        store.publish("mena", 2)
    with valkey.client() as client:
        assert client.keys("*lease*") == [b"swapstore:lease:{mena}"]
    assert store.read_latest("mena").value == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("way", [Way.LEASE], indirect=True)
def test_a_lost_unlinking_keeps_the_lease(
    scriptless: RestServer, connect: Callable[..., Store], valkey: Server
) -> None:
    """An unlinking that arrives late gives a TTL to what was published again since."""
    store = connect(retention=Retention(max_count=1))
    with valkey.client() as client:
        first = manifest.recent() + manifest.F + 1  # it is the first one that unlinks
        for number in range(1, first):
            store.publish("mena", number, id=f"id-{number}")
            assert client.keys("*lease*") == []
        scriptless.switches.drop_before(when="PEXPIRE")
        assert store.publish("mena", first).version == first
        assert client.keys("*lease*") == [b"swapstore:lease:{mena}"]


@pytest.mark.parametrize("way", [Way.LEASE], indirect=True)
def test_a_refused_publish_gives_its_lease_back(
    scriptless: RestServer, connect: Callable[[], Store], valkey: Server
) -> None:
    """After a full store refused a publish, the next one waits for a minute."""
    store = connect()
    scriptless.switches.fail(2, when="SADD", skip=0)
    with pytest.raises(swapstore.errors.StoreFull):
        store.publish("mena", 1)
    with valkey.client() as client:
        assert client.keys("*lease*") == []
    assert store.publish("mena", 2).version == 1


@pytest.mark.parametrize("way", [Way.LEASE], indirect=True)
def test_two_writers_beside_a_lease_are_noticed(connect: Callable[[], Store], valkey: Server) -> None:
    """A second writer beside a lease overwrites a commit, and nobody is told."""
    store, key = connect(), "swapstore:manifest:{mena}"
    store.publish("mena", 1)
    with valkey.client() as client:
        other = client.get(key)
        real = store._driver.execute

        def meddling(commands: list[object]) -> object:
            if len(commands) == 4 and type(commands[0]).__name__ == "Write":
                replies = real(commands[:1])  # type: ignore[arg-type]
                client.set(key, other)
                client.set("swapstore:lease:{mena}", "another's")
                return [*replies, *real(commands[1:])]  # type: ignore[arg-type]
            return real(commands)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store._driver, "execute", meddling)
            with pytest.raises(LeaseLost, match="single_writer=True promises that there is none"):
                store.publish("mena", 2)
        assert client.get("swapstore:lease:{mena}") == b"another's", "a third writer would write beside it"


def test_connecting_without_any_way_to_commit_is_refused(scriptless: RestServer) -> None:
    """A job finds out at its first publish that the endpoint cannot commit safely."""
    scriptless.switches.compares = False
    with pytest.raises(Unsupported, match="single_writer=True"):
        swapstore.connect(scriptless.url, token=scriptless.token)

    async def enter() -> None:
        async with swapstore.aio.connect(scriptless.url, token=scriptless.token):
            pass

    with pytest.raises(Unsupported, match="Allow EVAL"):
        asyncio.run(enter())


def test_asyncio_without_scripts(scriptless: RestServer, way: Way) -> None:
    """The asyncio store cannot commit without scripts."""

    async def both() -> tuple[int, object]:
        async with swapstore.aio.connect(scriptless.url, token=scriptless.token, single_writer=True) as store:
            commit = await store.publish("mena", {"n": 1})
            return commit.version, (await store.read_latest("mena")).value  # type: ignore[union-attr]

    assert asyncio.run(both()) == (1, {"n": 1})


def test_publish_many_without_scripts(connect: Callable[[], Store]) -> None:
    """`publish_many` without scripts needs a round trip for each dataset."""
    store = connect()
    done = store.publish_many({name: {"of": name} for name in ("mena", "europe", "asia")})
    assert all(not isinstance(each, Exception) for each in done.values())
    assert {name: snap.value["of"] for name, snap in store.read_latest_many(["mena", "asia"]).items()} == {  # type: ignore[union-attr]
        "mena": "mena",
        "asia": "asia",
    }


def test_a_user_of_redis_that_may_not_run_scripts(valkey: Server) -> None:
    """A Redis server whose administrator denies EVAL cannot be used, although it has compare-and-set."""
    with valkey.client() as admin:
        admin.acl_setuser(
            "app",
            enabled=True,
            nopass=True,
            keys=["*"],
            channels=["*"],
            commands=["+@all", "-eval", "-evalsha"],
        )
        try:
            with swapstore.connect(valkey.url.replace("//", "//app:any@")) as store:
                assert [store.publish("mena", n, id=f"id-{n}").version for n in range(3)] == [1, 2, 3]
                assert isinstance(store._context.capabilities.committer, Way.COMPARE.committer)
                assert list(store.verify()) == []
        finally:
            admin.acl_deluser("app")


def test_reading_needs_no_way_to_commit(scriptless: RestServer) -> None:
    """A reader with a read-only token is refused for what it never does."""
    with swapstore.connect(scriptless.url, token=scriptless.token) as producer:
        producer.publish("mena", {"n": 1})
    with swapstore.connect(scriptless.url, token=scriptless.read_only_token) as reader:
        assert reader.read_latest("mena").value == {"n": 1}  # type: ignore[union-attr]
        with pytest.raises(swapstore.errors.AccessDenied):
            reader.publish("mena", {"n": 2})


# --- repair, and what it must not do -----------------------------------------------------------------


def cut(store: Store, name: str) -> None:
    """Publish, and die before the swap."""
    real, swaps = store._driver.execute, (CompareAndSet, Write)

    def dying(commands: list[object]) -> object:
        if any(isinstance(command, swaps) and "manifest" in command.key for command in commands):
            raise SystemExit
        if isinstance(commands[0], Keep) and "manifest" in commands[0].key:
            raise SystemExit
        return real(commands)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store._driver, "execute", dying)
        with pytest.raises(SystemExit):
            store.publish("mena", {"never": "committed"}, id=name, ts=at(10**12))


def test_repair_does_not_publish_what_was_cut(connect: Callable[[], Store]) -> None:
    """A repair shows readers a publish that was cut off and never committed."""
    cut(connect(), "first")
    store = connect()
    store.publish("mena", {"n": 1}, id="good", ts=at(1))
    cut(connect(), "second")
    assert {each.problem for each in store.verify() if each.wrong} == {Problem.LEAKED}
    (report,) = store.repair("mena", apply=True)
    assert report.restored == ()
    assert connect().read_latest("mena").id == "good"  # type: ignore[union-attr]


def test_a_lost_manifest_is_rebuilt_from_what_was_committed(
    connect: Callable[[], Store], valkey: Server
) -> None:
    """A lost manifest takes the committed snapshots with it, or repair shows uncommitted ones."""
    store = connect()
    for number in range(3):
        store.publish("mena", {"n": number}, id=f"id-{number}", dedupe_key=f"key-{number}")
    cut(store, "never")
    with valkey.client() as client:
        client.delete("swapstore:manifest:{mena}")
    fresh = connect()
    (report,) = fresh.repair("mena", apply=True)
    assert report.restored == ("id-0", "id-1", "id-2")
    rows = list(fresh.history("mena"))
    assert [(row.id, row.dedupe_key) for row in rows] == [(f"id-{n}", f"key-{n}") for n in (2, 1, 0)]


def test_a_record_that_may_expire_is_not_relied_on(connect: Callable[[], Store], valkey: Server) -> None:
    """A commit names a staged or unlinked record of another producer, which then expires."""
    cut(connect(), "run-1")
    keys = ["swapstore:id:{mena}:run-1", f"swapstore:ts:{{mena}}:{10**12}:run-1"]
    with valkey.client() as client:
        for key in keys:
            client.pexpire(key, 60_000)
        assert connect().publish("mena", {"never": "committed"}, id="run-1", ts=at(10**12)).version == 1
        assert [client.pttl(key) for key in keys] == [-1, -1]


def test_an_expiring_record_is_made_permanent(connect: Callable[[], Store], valkey: Server) -> None:
    """A committed record that was given a TTL cannot be saved on such an endpoint."""
    store = connect()
    store.publish("mena", {"n": 1}, id="run-1")
    store.publish("asia", {"n": 1}, id="run-1")
    with valkey.client() as client:
        client.pexpire("swapstore:id:{mena}:run-1", 60_000)
        client.pexpire("swapstore:id:{asia}:run-1", 60_000)
        assert [report.left for report in store.repair(apply=True)] == [(), ()]
        assert client.pttl("swapstore:id:{mena}:run-1") == -1


@pytest.mark.parametrize("way", [Way.LEASE], indirect=True)
@pytest.mark.parametrize("number", [2, 3])
def test_a_swap_whose_read_back_is_refused(
    scriptless: RestServer, connect: Callable[[], Store], number: int
) -> None:
    """A publish that happened is reported as not committed, because a quota ran out after it."""
    store = connect()
    store.publish("mena", 1)
    scriptless.switches.fail(number, when="DEL", skip=0)
    assert store.publish("mena", 2).version == 2
    assert [row.version for row in connect().history("mena")] == [2, 1]


@pytest.mark.parametrize("way", [Way.LEASE], indirect=True)
@pytest.mark.parametrize("kind", ["manifest", "id", "ts"])
def test_a_step_is_not_sent_when_the_lease_is_about_to_run_out(
    connect: Callable[[], Store], kind: str
) -> None:
    """After a pause that the endpoint asked for, a SET arrives under another writer's lease."""
    store = connect()
    cut(store, "run-1")
    slow = Store(store._driver, msgspec.structs.replace(store._context, cache=Cache(1 << 20)))
    asked: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        real = slow._driver.execute

        def pausing(commands: list[object]) -> object:
            if not any(isinstance(each, Write) and f":{kind}:" in each.key for each in commands):
                return real(commands)  # type: ignore[arg-type]
            asked.append(commands)
            time.sleep(1.2)  # as long as a pause that the endpoint asks for
            raise Throttled("later", retry_after_s=0.0)

        patch.setattr(slow._driver, "execute", pausing)
        if kind == "ts":  # what comes after the swap is only cleaning up
            assert slow.publish("mena", 2).version == 1
        else:
            with pytest.raises(Unavailable, match="longer than the lease allows"):
                slow.publish("mena", "other", id="run-1", ts=at(10**12))
    assert len(asked) == 1
    found = store.read_latest("mena")
    assert (found and found.value) == (2 if kind == "ts" else None)


@pytest.mark.parametrize("way", [Way.LEASE], indirect=True)
def test_a_lost_correction_keeps_its_lease(connect: Callable[[], Store]) -> None:
    """A SET of a record arrives late, under another writer's lease, and replaces what that has committed."""
    store = connect()
    cut(store, "run-1")
    after: list[list[object]] = []
    with pytest.MonkeyPatch.context() as patch:
        real = store._driver.execute

        def losing(commands: list[object]) -> object:
            if not after and any(isinstance(each, Write) and ":id:" in each.key for each in commands):
                after.append([])
                raise ReplyLost("lost")
            if after:
                after.append(commands)
            return real(commands)  # type: ignore[arg-type]

        patch.setattr(store._driver, "execute", losing)
        with contextlib.suppress(OutcomeUnknown):
            store.publish("mena", "other", id="run-1", ts=at(10**12))
    assert list(after[1]) != [Remove("swapstore:lease:{mena}")]


def test_records_whose_replies_are_all_lost(connect: Callable[[], Store]) -> None:
    """A publish that never came to its swap is told as one that may have happened."""
    store = connect()
    store.publish("mena", 1)
    with pytest.MonkeyPatch.context() as patch:
        real = store._driver.execute

        def losing(commands: list[object]) -> object:
            if any(isinstance(each, Keep) for each in commands):
                raise ReplyLost("the endpoint did not answer.")
            return real(commands)  # type: ignore[arg-type]

        patch.setattr(store._driver, "execute", losing)
        with pytest.raises(Unavailable, match="nothing was published") as caught:
            store.publish("mena", 2)
    assert not isinstance(caught.value, OutcomeUnknown | ReplyLost)
    assert store.publish("mena", 2).version == 2


def test_one_refused_script_is_no_lack_of_scripts(rest: RestServer) -> None:
    """While an endpoint is changed, a producer begins to use plain SET, beside others that use scripts."""
    rest.switches.compares = False
    rest.switches.fail(1, "ERR unknown command 'EVAL'", when="EVAL")
    with swapstore.connect(rest.url, token=rest.token, single_writer=True) as store:
        assert store.publish("mena", 1).version == 1
        assert type(store._context.capabilities.committer) is Scripted


def test_a_script_that_meets_a_cut_publish(scriptless: RestServer, connect: Callable[[], Store]) -> None:
    """A producer with scripts reports damage after an interrupted publish without scripts."""
    cut(connect(), "run-1")
    scriptless.switches.denied = frozenset()
    with (
        swapstore.connect(scriptless.url, token=scriptless.token) as scripted,
        pytest.raises(Contended, match="was cut"),
    ):
        scripted.publish("mena", {"never": "committed"}, id="run-1", ts=at(10**12))


@pytest.mark.parametrize("compares", [True, False])
def test_a_temporary_error_is_not_a_lack_of_scripts(rest: RestServer, *, compares: bool) -> None:
    """After one error a producer uses plain SET permanently, and takes back others' commits."""
    rest.switches.compares = compares
    rest.switches.fail(1, "ERR database is temporarily not available", when="EVAL")
    with swapstore.connect(rest.url, token=rest.token, single_writer=True) as store:
        assert store.publish("mena", 1).version == 1
        assert type(store._context.capabilities.committer) is Scripted
        rest.switches.denied = NO_SCRIPTS
        with pytest.raises(swapstore.errors.AccessDenied):
            store.publish("mena", 2)


def test_the_command_has_the_single_writer_option(
    scriptless: RestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell on such an endpoint can neither publish nor read."""
    scriptless.switches.compares = False
    monkeypatch.setenv("SWAPSTORE_URL", scriptless.url)
    monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", scriptless.token)
    command = [sys.executable, "-m", "swapstore.cli", "--single-writer"]
    done = subprocess.run([*command, "publish", "mena"], input=b'{"n":1}', capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run([*command, "latest", "mena"], capture_output=True, check=True)
    assert shown.stdout == b'{"n":1}'
    refused = subprocess.run([*command[:3], "latest", "mena"], capture_output=True, check=False)
    assert (refused.returncode, b"single_writer" in refused.stderr) == (8, True)


# --- text only ------------------------------------------------------------------------------------------


def test_a_mirror_of_bytes_is_refused_before_anything_is_written(rest: RestServer) -> None:
    """A mirror of binary payloads is accepted, although old readers never see them."""
    with swapstore.connect(rest.url, token=rest.token, mirror=Mirror(prefix="old")) as store:
        with pytest.raises(InvalidInput, match="mirror"):
            store.publish("mena", b"\xff", codec="bytes")
        assert store.read_latest("mena") is None


def test_a_binary_manifest_is_left_to_the_redis_protocol(rest: RestServer, valkey: Server) -> None:
    """Repair over REST reports damage in a payload that nobody published."""
    with swapstore.connect(rest.url, token=rest.token) as store, valkey.client() as client:
        store.publish("mena", 1)
        client.set("swapstore:manifest:{mena}", b"\xff\xfe")
        with pytest.raises(Unsupported, match="Redis protocol"):
            store.repair("mena", apply=True)


def test_a_script_that_is_refused_for_two_reasons_is_no_lack_of_scripts(rest: RestServer) -> None:
    """A refusal and then an error, at the moment of connecting, make a producer use plain SET for ever."""
    rest.switches.compares = False
    rest.switches.fail(1, "ERR unknown command 'EVAL'", when="EVAL")
    rest.switches.fail(1, "ERR database is temporarily not available", when="EVAL", skip=1)
    with swapstore.connect(rest.url, token=rest.token, single_writer=True) as store:
        assert store.publish("mena", 1).version == 1
        assert type(store._context.capabilities.committer) is Scripted
