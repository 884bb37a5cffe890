"""Two simulated stores to copy between, and a clock that ends a copy that waits in vain."""

from __future__ import annotations

import pytest

from swapstore import Store
from swapstore.format import manifest
from swapstore.testing import SimulatedStore, VirtualClock


@pytest.fixture
def tiny_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of two rows and of two references; nearly every row can leave the log."""
    monkeypatch.setattr(manifest, "F", 2)
    monkeypatch.setattr(manifest, "G", 2)
    monkeypatch.setattr(manifest, "RECENT", 1)


@pytest.fixture(autouse=True)
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that follows and waits for what never comes is ended."""
    waits = iter(range(5000))

    def sleep(clock: VirtualClock, seconds: float) -> None:
        assert next(waits, None) is not None, "it waits in vain"
        clock.advance(int(seconds * 1000))

    monkeypatch.setattr(VirtualClock, "sleep", sleep)


@pytest.fixture
def source() -> Store:
    return SimulatedStore(seed=1).connect()


@pytest.fixture
def target() -> Store:
    return SimulatedStore(seed=2).connect()
