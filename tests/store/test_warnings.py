"""Warnings point at the line that has to be changed."""

from __future__ import annotations

import asyncio
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore import Store

TEXT = json.dumps({"a": 1})


def lines(caught: list[warnings.WarningMessage]) -> list[tuple[str, bool]]:
    return [(warning.filename, "msgspec.Raw" in str(warning.message)) for warning in caught]


def test_json_text_is_warned_of_where_it_was_published(store: Store) -> None:
    """The warning names a line of this library, so it is shown once and its cause is not found."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store.publish("mena", TEXT)
        store.publish_many({"mena": TEXT})
        store.put_live("mena", TEXT, ttl=5)
    assert lines(caught) == [(__file__, True)] * 3
    assert store.read_latest("mena").value == TEXT  # type: ignore[union-attr]


def test_json_text_is_warned_of_where_it_was_awaited(tmp_path: Path) -> None:
    """The warning of a task names a line of the event loop."""

    async def main() -> None:
        async with swapstore.aio.connect(f"sqlite:///{tmp_path}/a.db") as store:
            await store.publish("mena", TEXT)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main())
    assert lines(caught) == [(__file__, True)]


def test_a_warning_that_is_an_error_is_one_of_its_dataset(store: Store) -> None:
    """Under `-W error` one string keeps all datasets of a `publish_many` from being published."""
    values: dict[str, Any] = {"text": TEXT, "mena": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outcomes = store.publish_many(values)
    assert list(outcomes.failures) == ["text"]
    with pytest.raises(swapstore.InvalidInput, match="UserWarning"):
        outcomes.raise_for_failures()
