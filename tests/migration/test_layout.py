"""The key names of the six-command layout."""

from __future__ import annotations

from typing import Any

import pytest

import swapstore
from swapstore import InvalidInput, Mirror
from swapstore.migration.layout import Layout
from swapstore.migration.plan import Moment, moment
from swapstore.migration.source import PayloadFields, fields_of


@pytest.mark.parametrize("prefix", ["intel", "intel:"])
def test_names_are_those_of_the_old_producers(prefix: str) -> None:
    """Import and mirror read and write other keys than the old producers and readers."""
    layout = Layout(prefix=prefix)
    assert layout.latest("mena") == "intel:snapshot:v1:mena:latest"
    assert layout.by_id("x") == "intel:snapshot-by-id:v1:x"
    assert layout.index("mena") == "intel:snapshot-index:v1:mena"
    assert layout.by_ts("mena", "17") == "intel:snapshot:v1:mena:17"
    assert layout.glob() == "intel:snapshot*"
    assert Layout().latest("mena") == "snapshot:v1:mena:latest"
    assert Mirror(prefix=prefix).latest("mena") == layout.latest("mena")


def test_a_name_with_a_placeholder_in_it_is_taken_as_it_is() -> None:
    """An id that looks like a placeholder is replaced."""
    assert Layout().by_ts("{ts}", "17") == "snapshot:v1:{ts}:17"
    assert Mirror().by_id("{region}") == "snapshot-by-id:v1:{region}"
    assert Layout(by_ts_key="{ts}:{region}").by_ts("mena", "17") == "17:mena"


@pytest.mark.parametrize(
    "options",
    [
        {"latest_key": "snapshot:latest"},
        {"latest_key": "{region}:{region}"},
        {"latest_key": "{region}:{id}"},
        {"latest_key": "swapstore:manifest:{{region}}"},
        {"by_id_key": "{region}"},
        {"by_id_key": ""},
        {"by_id_key": "x:{id}\n"},
        {"by_id_key": None},
        {"prefix": "swapstore:manifest:{"},
        {"prefix": "a\0"},
        {"prefix": 7},
    ],
)
def test_patterns_without_their_placeholder_are_refused(options: dict[str, Any]) -> None:
    """All datasets share one key, or the mirror overwrites a manifest."""
    with pytest.raises(InvalidInput, match=next(iter(options))):
        Mirror(**options)
    with pytest.raises(InvalidInput):
        Layout(**options)


def test_a_mirror_needs_a_server_that_old_readers_read() -> None:
    """A mirror on a file is accepted, although no old reader sees it."""
    with pytest.raises(InvalidInput, match="SQLite"):
        swapstore.connect("sqlite:///x.db", mirror=Mirror())
    wrong: Any = "intel"
    with pytest.raises(InvalidInput, match="Mirror"):
        swapstore.connect("redis://localhost", mirror=wrong)
    swapstore.connect("redis://localhost", mirror=Mirror()).close()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1_700_000_000_000, Moment(1_700_000_000_000, coarse=False)),
        (1_700_000_000, Moment(1_700_000_000_000, coarse=True)),
        (1_700_000_000.25, Moment(1_700_000_000_250, coarse=False)),
        (float("inf"), None),
        (float("nan"), None),
        (-1, None),
        (10**18, None),
    ],
)
def test_times_in_seconds_and_milliseconds(number: float, expected: Moment | None) -> None:
    """A time is off by a factor of a thousand."""
    assert moment(number) == expected


@pytest.mark.parametrize(
    ("payload", "fields"),
    [
        (b'{"id":"a","region":"r","ts":1}', PayloadFields("a", "r", 1)),
        (b'{"meta":{"snapshot_id":"a"},"region_id":"r","generated_at":1.5}', PayloadFields("a", "r", 1.5)),
        (b'{"id":7,"region":"","ts":true,"meta":"x"}', PayloadFields()),
        (b'{"ts":"2026-01-01"}', PayloadFields()),
        (b"[1]", PayloadFields()),
        (b"\xff", PayloadFields()),
        (b"[" * 100_000, PayloadFields()),
    ],
)
def test_ids_and_times_inside_payloads(payload: bytes, fields: PayloadFields) -> None:
    """A payload of an unexpected form ends the import, or its id or time is misread."""
    assert fields_of(payload) == fields
