"""The complete app of docs/how-to/serve-over-http.md: a view behind FastAPI, in outages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import swapstore
from tests.http.conftest import documented
from tests.support.valkey import Server
from tests.support.web import Site, running_asgi

pytestmark = pytest.mark.server
WAIT_S = 30
FAST_S = 1.0  # far less than what a request waits for that asks a store which is down


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The app's store: a server that keeps its data when it is stopped."""
    with Server(tmp_path / "server", "--appendonly", "yes", "--appendfsync", "always") as made:
        monkeypatch.setenv("SWAPSTORE_URL", made.url)
        with swapstore.connect(made.url) as producer:
            producer.publish("mena", {"regime": "calm"})
        yield made


def app() -> Any:
    return documented("async def served(")["app"]


def wait_until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def age(site: Site) -> int:
    """Ask for the data, which is there at once, and return its age."""
    began = time.monotonic()
    answer = site.get("/datasets/mena")
    assert (answer.status, answer.json) == (200, {"regime": "calm"})
    assert time.monotonic() - began < FAST_S
    return int(answer.headers["Age"])


def test_the_app_serves_through_an_outage(server: Server) -> None:
    """The store restarts, and every client gets a 503, or the machine is taken out of service."""
    with running_asgi(app()) as site:
        assert age(site) < 10
        known = site.get("/datasets/mena").headers["ETag"]
        assert site.get("/datasets/mena", If_None_Match=known).status == 304
        assert site.get("/datasets/mena", "HEAD").body == b""
        for name in ("europe", "nowhere"):
            assert site.get(f"/datasets/{name}").status == 404
        assert site.get("/ready").status == 200
        server.stop()
        wait_until(lambda: age(site) >= 3)
        assert site.get("/ready").status == 200
        server.start()
        with swapstore.connect(server.url) as producer:
            producer.publish("mena", {"regime": "tense"})
        wait_until(lambda: site.get("/datasets/mena").json == {"regime": "tense"})
        assert int(site.get("/datasets/mena").headers["Age"]) < 10


def test_the_app_starts_while_the_store_is_down(server: Server) -> None:
    """A deployment during an outage fails, or clients are told that nothing was ever published."""
    server.stop()
    with running_asgi(app()) as site:
        answer = site.get("/datasets/mena")
        assert answer.status == 503
        assert "Retry-After" in answer.headers
        assert site.get("/ready").status == 503
        server.start()
        wait_until(lambda: site.get("/ready").status == 200)
        assert age(site) < 10
