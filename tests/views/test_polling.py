"""Views of stores without hints: a change is seen within `poll`, and an outage passes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import swapstore
from tests.support.rest import RestServer
from tests.support.valkey import Server
from tests.views.watched import WITHIN_S, Watched, eventually, publish

pytestmark = [pytest.mark.slow]

QUICK = 0.05
NAMES = ["a", "b"]


def test_a_file_that_two_programs_use(tmp_path: Path) -> None:
    """A reader of a SQLite file never learns of what another program publishes, or closes with an error."""
    url = f"sqlite:///{tmp_path}/store.db"
    with swapstore.connect(url) as producer, swapstore.connect(url) as store:
        publish(producer, NAMES, 1)
        with store.view(NAMES, poll=QUICK) as view, Watched(view, NAMES) as watched:
            for number in range(2, 12):
                publish(producer, NAMES, number)
            watched.shows(11)
            assert set(view.wait(WITHIN_S)) == set(NAMES)


@pytest.mark.server
def test_rest_through_an_outage(valkey: Server) -> None:
    """A view over REST gives up when its requests fail, or asks without a pause while they do."""
    with RestServer(valkey) as rest:
        store = swapstore.connect(rest.url, token=rest.token, patience=0)
        with store, swapstore.connect(valkey.url) as producer:
            publish(producer, NAMES, 1)
            with store.view(prefix="", poll=QUICK) as view, Watched(view, NAMES) as watched:
                publish(producer, NAMES, 2)
                watched.shows(2)
                rest.switches.drop_before(times=8)
                publish(producer, NAMES, 3)
                eventually(lambda: set(view.health().behind) == set(NAMES))
                watched.shows(3)
                eventually(lambda: view.health().connected and not view.health().behind)


@pytest.mark.server
def test_rest_for_asyncio_through_an_outage(valkey: Server) -> None:
    """A view for asyncio over REST gives up when its requests fail."""

    async def scenario(rest: RestServer, producer: Any) -> None:
        async with (
            swapstore.aio.connect(rest.url, token=rest.token, patience=0) as store,
            store.view(NAMES, poll=QUICK) as view,
        ):
            rest.switches.drop_before(times=8)
            publish(producer, NAMES, 2)
            found: set[str] = set()
            while found != set(NAMES):
                found |= set(await view.wait(WITHIN_S))
            assert view.health().last_error is not None
            assert [view[name].value[0] for name in NAMES] == [2, 2]  # type: ignore[union-attr]

    with RestServer(valkey) as rest, swapstore.connect(valkey.url) as producer:
        publish(producer, NAMES, 1)
        asyncio.run(scenario(rest, producer))
