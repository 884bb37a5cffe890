"""The status of a dataset and its ages: a value that was read at one moment."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest

from swapstore import Store
from swapstore.commands import Get
from swapstore.testing import SimulatedStore
from tests.support.drivers import meddled
from tests.support.times import at


def test_ages_are_as_of_the_reading(store: Store) -> None:
    """A monitor computes an age with another clock than the one that read the status."""
    before = int(datetime.now(UTC).timestamp() * 1000)
    store.publish("mena", "calm", id="a", ts=at(before - 5000))
    status = store.status("mena")
    assert status is not None
    assert before <= status.read_at <= int(datetime.now(UTC).timestamp() * 1000) + 1
    assert status.age_ms == status.read_at - (before - 5000) >= 5000
    assert status.confirmed_age_ms == status.read_at - status.confirmed_at < 60_000
    assert status.bytes == len(b'"calm"')


@pytest.mark.every_store
def test_ages_are_those_of_the_served_snapshot(store: Store) -> None:
    """Readers are served a pinned snapshot of last year, and the status says that all is fresh."""
    store.publish("mena", "old", id="a", ts=at(1000))
    store.publish("mena", "new and longer", id="b", ts=at(2000))
    store.pin("mena", id="a")
    status = store.status("mena")
    assert status is not None
    assert (status.age_ms, status.bytes) == (status.read_at - 1000, len(b'"old"'))
    assert status.latest.ts == 2000


def test_confirming_renews_one_age_and_not_the_other() -> None:
    """A producer that found nothing new makes old data look new."""
    world = SimulatedStore()
    store = world.connect()
    store.publish("mena", 1, ts=world.clock.now_ms())
    world.clock.advance(10_000)
    status = store.confirm("mena")
    assert (status.age_ms, status.confirmed_age_ms) == (10_000, 0)
    world.clock.advance(2_000)
    status = store.status("mena") or status
    assert (status.age_ms, status.confirmed_age_ms) == (12_000, 2_000)


def test_the_time_of_reading_does_not_affect_equality(store: Store) -> None:
    """Two statuses without any change in between are not equal."""
    store.publish("mena", 1)
    first = store.status("mena")
    assert first is not None
    assert attrs.evolve(first, read_at=first.read_at + 1) == first
    assert store.confirm("mena") != first


def test_a_status_reads_no_payload(store: Store) -> None:
    """A monitor transfers megabytes every minute."""
    store.publish("mena", "x" * 1000)
    client, meddler = meddled(store)
    assert client.status("mena") is not None
    assert [type(command) for batch in meddler.batches for command in batch] == [Get]
