"""Live views: what they are bound to, what they say about themselves, and when they disappear."""

from __future__ import annotations

from typing import Any

import pytest

from swapstore import Store
from swapstore.commands import Failed, Get, Put
from swapstore.errors import (
    StoreFull,
)
from tests.support.drivers import another, meddled


def test_a_client_that_has_read_nothing_writes_a_live_view(store: Store) -> None:
    """A worker that only computes live views is told that nothing is published."""
    commit = store.publish("mena", 1)
    assert another(store).put_live("mena", 2, ttl=60) == commit.etag


def test_a_live_view_describes_itself(store: Store) -> None:
    """A reader that checks or forwards a view lacks its dataset, size or digest."""
    commit = store.publish("mena", b"payload", codec="bytes")
    store.put_live("mena", b"payload", ttl=60, codec="bytes")
    view = store.read_live("mena")
    assert view is not None
    assert (view.dataset, view.size, view.codec) == ("mena", len(b"payload"), "bytes")
    assert view.sha256 == commit.sha256


@pytest.mark.every_store
def test_a_refused_live_view_is_an_error(store: Store) -> None:
    """A full store drops the view, and the worker believes that it is shown."""
    store.publish("mena", 1)
    client, meddler = meddled(store)

    def refuse(replies: list[Any]) -> list[Any]:
        is_put = isinstance(meddler.batches[-1][-1], Put)
        return [Failed(StoreFull("full, on purpose"))] if is_put else replies

    for number in range(3):
        meddler.replies(number, refuse)
    with pytest.raises(StoreFull, match="on purpose"):
        client.put_live("mena", 2, ttl=60)


@pytest.mark.every_store
def test_a_commit_deletes_the_live_view(store: Store) -> None:
    """An outdated view, hidden by its etag, takes up room for as long as its TTL."""
    store.publish("mena", 1)
    store.put_live("mena", "x" * 1000, ttl=3600)
    store.publish("mena", 2)
    assert store._driver.execute([Get("swapstore:live:{mena}")]) == [None]
