"""The validators that come with swapstore, and their messages."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from swapstore import Candidate, InvalidInput, Rejected, Store, codecs, validators
from swapstore.testing import SimulatedStore
from swapstore.validators import json_schema, must_be_newer, must_not_shrink
from tests.support.times import at

WORD = "s3cret-payload"
PRICES = {
    "type": "object",
    "required": ["oil"],
    "additionalProperties": False,
    "properties": {
        "oil": {"$ref": "#/$defs/price"},
        "gas/eu": {"const": 3},
        "rows": {"type": "array", "items": {"type": "integer"}},
        "kind": {"enum": [f"kind-{number}" for number in range(100)]},
    },
    "$defs": {"price": {"type": "number", "minimum": 0}},
}


def candidate(value: Any, *, codec: str = "json") -> Candidate:
    raw = codecs.encode(value, codec, limit_bytes=1 << 20)
    return Candidate(dataset="d", id="i", ts=5, labels={}, size=len(raw), sha256="", codec=codec, raw=raw)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"oil": 1}, None),
        ({"oil": -1}, "/oil breaks minimum 0"),
        ({"oil": WORD}, '/oil breaks type "number"'),
        ({}, 'the value itself breaks required ["oil"]'),
        ([WORD], 'the value itself breaks type "object"'),
        ({"oil": 1, WORD: 2}, "the value itself breaks additionalProperties false"),
        ({"oil": 1, "gas/eu": WORD}, "/gas~1eu breaks const 3"),
        ({"oil": 1, "rows": [1, WORD, WORD]}, "/rows/1 breaks type"),
        ({"oil": 1, "rows": [WORD] * 9}, '/rows/2 breaks type "integer"; and more'),
        ({"oil": 1, "kind": WORD}, "/kind breaks enum"),
    ],
)
def test_json_schema_says_where_and_never_what(value: Any, reason: str | None) -> None:
    """The error does not say where the fault is, or puts the payload into a log."""
    said = json_schema(PRICES)(candidate(value), None)
    if reason is None:
        assert said is None
        return
    assert said is not None
    assert reason in said
    assert WORD not in said
    assert len(said) < 500


def test_a_long_path_is_truncated() -> None:
    """A key of a megabyte in the payload makes a message of a megabyte."""
    said = json_schema({"additionalProperties": {"type": "null"}})(candidate({"k" * 100_000: 1}), None)
    assert said is not None
    assert len(said) < 300


def test_json_schema_is_for_json() -> None:
    """Binary payloads are checked against a schema that cannot apply to them, and pass."""
    everything, nothing = map(json_schema, (True, False))
    assert everything(candidate(1), None) is None
    assert "the schema false" in str(nothing(candidate(1), None))
    assert "as bytes" in str(everything(candidate(b"1", codec="bytes"), None))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nonsense"},
        {"properties": 3},
        {"pattern": "("},
        {"$ref": "#/nowhere"},
        {"properties": {"a": object()}},
        "{}",
        None,
        [],
    ],
    ids=lambda schema: str(schema)[:18],
)
def test_an_invalid_schema_is_refused_at_once(schema: Any) -> None:
    """A typo in a schema is found by the first publish of the night, or lets everything pass."""
    with pytest.raises(InvalidInput, match="JSON Schema"):
        json_schema(schema)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/schema.json", "file:///etc/hostname"])
def test_a_schema_fetches_nothing(address: str) -> None:
    """A publish waits for another server, or a schema from outside reads local files."""
    with pytest.raises(InvalidInput, match=r"not fetched; put it into \$defs"):
        json_schema({"$ref": address})


def test_without_the_extra_the_error_names_it() -> None:
    """A user without the extra gets an ImportError of an unknown name."""
    code = (
        "import sys; sys.modules['jsonschema_rs'] = None\n"
        "from swapstore import InvalidInput, validators\n"
        "try: validators.json_schema({})\n"
        "except InvalidInput as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'swapstore[jsonschema]'" in done.stdout


@pytest.mark.parametrize(
    ("percent", "before", "now", "passes"),
    [
        (0, 10, 10, True),
        (0, 10, 9, False),
        (10, 10, 9, True),
        (10, 10, 8, False),
        (33.3, 3, 2, False),
        (33.4, 3, 2, True),
        (99, 0, 0, True),
        (20, 5, 500, True),
    ],
)
def test_must_not_shrink_counts_items(percent: float, before: int, now: int, *, passes: bool) -> None:
    """A scraper that found half of its pages replaces the whole list, or a small change is refused."""
    validator = must_not_shrink(percent=percent, of="items")
    with SimulatedStore().connect() as store:
        store.publish("list", list(range(before)))
        store.publish("object", {str(number): number for number in range(before)})
        for name, value in (
            ("list", list(range(now))),
            ("object", {str(number): number for number in range(now)}),
        ):
            if passes:
                store.publish(name, value, validate=validator)
            else:
                with pytest.raises(Rejected, match=f"shrinks from {before} to {now} items"):
                    store.publish(name, value, validate=validator)


def test_must_not_shrink_measures_bytes(store: Store) -> None:
    """An image that was cut off in transfer replaces the whole one."""
    shrink = must_not_shrink(percent=50)
    store.publish("tiles", b"x" * 100, codec="bytes", validate=shrink)
    store.publish("tiles", b"x" * 50, codec="bytes", validate=shrink)
    with pytest.raises(Rejected, match=r"shrinks from 50 to 24 bytes, by 52.0 %, and may by 50 %"):
        store.publish("tiles", b"x" * 24, codec="bytes", validate=shrink)
    assert store.read_latest("tiles").raw == b"x" * 50  # type: ignore[union-attr]


def test_items_of_a_value_without_a_length(store: Store) -> None:
    """A value of another shape passes unmeasured, or the first good one after it is refused."""
    shrink = must_not_shrink(percent=5, of="items")
    with pytest.raises(Rejected, match="neither a list nor an object"):
        store.publish("mena", "calm", validate=shrink)
    store.publish("mena", "calm")
    store.publish("mena", [1], validate=shrink)


@pytest.mark.parametrize(
    "options",
    [{"percent": 100}, {"percent": -1}, {"percent": True}, {"percent": "5"}, {"percent": float("nan")}],
)
def test_an_invalid_percentage_is_refused(options: dict[str, Any]) -> None:
    """A typo in the bound of a validator lets everything pass."""
    with pytest.raises(InvalidInput, match="percent"):
        must_not_shrink(**options)
    with pytest.raises(InvalidInput, match="of must be"):
        must_not_shrink(percent=1, of="rows")  # type: ignore[arg-type]


def test_must_be_newer(store: Store) -> None:
    """A job that reads yesterday's file again publishes it as new data."""
    newer = validators.must_be_newer()
    store.publish("mena", 1, ts=at(100), validate=newer)
    store.publish("mena", 2, ts=at(101), validate=newer)
    for ts in (101, 50):
        with pytest.raises(Rejected, match=f"its ts {ts} is not newer than that of the latest, 101"):
            store.publish("mena", 3, ts=at(ts), validate=newer)
    assert [row.ts for row in store.history("mena")] == [101, 100]


@pytest.mark.every_store
def test_a_retry_of_what_is_committed_is_not_refused(store: Store) -> None:
    """A retry after a lost reply is told that its own snapshot is too old."""
    newer = must_be_newer()
    first = store.publish("mena", 1, id="a", ts=at(100), validate=newer)
    again = store.publish("mena", 1, id="a", ts=at(100), validate=newer)
    assert (again.version, again.created) == (first.version, False)
