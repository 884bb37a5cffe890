"""The stores that the tests run on: SQLite, fakeredis for speed, and a real Valkey server.

Tests on a real server also run on a `redis-server` or `valkey-server` that is on PATH.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fakeredis
import hypothesis
import pytest

import swapstore
from swapstore import Store
from tests.support.valkey import Server, binaries

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60, database=None)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=5000, print_blob=True)
PROFILE = os.environ.get("SWAPSTORE_FUZZ", "ci")
hypothesis.settings.load_profile(PROFILE)


def steps(examples: int, each: int) -> hypothesis.settings:
    """Settings of a state machine: the number of runs and steps; the random profile has its own."""
    chosen = hypothesis.settings.get_profile(PROFILE)
    runs = examples if PROFILE == "ci" else chosen.max_examples
    return hypothesis.settings(chosen, stateful_step_count=each, max_examples=runs)


REAL_SERVERS = sorted(binaries())


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Real servers by the name of their binary, started when first used."""
    running: dict[str, Server] = {}

    def get(name: str) -> Server:
        if name not in running:
            running[name] = Server(tmp_path_factory.mktemp(name), binary=binaries()[name]).start()
        with running[name].client() as client:
            client.flushall()
        return running[name]

    yield get
    for server in running.values():
        server.stop()


@pytest.fixture
def valkey(servers: Callable[[str], Server]) -> Server:
    """An empty real server, from the wheel."""
    return servers("valkey")


@pytest.fixture(params=["sqlite", "fakeredis", *REAL_SERVERS])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, servers: Callable[[str], Server]
) -> Iterator[Store]:
    """One store of each kind."""
    if request.param == "fakeredis":
        with fakeredis.FakeRedis(server=fakeredis.FakeServer()) as client, swapstore.connect(client) as made:
            yield made
        return
    with swapstore.connect(_url(request.param, tmp_path, servers)) as made:
        yield made


@pytest.fixture(params=["sqlite", *REAL_SERVERS])
def real_url(request: pytest.FixtureRequest, tmp_path: Path, servers: Callable[[str], Server]) -> str:
    """The address of a real store that several processes can use."""
    return _url(request.param, tmp_path, servers)


def _url(kind: str, tmp_path: Path, servers: Callable[[str], Server]) -> str:
    return f"sqlite:///{tmp_path}/store.db" if kind == "sqlite" else servers(kind).url
