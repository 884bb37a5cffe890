"""A REST server on an empty Valkey."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rest import RestServer
from tests.support.valkey import Server


@pytest.fixture
def rest(valkey: Server) -> Iterator[RestServer]:
    """The REST server, with no disturbance switched on, on an empty database."""
    with RestServer(valkey) as running:
        yield running
