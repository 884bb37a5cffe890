"""Small pages, so that a few publishes seal, open and drop them."""

from __future__ import annotations

import pytest

from swapstore.format import manifest


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "F", 4)
    monkeypatch.setattr(manifest, "G", 3)


@pytest.fixture
def tiny_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "F", 2)
    monkeypatch.setattr(manifest, "G", 2)
