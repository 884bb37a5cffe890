"""What no other test told, or only by accident: mistakes that survived, each now with a check of its own."""

from __future__ import annotations

import pytest

from swapstore import Store
from swapstore.commands import Commit, Committed, Failed, Get, Put, Stage, Staged
from swapstore.connection import connect
from swapstore.errors import AccessDenied, Conflict, Rejected
from swapstore.testing import Crash, SimulatedStore, failing_at, faulty
from swapstore.testing.contract import LIVE, LONG_MS, MANIFEST, A, B, commit, do, manifest_bytes
from tests.store.test_damage import delete
from tests.support import invariants
from tests.support.drivers import another, cold_trips, lose, meddled
from tests.support.valkey import Server

MENA = "swapstore:manifest:{mena}"


def value(client: Store, **options: float) -> object:
    snap = client.read_latest("mena", **options)
    return snap.value if snap else None


# --- a commit that a server cuts short -------------------------------------------------------------


def driver_without(valkey: Server, command: str) -> Store:
    """A client whose server refuses one command, inside of scripts too."""
    with valkey.client() as admin:
        rights = ["+@all", f"-{command}"]
        admin.acl_setuser(
            "clerk", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=rights, reset=True
        )
    return connect(f"redis://clerk:x@127.0.0.1:{valkey.port}/0")


def staged_beside_an_old_commit(owner: Store) -> Commit:
    """A dataset with a version and a live view, and a commit that replaces both and lets go of a record."""
    driver = owner._driver
    do(driver, Stage(B, b"old\n", LONG_MS))
    do(driver, commit("e.1.a", staged=(Staged(B, b"old\n"),)))
    do(driver, Put(LIVE, b"view", LONG_MS))
    do(driver, Stage(A, b"new\n", LONG_MS))
    return commit("e.2.a", expected="e.1.a", staged=(Staged(A, b"new\n"),), unlinked=(B,))


@pytest.mark.parametrize("refused", ["persist", "set"])
def test_a_commit_that_is_refused_half_way_changes_nothing(valkey: Server, refused: str) -> None:
    """A server refuses a command inside the commit: nothing is committed, leaks or is let go of."""
    with connect(valkey.url) as owner, valkey.client() as admin:
        swap = staged_beside_an_old_commit(owner)
        with driver_without(valkey, refused) as clerk:
            (reply,) = clerk._driver.execute([swap])
        admin.acl_deluser("clerk")
        assert isinstance(reply, Failed)
        assert isinstance(reply.error, AccessDenied)
        assert do(owner._driver, Get(MANIFEST)) == manifest_bytes("e.1.a")
        assert do(owner._driver, Get(LIVE)) == b"view"
        assert admin.pttl(A) > 0, "what is not committed expires"
        assert admin.pttl(B) == -1, "what is committed does not"


@pytest.mark.parametrize("refused", ["pexpire", "unlink", "publish"])
def test_a_commit_stands_whatever_fails_after_its_swap(valkey: Server, refused: str) -> None:
    """A server refuses the housekeeping: the producer is told that it committed, and does not repeat it."""
    with connect(valkey.url) as owner, valkey.client() as admin:
        swap = staged_beside_an_old_commit(owner)
        with driver_without(valkey, refused) as clerk:
            assert clerk._driver.execute([swap]) == [Committed()]
        admin.acl_deluser("clerk")
        assert do(owner._driver, Get(MANIFEST)) == manifest_bytes("e.2.a")
        assert admin.pttl(A) == -1


@pytest.mark.parametrize("writes", range(4))
def test_a_page_that_a_cut_commit_left_behind_blocks_nobody(writes: int) -> None:
    """The server died between making a page permanent and the swap: the next publish seals it again."""
    simulated = SimulatedStore()
    store = simulated.connect()
    for number in range(63):
        store.publish("mena", number, id=f"id-{number}")
    client, meddler = meddled(store)
    client.read_latest("mena")

    def die() -> None:
        *stages, swap = meddler.batches[-1]
        assert isinstance(swap, Commit)
        store._driver.execute(stages)
        simulated.keyspace.commit(swap, simulated.clock.now_ms(), writes=writes)
        raise Crash

    meddler.before(len(meddler.batches), die)
    with pytest.raises(Crash):
        client.publish("mena", "cut", id="cut")
    assert simulated.connect().publish("mena", "next").version == 64
    assert len(list(simulated.connect().history("mena", limit=None))) == 64


# --- decisions that a race overtakes ---------------------------------------------------------------


def overtaken(store: Store) -> Store:
    """A producer that knows version 1, whose next batch arrives behind another's version 2."""
    store.publish("mena", 10, id="one")
    client, meddler = meddled(store)
    client.read_latest("mena")
    meddler.before(len(meddler.batches), lambda: store.publish("mena", 20, id="two"))
    return client


def test_expected_version_is_checked_again_after_a_lost_race(store: Store) -> None:
    """Read, modify, publish: two at once, and the second would undo what the first did."""
    client = overtaken(store)
    with pytest.raises(Conflict) as caught:
        client.publish("mena", 11, id="mine", expected_version=1)
    assert caught.value.current_version == 2
    assert [row.id for row in invariants.check(store)] == ["one", "two"]


def test_validate_is_asked_again_after_a_lost_race(store: Store) -> None:
    """A candidate that is good after version 1 is not published after a version 2 that nobody compared."""
    client = overtaken(store)
    with pytest.raises(Rejected, match="shrank"):
        client.publish(
            "mena",
            15,
            validate=lambda candidate, previous: (
                "shrank" if previous is not None and candidate.value < previous.value else None
            ),
        )
    assert [row.id for row in invariants.check(store)] == ["one", "two"]


def test_a_publish_that_died_does_not_block_its_dedupe_key(store: Store) -> None:
    """A cron job dies in the middle; its retry, with the same dedupe key, must publish."""
    store.publish("mena", "before")
    for cut in range(5):
        client, _ = faulty(store, failing_at(cut))
        with pytest.raises(Crash):
            client.publish("mena", cut, dedupe_key=f"hour:{cut}")
        assert another(store).publish("mena", cut, dedupe_key=f"hour:{cut}").created
    assert len(invariants.check(store)) == 6


@pytest.mark.every_store
def test_a_lost_publish_that_several_overtook_is_not_taken_for_theirs(store: Store) -> None:
    """The connection failed before anything arrived, and others committed n+1 and n+2: ours comes after."""
    store.publish("mena", "before", id="before")
    client, meddler = meddled(store)
    client.read_latest("mena")

    def overtake() -> None:
        store.publish("mena", 1, id="rival-1")
        store.publish("mena", 2, id="rival-2")
        lose()

    meddler.before(len(meddler.batches), overtake)
    assert client.publish("mena", "mine", id="mine").version == 4
    assert [row.id for row in invariants.check(store)] == ["before", "rival-1", "rival-2", "mine"]


# --- what was committed, later ---------------------------------------------------------------------


@pytest.mark.every_store
def test_a_new_line_of_versions_does_not_stumble_over_old_pages(store: Store) -> None:
    """The manifest was lost and its pages stayed: a fresh start can seal pages of its own."""
    for number in range(64):
        store.publish("mena", number, id=f"old-{number}")
    delete(store, MENA)
    fresh = another(store)
    for number in range(64):
        fresh.publish("mena", number, id=f"new-{number}")
    ids = [row.id for row in another(store).history("mena", limit=None)]
    assert ids == [f"new-{number}" for number in range(63, -1, -1)]


# --- replicas and slow replies ---------------------------------------------------------------------


@pytest.mark.parametrize("lagging", [1, 2])
def test_a_lagging_replica_does_not_take_a_client_back_in_time(store: Store, lagging: int) -> None:
    """A client that has seen version 2 asks a replica that still has version 1: it asks once more."""
    store.publish("mena", 1)
    (old,) = store._driver.execute([Get(MENA)])
    store.publish("mena", 2)
    client, meddler = meddled(store)
    assert value(client) == 2
    store.publish("mena", 3)
    for number in range(lagging):
        meddler.replies(len(meddler.batches) + number, lambda _: [old])
    assert value(client) == 3
    assert value(client) == 3


def test_a_record_that_arrives_late_is_read_all_the_same(store: Store) -> None:
    """A replica shows a manifest a moment before the payload it names: that is no loss."""
    store.publish("mena", 1)
    cold_trips(store)  # it is known from here on whether the store tells both at once
    client, meddler = meddled(store)
    meddler.replies(1, lambda _: [None])
    assert value(client) == 1


def test_max_staleness_is_a_bound() -> None:
    """A handler that accepts ten seconds is not served what is eleven seconds old."""
    simulated = SimulatedStore()
    producer, reader = simulated.connect(), simulated.connect()
    producer.publish("mena", 1)
    assert value(reader) == 1
    producer.publish("mena", 2)
    simulated.clock.advance(10_000)
    assert value(reader, max_staleness=10) == 1
    simulated.clock.advance(1)
    assert value(reader, max_staleness=10) == 2


@pytest.mark.parametrize("memory", ["cold", "warm"])
def test_a_slow_reply_is_as_old_as_its_question(memory: str) -> None:
    """A reply took a minute and a version was published meanwhile: what it showed is not a second old."""
    simulated = SimulatedStore()
    producer = simulated.connect()
    producer.publish("mena", 1)
    reader, meddler = meddled(producer)
    if memory == "warm":
        assert value(reader) == 1

    def slow() -> None:
        producer.publish("mena", 2)
        simulated.clock.advance(60_000)

    meddler.after(len(meddler.batches), slow)
    assert value(reader) == 1
    assert value(reader, max_staleness=5) == 2
