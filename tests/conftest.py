"""What each run of the tests runs, and the stores that they run on.

A fixture that makes a store has a parameter for every kind: SQLite, fakeredis, and each real server (the
one from the wheel, and a `redis-server` or `valkey-server` on PATH). The driver contract proves that the
kinds behave equally, so `make test` runs a test on the first kind, and `make nightly` on the others. A test
with the marker `every_store` always runs on all of them, and so does a test that is given by its id.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import hypothesis
import pytest

import swapstore
from swapstore import Store
from tests.support.valkey import Server, binaries

hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60, database=None)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=2000, print_blob=True)
NIGHTLY = 25  # times as many runs of each state machine, with random seeds
PROFILE = os.environ.get("SWAPSTORE_FUZZ", "ci")
hypothesis.settings.load_profile(PROFILE)


def steps(examples: int, each: int) -> hypothesis.settings:
    """Settings of a state machine: the number of runs and steps; many more runs at night."""
    runs = examples if PROFILE == "ci" else examples * NIGHTLY
    return hypothesis.settings(
        hypothesis.settings.get_profile(PROFILE), stateful_step_count=each, max_examples=runs
    )


REAL_SERVERS = sorted(binaries())


def kinds(first: str, *others: str) -> list[Any]:
    """Parameters of a fixture that makes a store of each kind; every test runs on the first one."""
    mark = pytest.mark
    needs = {name: [mark.server] for name in REAL_SERVERS}
    rest = [pytest.param(name, marks=[mark.another_store, *needs.get(name, ())]) for name in others]
    return [pytest.param(first, marks=needs.get(first, ())), *rest]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that are for `make nightly` or need a server; without `-m`, leave out the nightly ones."""
    for item in items:
        if item.get_closest_marker("another_store") and not item.get_closest_marker("every_store"):
            item.add_marker(pytest.mark.nightly)
        if {"valkey", "browser"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.server)
    if not config.option.markexpr and not any("::" in name for name in config.args):
        left_out = [item for item in items if item.get_closest_marker("nightly")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]


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


@pytest.fixture(params=kinds("sqlite", "fakeredis", *REAL_SERVERS))
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


@pytest.fixture(params=kinds("sqlite", *REAL_SERVERS))
def real_url(request: pytest.FixtureRequest, tmp_path: Path, servers: Callable[[str], Server]) -> str:
    """The address of a real store that several processes can use."""
    return _url(request.param, tmp_path, servers)


def _url(kind: str, tmp_path: Path, servers: Callable[[str], Server]) -> str:
    return f"sqlite:///{tmp_path}/store.db" if kind == "sqlite" else servers(kind).url
