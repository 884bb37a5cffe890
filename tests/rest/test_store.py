"""The tests of publishing and reading in tests/store and tests/batching, run on the REST driver.

They are imported, and find the `store` fixture of this module.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import swapstore
from swapstore import Store
from tests.batching.test_items import test_eight_ids_take_one_round_trip  # noqa: F401 - the tests themselves
from tests.store.test_asked_history import test_labels_and_times_choose_rows  # noqa: F401
from tests.store.test_diff import *  # noqa: F403 - the tests themselves
from tests.store.test_outcomes import *  # noqa: F403
from tests.store.test_publish import *  # noqa: F403
from tests.store.test_published import *  # noqa: F403
from tests.store.test_read import *  # noqa: F403
from tests.support.rest import RestServer
from tests.support.valkey import Server


@pytest.fixture
def store(rest: RestServer, valkey: Server) -> Iterator[Store]:
    """A store over REST, on an empty database. Tests that look behind it find connections to the server."""
    with swapstore.connect(rest.url, token=rest.token) as made, valkey.client() as client:
        made._driver._pool = client.connection_pool  # type: ignore[attr-defined]
        yield made


def test_a_durability_is_refused(rest: RestServer) -> None:
    """A publish over REST is acknowledged as if replicas had it."""
    with pytest.raises(swapstore.Unsupported, match="rediss://"):
        swapstore.connect(rest.url, token=rest.token, durability=swapstore.Durability())
    with swapstore.connect(rest.url, token=rest.token) as store:
        with pytest.raises(swapstore.Unsupported, match="REST endpoint waits for no replicas"):
            store.publish("mena", 1, durability=swapstore.Durability())
        assert store.read_latest("mena") is None
