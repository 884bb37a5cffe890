"""`prune` while others publish, and while the store fails."""

from __future__ import annotations

import threading

import msgspec
import pytest

import swapstore
from swapstore import Retention, Store
from swapstore.commands import Get
from swapstore.errors import Contended, OutcomeUnknown, PayloadMissing, Unavailable
from swapstore.format import manifest
from swapstore.testing import SimulatedStore
from tests.retention.model import at_most, fill, ids, stored
from tests.support import invariants
from tests.support.drivers import another, lose, meddled

ONE = Retention(max_count=1)
pytestmark = pytest.mark.usefixtures("small_pages")


def test_a_prune_that_is_overtaken_goes_on_from_there(store: Store) -> None:
    """A prune of a busy dataset gives up, or undoes what was published at the same time."""
    fill(store, 60)
    client, meddler = meddled(store)
    for batch in (2, 4, 6):
        meddler.before(batch, lambda: fill(another(store), 1, begin=stored(store).version + 100))
    pruned = client.prune("mena", retention=Retention(max_count=2))
    assert len(ids(another(store))) == 2
    assert pruned.etag == stored(store).etag
    assert stored(store).head.count < manifest.recent() + manifest.F
    invariants.check(store)


def test_a_prune_that_never_wins_says_so(store: Store) -> None:
    """A prune that loses every race retries forever."""
    fill(store, 60)
    policy = msgspec.structs.replace(
        store._context.policy, commit_attempts=3, first_wait_s=0, longest_wait_s=0
    )
    client, meddler = meddled(store, policy=policy)
    for batch in range(100):
        meddler.before(batch, lambda: another(store).publish("mena", "rival"))
    with pytest.raises(Contended, match="Try again"):
        client.prune("mena", retention=ONE)
    invariants.check(store)


@pytest.mark.every_store
def test_a_lost_reply_of_a_prune_is_resolved_from_the_manifest(store: Store) -> None:
    """An operator is told that the outcome is unknown, although the manifest shows it."""
    fill(store, 60)
    client, meddler = meddled(store)

    def overtaken_and_lost() -> None:
        fill(another(store), 1, begin=900)
        lose()

    meddler.after(2, overtaken_and_lost)
    assert client.prune("mena", retention=ONE).etag == stored(store).etag
    assert ids(another(store)) == ["id-900"]
    invariants.check(store)


def test_a_prune_that_cannot_ask_says_so(store: Store) -> None:
    """A prune whose store became unreachable claims to be done."""
    fill(store, 60)
    client, meddler = meddled(store)
    for batch in range(2, 60):
        meddler.before(batch, lose)
    with pytest.raises((OutcomeUnknown, Unavailable)):
        client.prune("mena", retention=ONE)
    invariants.check(store)


def test_a_page_that_cannot_be_read_during_an_outage(store: Store) -> None:
    """An outage is taken for a damaged page, whose rows then stay permanently."""
    fill(store, 60)
    client, meddler = meddled(store)
    client.read_latest("mena")

    def away() -> None:
        if isinstance(meddler.batches[-1][0], Get):
            lose()

    for batch in range(len(meddler.batches), 60):
        meddler.before(batch, away)
    with pytest.raises(Unavailable):
        client.prune("mena", retention=ONE)


@pytest.mark.slow
@pytest.mark.every_store
def test_prunes_against_producers(real_url: str) -> None:
    """Under load a version is lost, a record leaks, or a reader finds nothing."""
    errors: list[BaseException] = []
    done = threading.Event()

    def produce(who: int) -> None:
        retention = Retention(max_count=5 + who)
        with swapstore.connect(real_url, retention=retention if who else None) as client:
            for number in range(40):
                client.publish("mena", number, id=f"{who}-{number}")

    def prune() -> None:
        with swapstore.connect(real_url) as client:
            client.publish("mena", "first", id="first")
            while not done.is_set():
                client.prune("mena", retention=Retention(max_count=3))

    def read() -> None:
        with swapstore.connect(real_url, cache_bytes=0) as client:
            while not done.is_set():
                latest = client.read_latest("mena")
                rows = [row.version for row in client.history("mena", limit=None)]
                assert latest is None or rows
                assert rows == sorted(rows, reverse=True)

    def guarded(act: object, *arguments: int) -> None:
        try:
            act(*arguments)  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - the test tells
            errors.append(error)

    producers = [threading.Thread(target=guarded, args=(produce, who)) for who in range(3)]
    others = [threading.Thread(target=guarded, args=(act,)) for act in (prune, read)]
    for thread in (*producers, *others):
        thread.start()
    for thread in producers:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    assert not errors
    with swapstore.connect(real_url) as store:
        store.prune("mena", retention=Retention(max_count=3))
        assert len(ids(store)) == 3
        assert len(invariants.check(store)) <= at_most(3)


def test_a_history_that_is_read_slower_than_a_prune_is_not_called_damaged() -> None:
    """A slow reader of the history is told that pages were deleted or evicted, and runs a repair."""
    sim = SimulatedStore()
    fill(sim.connect(), 60)
    history = iter(sim.connect().history("mena", limit=None))
    assert next(history).version == 60
    sim.connect().prune("mena", retention=ONE)
    sim.keyspace.expire_all()
    with pytest.raises(Contended, match="were unlinked while the history was read"):
        list(history)
    history = iter(sim.connect().history("mena", limit=None))
    assert [row.version for row in history] == [60]


def test_a_page_that_was_evicted_during_a_history_is_damage() -> None:
    """A slow reader of the history is told to read again, although a page is lost."""
    sim = SimulatedStore()
    fill(sim.connect(), 60)
    history = iter(sim.connect().history("mena", limit=None))
    assert next(history).version == 60
    for key in [key for key in sim.keyspace.values if ":page:" in key]:
        sim.evict(key)
    with pytest.raises(PayloadMissing, match="run swapstore repair"):
        list(history)
