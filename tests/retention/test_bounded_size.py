"""The size of the store and of the manifest stays bounded over a long time."""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import timedelta

import pytest

from swapstore import Retention
from swapstore.errors import IdConflict, TooOld
from swapstore.format import manifest
from swapstore.testing import SimulatedStore
from tests.retention.model import WIDEST, at_most, keeping, permanent, stored
from tests.support import invariants

pytestmark = pytest.mark.slow

SECOND = 1000


def height_of(count: int) -> int:
    """How many sizes of pages a log of this many rows has."""
    sizes, size = 1, manifest.F
    while size < count:
        sizes, size = sizes + 1, size * manifest.G
    return sizes


@pytest.mark.parametrize("confirms", [0, 11], ids=["dense", "gaps"])
def test_a_bound_beyond_a_page_of_references_is_met(confirms: int) -> None:
    """With the real page sizes the store keeps hundreds of snapshots more than max_count."""
    sim = SimulatedStore()
    client = keeping(sim.connect(), 300)
    for number in range(900):
        sim.clock.advance(SECOND)
        client.publish("mena", number)
        if confirms and number % confirms == 0:
            client.confirm("mena")
        if number % 50 == 0:
            assert len(permanent(client, "id")) <= at_most(300)
            assert len(stored(client).log.pages) < 3 * manifest.G
    shown = len(list(client.history("mena", limit=None)))
    assert 300 <= shown < 300 + manifest.F
    invariants.check(client)


@pytest.mark.usefixtures("small_pages")
def test_an_age_is_met_too() -> None:
    """A producer that keeps a minute of history keeps pages of older snapshots."""
    sim = SimulatedStore()
    client = keeping(sim.connect(), max_age=timedelta(seconds=60))
    for number in range(500):
        sim.clock.advance(SECOND)
        client.publish("mena", number)
        assert len(permanent(client, "id")) <= at_most(61)
    assert len(list(client.history("mena", limit=None))) == 61
    invariants.check(client)


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("share", [0.1, 0.7])
def test_backfills_do_not_make_the_manifest_wide(share: float) -> None:
    """Readers of the latest load references to pages that are kept for one row each."""
    sim, dice = SimulatedStore(), random.Random(3)
    client = keeping(sim.connect(), max_age=timedelta(seconds=50))
    for number in range(700):
        sim.clock.advance(SECOND)
        offset = dice.randrange(-40, 400) if dice.random() < share else 0
        with suppress(TooOld):
            client.publish("mena", number, ts=sim.clock.ms + offset * SECOND)
        if number % 9 == 0:
            client.confirm("mena")
            now = stored(client)
            assert len(now.log.pages) <= WIDEST + manifest.G * height_of(now.head.count)
    invariants.check(client)
    sim.clock.advance(3_600_000)
    before = {row.id for row in invariants.check(client)}
    pruned = client.prune("mena")
    assert manifest.recent() <= pruned.count < manifest.recent() + manifest.F
    assert pruned.let_go == len(before) - pruned.count
    assert len(permanent(client, "id")) <= pruned.count + 1, "and the latest"
    assert len(permanent(client, "page")) <= manifest.RECENT


@pytest.mark.usefixtures("tiny_pages")
def test_bounds_that_change_all_the_time() -> None:
    """Pages are sealed and opened until one is named twice or not at all."""
    sim, dice = SimulatedStore(), random.Random(5)
    first = sim.connect()
    for number in range(250):
        sim.clock.advance(SECOND)
        client = keeping(first, dice.choice([None, 3, 9, 40, 90]))
        with suppress(IdConflict):
            client.publish("mena", number, id=f"id-{dice.randrange(60)}")
        if number % 5 == 0:
            dice.choice([client.confirm, client.unpin])("mena")
        if number % 17 == 0:
            client.pin("mena", id=client.publish("mena", number).id)
        if number % 40 == 0:
            client.prune("mena", retention=Retention(max_count=60))
        invariants.check(first)
