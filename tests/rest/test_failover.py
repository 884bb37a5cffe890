"""What becomes of a publish over REST when the server behind the endpoint is demoted for a while."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import swapstore
from swapstore import ReadOnly, Store
from tests.support.drivers import meddled
from tests.support.rest import RestServer
from tests.support.rest_switches import NO_SCRIPTS
from tests.support.valkey import Server, free_port


@pytest.fixture(params=["scripts", "no scripts"])
def store(request: pytest.FixtureRequest, rest: RestServer, valkey: Server) -> Iterator[Store]:
    """A store on which something is published, and whose server is a primary again after the test."""
    if request.param == "no scripts":
        rest.switches.denied = NO_SCRIPTS
    with swapstore.connect(rest.url, token=rest.token) as made:
        made.publish("mena", 1, id="first")
        yield made
    promote(valkey)


def demote(valkey: Server) -> None:
    with valkey.client() as client:
        client.replicaof("127.0.0.1", free_port())


def promote(valkey: Server) -> None:
    with valkey.client() as client:
        client.replicaof("NO", "ONE")


def steps(store: Store) -> int:
    """How many batches a warm publish sends."""
    client, meddler = meddled(store)
    client.read_latest("mena")
    before = len(meddler.batches)
    client.publish("mena", 2, id="second")
    return len(meddler.batches) - before


def test_a_publish_goes_on_when_there_is_a_primary_again(store: Store, valkey: Server) -> None:
    """A failover behind the endpoint fails each publish that is under way, or commits one twice."""
    for step in range(steps(store)):
        client, meddler = meddled(store)
        client.read_latest("mena")
        meddler.before(len(meddler.batches) + step, lambda: demote(valkey))
        meddler.before(len(meddler.batches) + step + 1, lambda: promote(valkey))
        assert client.publish("mena", step, id=f"run-{step}").version == step + 3
        promote(valkey)  # the last step of a commit without scripts is not sent again
    assert [row.id for row in store.history("mena")][-2:] == ["second", "first"]
    assert not [each for each in store.verify() if each.wrong]


def test_a_server_that_stays_demoted_is_an_error(store: Store, valkey: Server) -> None:
    """A publish waits without a bound, or is told that it may have been committed."""
    demote(valkey)
    with pytest.raises(ReadOnly):
        store.publish("mena", 2, id="second")
    promote(valkey)
    assert store.publish("mena", 2, id="second").version == 2
