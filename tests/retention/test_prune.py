"""`prune` as an operator or a cron job runs it, on every kind of store."""

from __future__ import annotations

from datetime import timedelta

import attrs
import msgspec
import pytest

from swapstore import Pruned, Retention, Store
from swapstore.commands import Get, Swap
from swapstore.errors import InvalidInput, NotFound
from swapstore.format import manifest
from swapstore.testing import SimulatedStore
from tests.retention.model import WIDEST, at_most, fill, ids, keeping, stored
from tests.support import invariants
from tests.support.drivers import another, meddled
from tests.support.times import at

ONE = Retention(max_count=1)
pytestmark = pytest.mark.usefixtures("small_pages")


@pytest.mark.every_store
def test_prune_hides_and_unlinks_everything_beyond_the_bound(store: Store) -> None:
    """A tighter bound is met only after as many publishes as there are pages."""
    fill(store, 200)
    pruned = another(store).prune("mena", retention=Retention(max_count=10))
    head = stored(store).head
    assert pruned == Pruned(
        dataset="mena",
        version=head.version,
        etag=head.etag,
        let_go=200 - head.count,
        count=head.count,
        first_version=191,
        floor=0,
    )
    assert head.count <= at_most(10)
    assert ids(another(store)) == [f"id-{number}" for number in range(199, 189, -1)]
    invariants.check(store)


def test_prune_again_changes_nothing(store: Store) -> None:
    """A cron job that prunes each minute discards the live view and wakes every follower."""
    fill(store, 60)
    for count in (30, 29, 7, 1):
        store.prune("mena", retention=Retention(max_count=count))
        store.put_live("mena", "view", ttl=60)
        client, meddler = meddled(store)
        etag = stored(store).etag
        again = client.prune("mena", retention=Retention(max_count=count))
        assert (again.etag, again.let_go, meddler.commits()) == (etag, 0, 0)
        assert store.read_live("mena") is not None
    assert store.prune("mena").etag == stored(store).etag, "without bounds there is nothing to do"


def test_a_page_that_is_hidden_in_part_does_not_keep_prune_busy(store: Store) -> None:
    """Prune swaps without end, because the bound is in the middle of a page."""
    fill(store, 20)
    pruned = store.prune("mena", retention=Retention(max_count=18))
    assert (pruned.version, pruned.first_version, pruned.let_go) == (21, 3, 0)


def test_prune_by_age_comes_to_an_end(store: Store) -> None:
    """Every prune by age swaps, because the bound moves with every millisecond."""
    sim = SimulatedStore()
    trusting = msgspec.structs.replace(store._context.policy, max_ahead_ms=None)
    client = Store(store._driver, msgspec.structs.replace(store._context, clock=sim.clock, policy=trusting))
    for hours in range(40):
        client.publish("mena", hours, ts=sim.clock.ms + hours * 3_600_000)
    sim.clock.advance(20 * 3_600_000)
    age = Retention(max_age=timedelta(hours=10))
    first = client.prune("mena", retention=age)
    assert [row.version for row in client.history("mena", limit=None)] == list(range(40, 10, -1))
    assert client.prune("mena", retention=age) == attrs.evolve(first, let_go=0)
    sim.clock.advance(-3_600_000)
    assert client.prune("mena", retention=age) == attrs.evolve(first, let_go=0), "it never moves down"
    sim.clock.advance(40 * 3_600_000)
    assert client.prune("mena", retention=age).count == manifest.recent()


def test_prune_of_a_missing_dataset_says_so(store: Store) -> None:
    """A typo in the name looks like a dataset that is in order."""
    with pytest.raises(NotFound, match="nothing is published") as caught:
        store.prune("mena", retention=ONE)
    assert caught.value.dataset == "mena"
    for wrong in (5, timedelta(days=1), {"max_count": 1}):
        with pytest.raises(InvalidInput, match="Retention"):
            store.prune("mena", retention=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        store.prune("no such name", retention=ONE)


def test_prune_uses_the_bounds_of_its_store_by_default(store: Store) -> None:
    """The bounds of a store are ignored, or cannot be overridden."""
    fill(store, 10)
    client = keeping(store, 5)
    assert client.prune("mena", retention=Retention(max_count=7)).first_version == 4
    assert client.prune("mena").first_version == 6
    assert store.prune("mena").first_version == 6


def test_a_prune_without_bounds_finishes_what_publishing_began(store: Store) -> None:
    """What a publish left to unlink stays until the next publish."""
    fill(store, 200)
    keeping(store, 1).publish("mena", "new", ts=at(9000))
    assert len(invariants.check(store)) > 100
    assert manifest.recent() <= store.prune("mena").count < manifest.recent() + manifest.F
    invariants.check(store)


def test_the_manifest_stays_small_while_much_is_unlinked() -> None:
    """A prune of a long history writes manifests that slow down readers of the latest."""
    sim = SimulatedStore()
    producer = sim.connect()
    for number in range(976):  # two pages of each size
        producer.publish("mena", number)
    client, meddler = meddled(producer)
    client.prune("mena", retention=ONE)
    widths = [
        len(manifest.parse(command.manifest, "mena", command.key).log.pages)
        for batch in meddler.batches
        for command in batch
        if isinstance(command, Swap)
    ]
    assert max(widths) <= WIDEST + 10
    pages = [sum(isinstance(c, Get) and ":page:" in c.key for c in batch) for batch in meddler.batches]
    assert max(pages) <= 16
    assert max(len(batch) for batch in meddler.batches) <= 16 * 2 * manifest.F, "and two records of each row"
    assert stored(client).head.count < manifest.recent() + manifest.F
