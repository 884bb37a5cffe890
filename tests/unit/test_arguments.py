"""Names, times, labels and sizes: what is refused before anything is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from swapstore import Retention, Timeout, arguments
from swapstore.errors import InvalidInput, PayloadTooLarge

BAD_NAMES: list[Any] = [
    "",
    "a" * 129,
    "-a",
    "/a",
    "a b",
    "a{b}",
    "a\n",
    "é",
    "a:b",
    "a\x00",
    None,
    7,
    b"mena",
]


def test_a_number_in_place_of_a_timedelta_shows_what_to_write() -> None:
    """A newcomer guesses whether an age is in seconds or in days."""
    both = r"not 90; write timedelta\(days=90\), or timedelta\(seconds=90\)"
    with pytest.raises(InvalidInput, match=f"max_age .*{both}"):
        Retention(max_age=90)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=f"max_ahead .*{both}"):
        arguments.max_ahead_ms(90)
    for other in ("90d", True):
        with pytest.raises(InvalidInput) as caught:
            Retention(max_age=other)  # type: ignore[arg-type]
        assert "write" not in str(caught.value)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_dataset_names(name: Any) -> None:
    """A name with braces moves keys to another cluster slot, or newlines break a record."""
    with pytest.raises(InvalidInput, match="dataset name"):
        arguments.dataset(name)


@pytest.mark.parametrize("name", ["mena", "a", "0", "A.b_c-d/e", "a" * 128])
def test_good_dataset_names(name: str) -> None:
    """A valid name is refused."""
    assert arguments.dataset(name) == name
    assert arguments.namespace(name) == name


@pytest.mark.parametrize("value", ["", "a" * 201, "a b", "{a}", "a\n", "é", None, 1])
def test_bad_ids(value: Any) -> None:
    """An id that cannot be part of a key is accepted."""
    with pytest.raises(InvalidInput, match="id"):
        arguments.snapshot_id(value)
    with pytest.raises(InvalidInput, match="dedupe_key"):
        arguments.dedupe_key(value)


@pytest.mark.parametrize("value", ["a", "a" * 200, "run:1/x@h+1-2._"])
def test_good_ids(value: str) -> None:
    """A valid id is refused."""
    assert arguments.snapshot_id(value) == value


def test_a_long_name_is_not_shown_whole() -> None:
    """A document that is passed as a name makes an unreadable error."""
    with pytest.raises(InvalidInput) as caught:
        arguments.dataset("x" * 100_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (datetime(2026, 1, 1), "naive"),  # noqa: DTZ001 - that is the point
        (-1, "between 1990"),
        (631_151_999_999, "between 1990"),
        (10**12 * 10**3, r"microseconds, perhaps\? Then give 1000000000000\)"),
        (1_769_882_400, r"seconds, perhaps\? Then give 1769882400000\)"),
        (1_769_882_400 * 10**9, r"nanoseconds, perhaps\? Then give 1769882400000\)"),
        (1_769_882_400.5, r"must be .*int\(time.time\(\) \* 1000\)"),
        (True, "must be"),
        ("2026-01-01", "must be"),
        (datetime(1969, 1, 1, tzinfo=UTC), "before 1970"),
    ],
)
def test_bad_times(value: Any, match: str) -> None:
    """A naive datetime is accepted, and means another moment on another machine."""
    with pytest.raises(InvalidInput, match=match):
        arguments.timestamp_ms(value)


def test_good_times() -> None:
    """A time is shifted, or rounded in the wrong direction."""
    assert arguments.timestamp_ms(631_152_000_000) == 631_152_000_000
    assert arguments.timestamp_ms(arguments.MAX_TS_MS) == arguments.MAX_TS_MS
    assert arguments.timestamp_ms(datetime(1970, 1, 1, 0, 0, 1, 1999, tzinfo=UTC)) == 1001
    assert arguments.timestamp_ms(datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == 0


@pytest.mark.parametrize(
    "value", [{"a": 1}, {1: "a"}, {"a": None}, [("a", "b")], "a", {"a": "x" * 1100}, {"a": "\ud800"}]
)
def test_bad_labels(value: Any) -> None:
    """Labels that are large or not text are stored in every row."""
    with pytest.raises(InvalidInput, match="label"):
        arguments.labels(value)


def test_labels_are_copied_and_ordered() -> None:
    """The same labels give other header bytes, or a change of the caller's mapping changes a snapshot."""
    given = {"b": "2", "a": "1"}
    taken = arguments.labels(given)
    assert list(taken) == ["a", "b"]
    given["c"] = "3"
    assert "c" not in taken


@pytest.mark.parametrize(
    "value", [0, -1, 0.0001, float("nan"), float("inf"), True, "60", None, timedelta(days=400)]
)
def test_bad_ttls(value: Any) -> None:
    """A live view is accepted that never expires."""
    with pytest.raises(InvalidInput, match="ttl"):
        arguments.ttl_ms(value)


def test_good_ttls_and_bounds() -> None:
    """A TTL or bound in seconds or as a timedelta is refused."""
    assert arguments.ttl_ms(1.5) == 1500
    assert arguments.ttl_ms(timedelta(minutes=1)) == 60_000
    assert arguments.staleness_s(timedelta(seconds=2)) == 2.0
    for wrong in (-1, float("nan"), float("inf"), "1", True):
        with pytest.raises(InvalidInput):
            arguments.staleness_s(wrong)


@pytest.mark.parametrize("value", [-1, 1.0, True, "1"])
def test_bad_versions(value: Any) -> None:
    """A version that is not a whole number is accepted."""
    with pytest.raises(InvalidInput, match="expected_version"):
        arguments.expected_version(value)


def test_payload_size_names_both_figures() -> None:
    """The error lacks the size of the payload or the limit."""
    arguments.payload_size(10, 10)
    with pytest.raises(PayloadTooLarge, match="11 bytes.*10") as caught:
        arguments.payload_size(11, 10)
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (11, 10)


@pytest.mark.parametrize("value", ["", "e", "e.1", 'x"y.1.z', "e.1.n\n", None])
def test_bad_etags(value: Any) -> None:
    """An etag that the library did not make damages the first bytes of a record."""
    with pytest.raises(InvalidInput, match="etag"):
        arguments.etag(value)


@pytest.mark.parametrize("value", [0, -1, True, "10", float("nan"), float("inf"), 10**400, timedelta(1), [1]])
def test_bad_time_outs(value: Any) -> None:
    """A call waits forever, or a time-out of text fails in the middle of a publish."""
    with pytest.raises(InvalidInput, match="timeout"):
        Timeout.of(value)
    for name in ("connect", "reply", "total"):
        with pytest.raises(InvalidInput, match=f"time-out {name}"):
            Timeout(**{name: value})


def test_good_time_outs() -> None:
    """A number bounds only a part of a call, or a `Timeout` sets what its caller did not."""
    assert Timeout.of(2) == Timeout(connect=2, reply=2, total=2)
    assert Timeout.of(Timeout(reply=0.5)) == Timeout(connect=None, reply=0.5, total=None)
    assert Timeout.of(None) == Timeout()
