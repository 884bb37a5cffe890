"""Whatever is passed to a public method, only errors of this library come out, and nothing is written."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

import swapstore
from swapstore import InvalidInput, Item, Retention, Store, SwapstoreError
from swapstore.aio import AsyncStore
from swapstore.migration.layout import Mirror


class Hostile:
    """An object that raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("no items")


class HostileMapping(Mapping[str, Any]):
    """A mapping that raises when it is read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no item")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys")

    def __len__(self) -> int:
        return 1


class Halfway(Mapping[str, Any]):
    """A mapping that raises at its second key."""

    def __getitem__(self, key: str) -> Any:
        return "x"

    def __iter__(self) -> Iterator[str]:
        yield "mena"
        raise RuntimeError("no more keys")

    def __len__(self) -> int:
        return 2


class Odd(int):
    def __lt__(self, other: object) -> bool:
        raise RuntimeError("no order")

    __le__ = __gt__ = __ge__ = __lt__


class Nowhere(tzinfo):
    def utcoffset(self, when: datetime | None) -> timedelta:
        raise RuntimeError("no offset")

    def dst(self, when: datetime | None) -> None:
        return None

    def tzname(self, when: datetime | None) -> str:
        raise RuntimeError("no name")


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __format__ = __str__  # type: ignore[assignment]


def hostile_values() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return [
        None, True, False, 0, 1, -1, 5, 2**31, 2**53, 2**63, 2**64, 10**400, -(10**400), 10**5000, Odd(5),
        0.0, -0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"), 1j, Decimal("NaN"),
        Decimal("1e999999"), Fraction(1, 3), "", "mena", "a b", "é", "\ud800", "a\ud800", "\0", "a\n",
        "x" * 10**6, "{", '{"a": 1}', Text("mena"), Text("a b"), b"", b"mena", bytearray(b"x"),
        memoryview(b"x"), [], ["d"], [["d"]], (), ("a",), {}, {"mena": 1}, {1: 2}, {"a": "b"},
        {"\ud800": "x"}, {"a": "\ud800"}, {"a": 1}, {("x",): "y"}, {"a" * 2000: "b"}, set(), {1},
        frozenset("a"), range(3), loop, iter(["mena"]), (n for n in "ab"), object(), lambda *_: None,
        lambda *_: "no", lambda *_: 5, timedelta(0), timedelta(days=-1), timedelta.max, timedelta.min,
        timedelta(microseconds=1), datetime(2026, 1, 1), datetime.min,  # noqa: DTZ001, DTZ901
        datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))), datetime(2026, 1, 1, tzinfo=Nowhere()),
        Retention(), Retention(max_count=1), Mirror(prefix="old"), Path("x"), Hostile(), HostileMapping(),
        Halfway(), msgspec.Raw(b""), msgspec.Raw(b"{}"), msgspec.UNSET, NotImplemented, Ellipsis,
        ValueError("x"), [Hostile()], {"a": Hostile()},
    ]  # fmt: skip


NAMES = sorted(
    name for name in vars(Store) if not name.startswith("_") and name not in {"close", "where", "namespace"}
)
GOOD: dict[str, Any] = {
    "dataset": "mena", "value": 1, "values": {"mena": 1}, "datasets": ["mena"], "members": {"EG": 1},
    "id": "first", "ttl": 5, "poll": 0.01, "path": "backup.db", "compression": "delta", "dedupe_key": "k",
}  # fmt: skip


def cases(name: str) -> Iterator[tuple[str, Any, list[Any], dict[str, Any]]]:
    """Each argument with each hostile value, and the others as they should be."""
    parameters = list(inspect.signature(getattr(Store, name)).parameters.values())[1:]
    for parameter in parameters:
        for value in hostile_values():
            given = {
                other.name: GOOD[other.name]
                for other in parameters
                if other.default is inspect.Parameter.empty or other.name == "poll"
            }
            if name == "read" and parameter.name not in {"id", "version", "as_of"}:
                given["id"] = "first"
            given[parameter.name] = value
            positional = [
                given.pop(other.name)
                for other in parameters
                if other.kind is not inspect.Parameter.KEYWORD_ONLY and other.name in given
            ]
            yield parameter.name, value, positional, given


def outcome(work: Callable[[], Any]) -> str | None:
    """Return what is wrong with what it raises."""
    try:
        work()
    except SwapstoreError as error:
        try:
            text = f"{error}{error!r}"
        except Exception as shown:  # noqa: BLE001
            return f"an error that cannot be shown: {shown!r}"
        return None if len(text) < 5000 else "a message that nobody can read"
    except Exception as error:  # noqa: BLE001 - that is the point
        return type(error).__name__
    return None


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_only_errors_of_the_library_come_out_of_a_method(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong argument raises what no caller catches, somewhere deep inside."""
    monkeypatch.chdir(tmp_path)
    faults = []
    with swapstore.connect(f"sqlite:///{tmp_path}/store.db") as store:
        store.publish("mena", 0, id="first")
        for number, (parameter, value, args, kwargs) in enumerate(cases(name)):

            def call(args: Any = args, kwargs: Any = kwargs) -> None:
                found = getattr(store, name)(*args, **kwargs)
                if name in {"history", "verify"}:
                    list(found)

            fault = outcome(call)
            if fault:
                faults.append(f"{parameter}, value {number} ({type(value).__name__}): {fault}")
        assert name == "drop" or store.read("mena", id="first") is not None
    assert not faults, "\n".join(faults)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_only_errors_of_the_library_come_out_of_an_awaited_method(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong argument raises what no caller catches, somewhere deep inside."""
    monkeypatch.chdir(tmp_path)
    faults = []

    async def main() -> None:
        async with swapstore.aio.connect(f"sqlite:///{tmp_path}/store.db") as store:
            await store.publish("mena", 0, id="first")
            for parameter, value, args, kwargs in cases(name):
                fault = await called(store, args, kwargs)
                if fault:
                    faults.append(f"{parameter} ({type(value).__name__}): {fault}")

    async def called(store: AsyncStore, args: Any, kwargs: Any) -> str | None:
        try:
            found = getattr(store, name)(*args, **kwargs)
            if name in {"history", "verify"}:
                async for _ in found:
                    pass
            elif name == "view":
                await found.start()
                await found.close()
            elif name not in {"follow", "follow_many"}:
                await found
        except SwapstoreError:
            return None
        except Exception as error:  # noqa: BLE001 - that is the point
            return type(error).__name__
        return None

    asyncio.run(main())
    assert not faults, "\n".join(faults)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("option", [field.name for field in attrs.fields(Item)])
def test_only_errors_of_the_library_come_out_of_an_item(option: str, tmp_path: Path) -> None:
    """A wrong option of one dataset raises what no caller catches, after others are published."""
    faults = []
    with swapstore.connect(f"sqlite:///{tmp_path}/store.db") as store:
        for number, value in enumerate(hostile_values()):

            def call(value: Any = value) -> None:
                store.publish_many({"mena": Item(**{"value": 1, option: value}), "europe": 1})

            fault = outcome(call)
            if fault:
                faults.append(f"value {number} ({type(value).__name__}): {fault}")
    assert not faults, "\n".join(faults)


def options() -> list[str]:
    return [name for name in inspect.signature(swapstore.connect).parameters if name != "target"]


@pytest.mark.parametrize("option", ["target", *options()])
@pytest.mark.parametrize("connect", [swapstore.connect, swapstore.aio.connect])
def test_only_errors_of_the_library_come_out_of_connect(
    connect: Any, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong option raises what no caller catches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SWAPSTORE_URL", raising=False)
    faults = []
    for value in hostile_values():
        given = {} if option == "target" else {option: value}
        target = value if option == "target" else f"sqlite:///{tmp_path}/store.db"
        fault = outcome(partial(connect, target, **given))
        if fault:
            faults.append(f"{type(value).__name__}: {fault}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("bound", ["max_age", "max_count"])
def test_only_errors_of_the_library_come_out_of_a_retention(bound: str) -> None:
    """A wrong bound raises what no caller catches."""
    faults = [
        f"{type(value).__name__}: {fault}"
        for value in hostile_values()
        if (fault := outcome(partial(Retention, **{bound: value})))
    ]
    assert not faults, "\n".join(faults)


def test_the_reported_cases(tmp_path: Path) -> None:
    """`read_latest(["d"])` raises a TypeError, and `max_staleness=10**400` an OverflowError."""
    wrong: Any = ["d"]
    with swapstore.connect(f"sqlite:///{tmp_path}/store.db") as store:
        with pytest.raises(InvalidInput, match="dataset name"):
            store.read_latest(wrong)
        with pytest.raises(InvalidInput, match="max_staleness"):
            store.read_latest("mena", max_staleness=10**400)
