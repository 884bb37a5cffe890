"""Payloads stored with zstd, or as differences from a base, over REST: as text, with scripts and without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import swapstore
from swapstore import Store
from tests.retention.test_histories_of_bases import check
from tests.store.test_compression import document, held, in_force, publish_all, stored_as, value_of
from tests.support import bases, invariants
from tests.support.committers import Way
from tests.support.drivers import another, meddled
from tests.support.rest import RestServer
from tests.support.rest_switches import NO_SCRIPTS
from tests.support.times import at
from tests.support.valkey import Server


@pytest.fixture(params=[None, Way.COMPARE, Way.LEASE])
def way(request: pytest.FixtureRequest) -> Way | None:
    """How the endpoint lets a store commit. None: with the script."""
    chosen: Way | None = request.param
    return chosen


@pytest.fixture
def store(rest: RestServer, valkey: Server, way: Way | None) -> Iterator[Store]:
    """A store over REST, on an empty database. Tests that look behind it find connections to the server."""
    if way is not None:
        rest.switches.denied = NO_SCRIPTS
        rest.switches.compares = way is Way.COMPARE
    with (
        swapstore.connect(rest.url, token=rest.token, single_writer=way is not None) as made,
        valkey.client() as client,
    ):
        made._driver._pool = client.connection_pool  # type: ignore[attr-defined]
        yield made


def test_all_that_is_stored_is_text(store: Store) -> None:
    """A proxy that carries text alone refuses or alters a compressed payload."""
    producer, _ = stored_as(store, "delta")
    publish_all(producer, *range(4))
    for key, (value, _) in invariants.contents(store).items():
        assert value.isascii(), key
    assert held(store, "id-3").encoding == "zstd+base64"
    for number in range(4):
        assert value_of(another(store).read("mena", id=f"id-{number}")) == document(number)
    check(store)


def test_round_trips(store: Store, way: Way | None) -> None:
    """Each request costs, and differences cost more of them."""
    producer, meddler = stored_as(store, "delta")
    publish_all(producer, 0, 1)
    plain, plain_meddler = meddled(store)
    plain.publish("other", 1)
    begun, plain_begun = len(meddler.batches), len(plain_meddler.batches)
    publish_all(producer, 2)
    plain.publish("other", 2)
    assert len(meddler.batches) - begun == len(plain_meddler.batches) - plain_begun
    assert way is not None or len(meddler.batches) - begun == 1
    reader, meddler = meddled(store)
    reader.read_latest("mena")
    assert len(meddler.batches) <= 2
    publish_all(producer, 3)
    begun = len(meddler.batches)
    assert value_of(reader.read_latest("mena")) == document(3)
    assert len(meddler.batches) - begun == 2


@pytest.mark.parametrize("expires", [False, True])
def test_publishing_goes_on_when_the_base_in_force_is_lost(
    store: Store, valkey: Server, *, expires: bool
) -> None:
    """Snapshots are acknowledged that nobody can ever read, or none is published any more."""
    producer, _ = stored_as(store, "delta")
    publish_all(producer, 0, 1)
    with valkey.client() as client:
        if expires:
            client.pexpire(in_force(store), 3_600_000)
        else:
            client.delete(in_force(store))
    publish_all(producer, 2, 3)
    found = invariants.contents(store)
    assert found[in_force(store)][1] is False
    for number in (2, 3):
        assert value_of(another(store).read("mena", id=f"id-{number}")) == document(number)


@pytest.mark.parametrize("way", [None, Way.COMPARE], indirect=True)  # under a lease, there is one writer
def test_a_lost_race_costs_no_publish(store: Store, way: Way | None) -> None:
    """A producer that loses a race is told that its id is in use, although nobody else uses it."""
    producer, meddler = stored_as(store, "delta")
    other, _ = stored_as(store, "delta")
    publish_all(producer, 0, 1)
    producer.publish("mena", bases.strange(1, 3000), codec="bytes")  # the next of this kind brings a base
    swap = len(meddler.batches) + (0 if way is None else 1)
    meddler.before(swap, lambda: other.publish("mena", bases.strange(2, 3000), ts=at(1), codec="bytes"))
    assert producer.publish("mena", bases.strange(3, 3000), id="late", ts=at(2), codec="bytes").created
    snapshot = another(store).read("mena", id="late")
    assert snapshot is not None
    assert snapshot.raw == bases.strange(3, 3000)
    if way is None:
        check(store)
