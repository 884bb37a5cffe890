"""Payload bytes as a value of the reader's own type."""

from __future__ import annotations

import copy
import dataclasses
import datetime as dt
import enum
import pickle
import traceback
import uuid
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypedDict

import attrs
import msgspec
import pytest

from swapstore import codecs, decoders
from swapstore.errors import Corrupt, InvalidInput, TypeMismatch

SECRET = "s3cret"  # noqa: S105 - it stands for the data
INDIA = dt.timezone(dt.timedelta(hours=5, minutes=30))


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


@attrs.frozen
class Item:
    price: float
    level: Level = Level.LOW
    _weight: int = 1


@dataclasses.dataclass
class Order:
    items: list[Item]
    by_name: dict[str, Item] = dataclasses.field(default_factory=dict)


class Line(msgspec.Struct, tag="line", forbid_unknown_fields=True):
    n: int


class Note(msgspec.Struct, tag="note"):
    text: str


class Report(TypedDict):
    when: dt.datetime
    day: dt.date
    at: dt.time
    id: uuid.UUID
    amount: Decimal
    path: PurePosixPath


@attrs.frozen
class Even:
    n: int = attrs.field()

    @n.validator
    def _is_even(self, _: Any, n: int) -> None:
        if n % 2:
            raise ValueError(f"{n} is odd, {SECRET}")


@attrs.frozen
class Broken:
    n: int

    def __attrs_post_init__(self) -> None:
        raise LookupError(SECRET)


def decode(raw: bytes | str, kind: Any, codec: str = "json") -> Any:
    raw = raw.encode() if isinstance(raw, str) else raw
    return decoders.decode(raw, codec, kind, what="version 7", dataset="mena", version=7)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Order([Item(1.5, Level.HIGH, 4)], {"a": Item(2.0)}), Order),
        ([Item(1.0)], list[Item]),
        ({"a": Line(1), "b": Note("x")}, dict[str, Line | Note]),
        (None, Item | None),
        ((1, "x"), tuple[int, str]),
        (
            Report(
                when=dt.datetime(
                    2026, 1, 2, 3, 4, 5, 6, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30))
                ),
                day=dt.date(2026, 1, 2),
                at=dt.time(3, 4, tzinfo=dt.UTC),
                id=uuid.UUID(int=7),
                amount=Decimal("1E+2"),
                path=PurePosixPath("a/b"),
            ),
            Report,
        ),
        ({dt.date(2026, 1, 2): 1, dt.date(2026, 1, 3): 2}, dict[dt.date, int]),
        ({Level.HIGH: 1}, dict[Level, int]),
        ({"a": [1, None]}, Any),
    ],
)
def test_what_is_published_is_read_back_as_its_own_type(value: Any, kind: Any) -> None:
    """A reader has to turn dicts and texts into its own types by hand, or gets another value."""
    raw = codecs.encode(value, "json", limit_bytes=1 << 20)
    assert decode(raw, kind) == value


@pytest.mark.parametrize(
    ("raw", "kind", "place", "reason"),
    [
        ('{"items":[{"price":1},{"price":"x"}]}', Order, "$.items[1].price", "Expected `float`, got `str`"),
        ('{"items":[{}]}', Order, "$.items[0]", "missing required field `price`"),
        ('{"items":[{"price":1,"level":"s3cret"}]}', Order, "$.items[0].level", "Invalid enum value"),
        ('"s3cret"', Literal["a"], "$", "Invalid enum value"),
        ("9", Annotated[int, msgspec.Meta(le=5)], "$", "Expected `int` <= 5"),
        ('"s3cret"', Annotated[str, msgspec.Meta(pattern="^a$")], "$", "Expected `str` matching regex"),
        ('{"type":"s3cret","n":1}', Line | Note, "$.type", "Invalid value"),
        (r'{"type":"\ns3cret"}', Line | Note, "$.type", "Invalid value. "),
        ('{"type":"line","n":1,"x":1}', Line, "$", "unknown field `x`"),
        ('{"n":3}', Even, "$", "code of the type raised ValueError"),
        ('[{"n":2},{"n":3}]', list[Even], "$[1]", "code of the type raised ValueError"),
        ('{"n":3}', Broken, "$", "code of the type raised LookupError"),
        ('{"s3cret":1}', dict[int, int], "$", "a key: Expected `int`, got `str`"),
        ('{"path":5}', dict[str, PurePosixPath], "$.path", "Expected `PurePosixPath`, got `int`"),
    ],
)
def test_what_does_not_fit_is_named_by_its_place(raw: str, kind: Any, place: str, reason: str) -> None:
    """The error does not say where, in which version, or it shows the data in a log."""
    with pytest.raises(TypeMismatch) as caught:
        decode(raw, kind)
    error = caught.value
    assert (error.dataset, error.version, error.place) == ("mena", 7, place)
    assert str(error).startswith("dataset 'mena': version 7 does not fit ")
    assert f": at {place}: " in str(error)
    assert reason in str(error)
    assert SECRET not in "".join(traceback.format_exception(error))
    assert error.__context__ is None, "the errors of the libraries quote the data"
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        assert (str(other), other.place, other.version) == (str(error), place, 7)


def test_a_long_key_is_not_quoted_in_full() -> None:
    """A payload of megabytes is a log line of megabytes."""
    with pytest.raises(TypeMismatch, match="unknown field") as caught:
        decode('{"type":"line","n":1,"%s":1}' % ("k" * 10_000), Line)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("number", [0, 1, 77, 199])
def test_the_key_is_part_of_the_place(number: int) -> None:
    """Of two hundred countries, the error does not say which one does not fit."""
    countries = {f"c{each}": {"cities": [{"price": 1}, {"price": each}]} for each in range(200)}
    countries[f"c{number}"]["cities"][1]["price"] = "x"  # type: ignore[assignment]
    with pytest.raises(TypeMismatch) as caught:
        decode(msgspec.json.encode(countries), dict[str, dict[str, list[Item]]])
    assert caught.value.place == f"$.c{number}.cities[1].price"
    with pytest.raises(TypeMismatch) as caught:
        decode('{"a":[1,2],"b":[3,"x"]}', dict[str, set[int]])
    assert caught.value.place == "$.b[1]"


def test_a_long_place_is_cut() -> None:
    """A message fills the screen."""
    with pytest.raises(TypeMismatch) as caught:
        decode(msgspec.json.encode({"k" * 500: "x"}), dict[str, int])
    assert len(caught.value.place) == decoders.LONGEST_PLACE + 1
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("kind", [Item, Any, dict[str, str], str])
@pytest.mark.parametrize("raw", [b"{", b"\xff", b"", b"[" * 5000, b'"\xff"'])
def test_what_is_not_json_is_damage_and_no_mismatch(raw: bytes, kind: Any) -> None:
    """A damaged record is taken for a change of the data's shape."""
    with pytest.raises(Corrupt):
        decode(raw, kind)


def test_bytes_are_only_bytes() -> None:
    """Bytes that happen to look like JSON are decoded."""
    assert decode(b"[1]", bytes, "bytes") == b"[1]"
    with pytest.raises(TypeMismatch, match="codec='bytes' and is not JSON"):
        decode(b"[1]", list[int], "bytes")
    with pytest.raises(Corrupt, match="upgrade"):
        decode(b"[1]", list[int], "cbor")


class Unknown:
    pass


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (5, "nothing can be decoded to 5"),
        ("Order", "nothing can be decoded to 'Order'"),
        (Order | Item, "may not contain more than one"),
        (Unknown, r"decoded to .*Unknown; use attrs classes"),
        (list[Unknown], r"decoded to .*Unknown; use attrs classes"),
    ],
)
def test_a_type_that_nothing_can_be_decoded_to_is_the_readers_mistake(kind: Any, match: str) -> None:
    """The producer is blamed for a type that no payload fits."""
    with pytest.raises(InvalidInput, match=match):
        decode("[{}]", kind)


def test_a_type_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read builds a decoder, which takes longer than decoding."""
    made: list[Any] = []
    decoder = msgspec.json.Decoder

    def counting(kind: Any, **options: Any) -> Any:
        made.append(kind)
        return decoder(kind, **options)

    monkeypatch.setattr(msgspec.json, "Decoder", counting)

    @attrs.frozen
    class Own:
        n: int

    for _ in range(3):
        assert decode("[[]]", list[list[Own]]) == [[]]
        assert decode("1", Annotated[int, {"no": "hash"}]) == 1
    assert made.count(list[list[Own]]) == 1
