"""The servers that several files of tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.deployment import kinds
from tests.support.sentinels import Sentinels


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with Sentinels(tmp_path_factory.mktemp("sentinels"), kinds()["valkey"]) as made:
        yield made


@pytest.fixture
def sentinels(running: Sentinels) -> Sentinels:
    """Everything up, empty, and with no command counted yet."""
    running.settle()
    with running.primary.client() as client:
        client.flushall()
        client.wait(2, 5000)
    for server in running.servers:
        with server.client() as client:
            client.config_resetstat()
    return running
