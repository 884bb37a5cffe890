"""What a publish takes besides plain JSON, and what it refuses with the call that converts it."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import pathlib
import threading
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import attrs
import msgspec
import numpy as np
import pytest

from swapstore import codecs
from swapstore.errors import InvalidInput, PayloadTooLarge


def encode(value: Any, default: Callable[[Any], Any] | None = None) -> bytes:
    return codecs.encode(value, "json", limit_bytes=1 << 20, default=default)


class Day(enum.Enum):
    FIRST = dt.date(2026, 1, 1)


class Color(enum.Enum):
    RED = "red"


class Number(enum.Enum):
    ONE = 1


class Frozen(dt.datetime):
    """Like the datetimes of freezegun and pendulum."""

    def isoformat(self, *_: Any, **__: Any) -> str:
        return "not this one"


class Row(msgspec.Struct):
    when: dt.datetime
    amount: Decimal


@attrs.frozen
class Point:
    at: dt.datetime


WHEN = dt.datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=dt.UTC)
INDIA = dt.timezone(dt.timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (WHEN, '"2026-01-02T03:04:05.000600Z"'),
        (WHEN.replace(microsecond=0, tzinfo=INDIA), '"2026-01-02T03:04:05+05:30"'),
        (WHEN.replace(tzinfo=ZoneInfo("Europe/London")), '"2026-01-02T03:04:05.000600Z"'),
        (Frozen(2026, 1, 2, tzinfo=dt.UTC), '"2026-01-02T00:00:00Z"'),
        (dt.date(2026, 1, 2), '"2026-01-02"'),
        (dt.time(3, 4), '"03:04:00"'),
        (dt.time(3, 4, tzinfo=dt.UTC), '"03:04:00Z"'),
        (uuid.UUID(int=7), '"00000000-0000-0000-0000-000000000007"'),
        (Decimal("1.10"), '"1.10"'),
        (Decimal("-0E-7"), '"-0E-7"'),
        (Decimal("12345678901234567890.123456789"), '"12345678901234567890.123456789"'),
        (pathlib.PurePosixPath("/a/b"), '"/a/b"'),
        (pathlib.Path("a"), '"a"'),
        (Day.FIRST, '"2026-01-01"'),
        ([WHEN.date(), {"a": (Decimal(1),)}], '["2026-01-02",{"a":["1"]}]'),
        (Row(WHEN, Decimal("1.0")), '{"when":"2026-01-02T03:04:05.000600Z","amount":"1.0"}'),
        ([Point(WHEN)], '[{"at":"2026-01-02T03:04:05.000600Z"}]'),
        ({dt.date(2026, 1, 2): 1, Color.RED: 2, "x": 3}, '{"2026-01-02":1,"red":2,"x":3}'),
        ({"a": {uuid.UUID(int=7): {Decimal("1.10"): WHEN.date()}}},
         '{"a":{"00000000-0000-0000-0000-000000000007":{"1.10":"2026-01-02"}}}'),
        ({Day.FIRST: [float("1.5")]}, '{"2026-01-01":[1.5]}'),
        (np.float64(1.5), "1.5"),
        ({np.str_("a"): np.str_("b")}, '{"a":"b"}'),
    ],
)  # fmt: skip
def test_each_value_has_one_exact_text(value: Any, text: str) -> None:
    """A time, a decimal or a key comes back as another one, or must be converted by hand."""
    assert encode(value).decode() == text
    assert encode(value).decode() == text, "a publish changes the value"


def test_a_publish_leaves_the_value_as_it_is() -> None:
    """After a publish, the struct of the caller holds dicts and texts."""
    point = Point([Row(WHEN, Decimal(1))])  # type: ignore[arg-type]
    encode([point])
    assert point == Point([Row(WHEN, Decimal(1))])  # type: ignore[arg-type]


def test_decimals_are_exact_whatever_the_context() -> None:
    """A program with a small precision publishes rounded amounts."""
    with decimal.localcontext() as context:
        context.prec = 3
        assert encode(Decimal("1234.5678")) == b'"1234.5678"'


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"a": [WHEN.replace(tzinfo=None)]}, r"at \$\.a\[0\]: .*without a time zone.*utc.*astimezone"),
        (dt.time(3, 4, tzinfo=ZoneInfo("Europe/London")), "no offset from UTC without a date"),
        (WHEN.replace(tzinfo=dt.timezone(dt.timedelta(seconds=3208))), r"has seconds.*\.astimezone\("),
        (Decimal("NaN"), "NaN is not a number; use None"),
        (Decimal("-Infinity"), "use None"),
        ({1: 2}, "the key 1 is not a string"),
        ({Number.ONE: 2}, "the key .*ONE.* is not a string"),
        ({"a": {b"x": 2}}, r"at \$\.a: the key b'x' is not a string"),
        ({WHEN.replace(tzinfo=None): 2}, "without a time zone"),
        ({uuid.UUID(int=1): 1, str(uuid.UUID(int=1)): 2}, "two keys are '0000.*' as JSON"),
        ({Color.RED: {"x": {1}}}, r"at \$\.red\.x: set has no JSON form; convert it with sorted"),
        (dt.timedelta(1), r"\.total_seconds\(\)"),
        ({"x": np.array([1])}, r"at \$\.x: numpy\.ndarray has no JSON form; convert it with \.tolist\(\)"),
        (np.int64(1), r"numpy\.int64 has no JSON form; convert it with \.item\(\)"),
        ([np.float32(1)], r"at \$\[0\]: numpy\.float32 .* \.item\(\)"),
        (np.bool_(True), r"numpy\.bool.* \.item\(\)"),  # noqa: FBT003
        (np.datetime64("2026-01-01"), r"numpy\.datetime64 .* \.item\(\)"),
        (np.float64("nan"), "nan.* is not a JSON number"),
        ({"m": np.ma.masked_array([1])}, r"\.tolist\(\)"),
        (object(), "or pass default="),
    ],
)  # fmt: skip
def test_what_is_refused_is_named_with_what_to_write(value: Any, match: str) -> None:
    """A moment is guessed, an array becomes its repr, or nobody says which call converts it."""
    with pytest.raises(InvalidInput, match=match):
        encode(value)


class Stamp(dt.datetime):
    """Like `pandas.Timestamp`, which has nanoseconds, and `pandas.NaT`: both are datetimes."""


def test_datetimes_of_pandas_are_not_taken_for_datetimes() -> None:
    """Nanoseconds are lost, or the text of a missing time is published."""
    Stamp.__module__ = "pandas"
    for name, advice in (("Timestamp", r"\.to_pydatetime\(\)"), ("NaTType", "None in its place")):
        Stamp.__name__ = Stamp.__qualname__ = name
        with pytest.raises(InvalidInput, match=rf"pandas\.{name} has no JSON form; convert it with {advice}"):
            encode(Stamp(2026, 1, 1, tzinfo=dt.UTC))


# --- default -----------------------------------------------------------------------------------------


def test_default_is_called_for_what_is_not_known() -> None:
    """What `json.dumps(default=…)` publishes cannot be published here."""
    seen: list[Any] = []

    def default(part: Any) -> Any:
        seen.append(part)
        if isinstance(part, set):
            return sorted(part)
        if isinstance(part, np.ndarray | np.generic):
            return part.tolist()
        if isinstance(part, dt.datetime):
            return part.replace(tzinfo=dt.UTC)
        raise TypeError("no")

    naive = dt.datetime(2026, 1, 1)  # noqa: DTZ001 - that is the point
    value = {"s": {3, 1}, "a": np.array([[1, 2]]), "n": np.int64(4), "t": [naive], "d": Decimal(1), "x": 1.5}
    assert encode(value, default) == (
        b'{"s":[1,3],"a":[[1,2]],"n":4,"t":["2026-01-01T00:00:00Z"],"d":"1","x":1.5}'
    )
    assert [type(part) for part in seen] == [set, np.ndarray, np.int64, dt.datetime]
    assert encode({1, 2}, default) == b"[1,2]"
    assert encode(Point(naive), default) == b'{"at":"2026-01-01T00:00:00Z"}'


def test_what_default_returns_is_checked_as_well() -> None:
    """NaN, or what is nested without an end, comes in through the back door."""
    with pytest.raises(InvalidInput, match=r"at \$\.a\[0\]\.x: nan is not a JSON number"):
        encode({"a": [{1}]}, lambda _: {"x": float("nan")})
    with pytest.raises(InvalidInput, match="nested deeper"):
        encode({"a": {1}}, lambda part: part)
    with pytest.raises(InvalidInput, match="nested deeper"):
        encode({"a": {1}}, lambda part: [part])
    with pytest.raises(PayloadTooLarge):
        encode([{1}] * 1000, lambda _: [1] * 2000)


def test_an_error_in_default_names_the_place_and_not_the_data() -> None:
    """The message of the caller's own error shows the data, or nobody knows which part it was about."""

    def default(part: Any) -> Any:
        raise TypeError(f"s3cret {part}")

    with pytest.raises(
        InvalidInput, match=r"at \$\.a\[1\]: set has no JSON form, and default raised TypeError"
    ) as e:
        encode({"a": [1, {2}]}, default)
    assert "s3cret" not in str(e.value)
    assert isinstance(e.value.__cause__, TypeError)


def test_default_is_not_asked_for_what_no_function_can_convert() -> None:
    """A `default=str` publishes NaN as text, or numbers as keys."""
    for value in ({"a": float("nan")}, {1: 2}):
        with pytest.raises(InvalidInput):
            encode(value, str)
    assert encode({"a": threading.Lock}, lambda _: None) == b'{"a":null}'
