"""pydantic models, the real ones: published, and read back."""

from __future__ import annotations

import dataclasses
import datetime as dt
import subprocess
import sys
import traceback
import uuid
import warnings
from decimal import Decimal
from typing import Annotated, Any, Generic, NewType, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from pydantic import BaseModel, Field, PositiveInt, RootModel, TypeAdapter
from typing_extensions import TypeAliasType

from swapstore import codecs, decoders
from swapstore.errors import InvalidInput, TypeMismatch

SECRET = "s3cret"  # noqa: S105 - it stands for the data


T = TypeVar("T")


class City(BaseModel):
    price: float
    full_name: str = Field("x", alias="fullName")


class Country(BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    cities: list[City] = []
    when: dt.datetime | None = None
    amount: Decimal | None = None
    id: uuid.UUID | None = None
    either: int | City | None = None

    @pydantic.field_validator("amount")
    @classmethod
    def _is_positive(cls, amount: Decimal | None) -> Decimal | None:
        if amount is not None and amount < 0:
            raise ValueError(f"{amount} {SECRET}")
        return amount


class Countries(RootModel[dict[str, Country]]):
    pass


@dataclasses.dataclass
class Plain:
    country: Country


@dataclasses.dataclass
class Box(Generic[T]):
    country: Country
    other: T


class Wide(BaseModel):
    tags: set[str]
    every: dt.timedelta


Named = NewType("Named", Country)
Aliased = TypeAliasType("Aliased", list[Country])


class Struct(msgspec.Struct):
    country: Country


@attrs.frozen
class Attrs:
    country: Country


COUNTRY = Country(
    cities=[City(price=1.5, fullName="Aden")],
    when=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
    amount=Decimal("1.10"),
    id=uuid.UUID(int=7),
)
TEXT = (
    '{"cities":[{"price":1.5,"fullName":"Aden"}],"when":"2026-01-02T00:00:00Z","amount":"1.10",'
    '"id":"00000000-0000-0000-0000-000000000007","either":null}'
)


def encode(value: Any, **options: Any) -> bytes:
    return codecs.encode(value, "json", limit_bytes=1 << 20, **options)


def decode(raw: bytes | str, kind: Any) -> Any:
    raw = raw.encode() if isinstance(raw, str) else raw
    return decoders.decode(raw, "json", kind, what="version 7", dataset="mena", version=7)


@pytest.mark.parametrize(
    ("value", "text", "kind"),
    [
        (COUNTRY, TEXT, Country),
        ([COUNTRY, None], f"[{TEXT},null]", list[Country | None]),
        (Countries({"YE": COUNTRY}), f'{{"YE":{TEXT}}}', Countries),
        ({"YE": COUNTRY}, f'{{"YE":{TEXT}}}', dict[str, Country]),
        (Plain(COUNTRY), f'{{"country":{TEXT}}}', Plain),
        (Box(COUNTRY, 1), f'{{"country":{TEXT},"other":1}}', Box[int]),
        (COUNTRY, TEXT, Named),
        ([COUNTRY], f"[{TEXT}]", Aliased),
        (Wide(tags={"a"}, every=dt.timedelta(hours=1)), '{"tags":["a"],"every":"PT1H"}', Wide),
    ],
)
def test_models_are_published_and_read_back(value: Any, text: str, kind: Any) -> None:
    """Models must be dumped by hand, or names that have an alias cannot be read back."""
    assert encode(value).decode() == text
    assert decode(text, kind) == value


def test_models_inside_other_classes_are_published() -> None:
    """A model in a struct or an attrs class is refused."""
    for holder in (Struct(COUNTRY), Attrs(COUNTRY)):
        assert encode(holder).decode() == f'{{"country":{TEXT}}}'


@pytest.mark.parametrize("kind", [Struct, list[Struct], Attrs])
def test_a_mixture_that_neither_library_decodes_is_refused_by_name(kind: Any) -> None:
    """A model inside of a struct is silently not checked, or an error of pydantic's reaches the caller."""
    with pytest.raises(InvalidInput, match=r"nothing can be decoded to .*(Struct|Attrs)"):
        decode("[]", kind)


@pytest.mark.parametrize(
    ("raw", "kind", "place", "reason"),
    [
        ('{"cities":[{"price":1},{"price":"s3cret"}]}', Country, "$.cities[1].price", "float_parsing"),
        ('{"cities":[{}]}', Country, "$.cities[0].price", "missing"),
        ('{"YE":{"cities":[{"price":1,"fullName":4}]}}', Countries, "$.YE.cities[0].fullName", "string_type"),
        ('{"id":"s3cret"}', Country, "$.id", "uuid_parsing"),
        ('{"amount":-1}', Country, "$.amount", "value_error"),
        ('{"either":{"price":"s3cret"}}', Country, "$.either", "int_type, the first of 2 faults"),
        ('{"s":1}', Country, "$.s", "extra_forbidden"),
        ("-1", PositiveInt, "$", "greater_than"),
        ("[1,-1]", list[Annotated[int, Field(gt=0)]], "$[1]", "greater_than"),
        ("3", Country, "$", "model_type"),
        ('{"country":{"cities":[{"price":"x"}]}}', Plain, "$.country.cities[0].price", "float_parsing"),
    ],
)
def test_what_does_not_fit_is_named_by_its_place(raw: str, kind: Any, place: str, reason: str) -> None:
    """Pydantic's message, which quotes the data, ends in a log."""
    with pytest.raises(TypeMismatch) as caught:
        decode(raw, kind)
    error = caught.value
    assert (error.version, error.place) == (7, place)
    assert f": at {place}: pydantic: {reason}" in str(error)
    assert SECRET not in "".join(traceback.format_exception(error))
    assert error.__context__ is None


def test_models_of_pydantic_1_are_refused_by_name() -> None:
    """A program that has not moved to pydantic 2 sees an error from inside of pydantic."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pydantic import v1  # noqa: PLC0415 - it warns

        old: Any = v1.create_model("Old", n=(int, 1))
    with pytest.raises(
        InvalidInput, match=r"Old has no JSON form; .*json\.loads\(value\.json\(\)\).*pydantic 1"
    ):
        encode([old()])
    with pytest.raises(InvalidInput, match="Old is a model of pydantic 1; use one of pydantic 2"):
        decode("{}", list[old])


def test_a_model_that_cannot_be_dumped_is_refused_with_its_place() -> None:
    """What a serializer of a model raises reaches the caller, perhaps with the data."""

    class Bad(BaseModel):
        n: int

        @pydantic.field_serializer("n")
        def _dump(self, _: int) -> int:
            raise LookupError(SECRET)

    with pytest.raises(InvalidInput, match=r"at \$\.a: the model_dump of .*Bad raised Pydantic") as caught:
        encode({"a": Bad(n=1)})
    assert SECRET not in str(caught.value)

    class Unclean(BaseModel):
        x: float

    with pytest.raises(InvalidInput, match=r"at \$\.a\.x: nan is not a JSON number"):
        encode({"a": Unclean(x=float("nan"))})


def test_a_type_of_pydantic_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read builds pydantic's schema anew, which takes a hundred times as long as decoding."""
    made: list[Any] = []

    def counting(kind: Any) -> TypeAdapter[Any]:
        made.append(kind)
        return TypeAdapter(kind)

    monkeypatch.setattr(pydantic, "TypeAdapter", counting)
    kind = tuple[Country, City, Country]
    for _ in range(3):
        with pytest.raises(TypeMismatch):
            decode("[]", kind)
    assert made == [kind]


def test_pydantic_is_not_imported_for_a_program_that_has_not() -> None:
    """Every reader pays for the import of pydantic."""
    check = (
        "import sys, swapstore, attrs\n"
        "from swapstore import codecs, decoders\n"
        "raw = codecs.encode({'a': [object()]}, 'json', limit_bytes=99, default=lambda _: 1)\n"
        "assert decoders.decode(raw, 'json', dict[str, list[int]], what='') == {'a': [1]}\n"
        "assert not {'pydantic', 'numpy', 'typing_extensions'} & set(sys.modules) - had, sys.modules\n"
    )
    before = "import sys, msgspec, attrs, redis\nhad = set(sys.modules)\n"
    subprocess.run([sys.executable, "-c", before + check], check=True)
