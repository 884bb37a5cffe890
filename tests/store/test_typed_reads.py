"""Reads whose values are of the reader's own type, blocking and for asyncio."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import attrs
import pytest

import swapstore
import swapstore.aio
from swapstore import Candidate, InvalidInput, Item, Rejected, Snapshot, Store, TypeMismatch
from swapstore.errors import Corrupt
from swapstore.events import CallFailed, Event
from tests.store.test_damage import alter
from tests.support.drivers import another

every_store = pytest.mark.every_store


@attrs.frozen
class Country:
    code: str
    price: float


class Regions(TypedDict):
    EG: Country
    SG: Country


EGYPT, SINGAPORE = Country("EG", 1.5), Country("SG", 2.0)

READS: dict[str, Callable[..., Any]] = {
    "read_latest": lambda store, kind: store.read_latest("mena", type=kind),
    "read_latest, cached": lambda store, kind: store.read_latest("mena", type=kind, max_staleness=60),
    "read_latest, of a version": lambda store, kind: store.read_latest("mena", type=kind, min_version=1),
    "read_latest_many": lambda store, kind: store.read_latest_many(["mena"], type=kind)["mena"],
    "read, by id": lambda store, kind: store.read("mena", type=kind, id="first"),
    "read, by version": lambda store, kind: store.read("mena", type=kind, version=1),
    "read, by time": lambda store, kind: store.read("mena", type=kind, as_of=2**42),
    "value_as": lambda store, kind: Typed(store.read_latest("mena"), kind),
}


def Typed(found: Snapshot, kind: Any) -> Snapshot:  # noqa: N802
    """Return a snapshot as a read with a type would."""
    found.__dict__["value"] = found.value_as(kind)
    return found


@every_store
@pytest.mark.parametrize("read", READS)
def test_every_read_takes_a_type(store: Store, read: str) -> None:
    """One of the reads returns dicts although the caller names a class, or decodes at each look."""
    store.publish("mena", [EGYPT, SINGAPORE], id="first")
    store.read_latest("mena")
    found = READS[read](store, list[Country])
    assert found.value == [EGYPT, SINGAPORE]
    assert found.value is found.value
    plain = store.read_latest("mena")
    assert plain is not None
    assert plain.value == [attrs.asdict(EGYPT), attrs.asdict(SINGAPORE)]
    assert found == plain
    for other in (copy.copy(found), pickle.loads(pickle.dumps(found))):  # noqa: S301 - our own
        assert other.value == found.value
    assert swapstore.diff(found, [attrs.asdict(EGYPT)]).summary == "1 removed"


@pytest.mark.parametrize("read", READS)
def test_a_read_raises_what_does_not_fit(store: Store, read: str) -> None:
    """The error comes where the value is used, far from the read, or does not say which version it is."""
    store.publish("mena", [EGYPT, {"code": "s3cret"}], id="first")
    with pytest.raises(TypeMismatch) as caught:
        READS[read](store, list[Country])
    error = caught.value
    assert (error.dataset, error.version, error.place) == ("mena", 1, "$[1]")
    assert str(error).startswith("dataset 'mena': version 1 does not fit list[")
    assert "s3cret" not in str(error)
    with pytest.raises(InvalidInput, match="nothing can be decoded to 5"):
        READS[read](store, 5)
    assert READS[read](store, Any).value[1] == {"code": "s3cret"}


@pytest.mark.parametrize("read", ["read_latest", "read_latest, cached", "read_latest_many", "read, by id"])
def test_nothing_published_has_no_type(store: Store, read: str) -> None:
    """A reader of a dataset that is not there yet gets an error; or its wrong type is only found later."""
    assert READS[read](store, list[Country]) is None
    with pytest.raises(InvalidInput, match="nothing can be decoded to 5"):
        READS[read](store, 5)


def test_readers_that_share_a_load_have_types_of_their_own(store: Store) -> None:
    """A thread gets the value of another thread's type."""
    store.publish("mena", EGYPT)
    wrong: list[Any] = []

    def read(kind: Any, expected: Any) -> None:
        for _ in range(100):
            found = store.read_latest("mena", type=kind)
            if found is None or found.value != expected:
                wrong.append(found)

    kinds = ((Country, EGYPT), (dict[str, Any], attrs.asdict(EGYPT)), (None, attrs.asdict(EGYPT)))
    threads = [threading.Thread(target=read, args=each) for each in kinds * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_a_mismatch_is_told_to_the_listeners(tmp_path: Path) -> None:
    """A metric of failed reads misses those that fail for their type."""
    seen: list[Event] = []
    with swapstore.connect(f"sqlite:///{tmp_path}/s.db", on_event=seen.append) as store:
        store.publish("mena", {"code": 1}, id="first")
        for read in READS.values():
            seen.clear()
            with pytest.raises(TypeMismatch):
                read(store, Country)
            failed = [(event.error, event.dataset) for event in seen if isinstance(event, CallFailed)]
            expected = [] if read is READS["value_as"] else [("TypeMismatch", "mena")]
            assert failed == expected


@every_store
def test_a_group_is_read_as_the_type_of_the_whole_mapping(store: Store) -> None:
    """Members of a group must be converted one by one, or the error does not name the member."""
    store.publish_group("regions", {"EG": EGYPT, "SG": SINGAPORE})
    found = store.read_latest("regions", type=dict[str, Country])
    assert found is not None
    assert found.value == {"EG": EGYPT, "SG": SINGAPORE}
    group = store.read_group("regions", members=["EG"])
    assert group is not None
    assert group.value_as(dict[str, Country]) == {"EG": EGYPT}
    assert group["EG"].value_as(Country) == EGYPT
    with pytest.raises(TypeMismatch, match="version 1 does not fit .*Regions: at \\$: .*missing.* `SG`"):
        group.value_as(Regions)
    with pytest.raises(TypeMismatch, match=r"at \$\.EG\.price: Expected `str`"):
        group.value_as(dict[str, dict[str, str]])
    with pytest.raises(TypeMismatch, match="member 'EG' does not fit int: at \\$"):
        group["EG"].value_as(int)
    store.publish_group("blobs", {"a": b"1"}, codec="bytes")
    with pytest.raises(InvalidInput, match=r"member 'a' has the codec 'bytes'.* use the \.raw"):
        store.read_latest("blobs", type=dict[str, int])


def test_a_type_can_be_asked_of_candidates_and_live_views(store: Store) -> None:
    """A producer cannot check that what it publishes fits its readers' type."""

    def fits(candidate: Candidate, _: Snapshot | None) -> None:
        candidate.value_as(dict[str, Country] if candidate.members else Country)

    store.publish("mena", EGYPT, validate=fits)
    store.publish_group("regions", {"EG": EGYPT}, validate=fits)
    with pytest.raises(Rejected, match=r"the candidate does not fit .*Country: at \$") as caught:
        store.publish("mena", {"code": "s3cret"}, validate=fits)
    assert isinstance(caught.value.__cause__, TypeMismatch)
    assert "s3cret" not in str(caught.value)
    store.put_live("mena", [SINGAPORE], ttl=60)
    view = store.read_live("mena")
    assert view is not None
    assert view.value_as(list[Country]) == [SINGAPORE]
    with pytest.raises(TypeMismatch, match="dataset 'mena': the live view does not fit int"):
        view.value_as(int)


def test_damage_stays_damage(store: Store) -> None:
    """A damaged record is reported as data of another shape, and nobody repairs it."""
    store.publish("mena", EGYPT, id="first")
    alter(store, "swapstore:id:{mena}:first", lambda record: record.replace(b"EG", b"XX"))
    with pytest.raises(Corrupt), another(store) as reader:
        reader.read_latest("mena", type=Country)


def test_default_reaches_every_call_that_publishes(store: Store) -> None:
    """One of the calls refuses what the others publish."""
    options: dict[str, Any] = {"default": sorted}
    store.publish("a", {2, 1}, **options)
    store.publish_many({"b": {2, 1}, "c": Item({2, 1}, default=lambda _: 5)}, **options).raise_for_failures()
    store.publish_group("g", {"x": {2, 1}}, **options)
    store.put_live("a", {2, 1}, ttl=60, **options)
    found = store.read_latest_many(["a", "b", "c", "g"])
    assert [each and each.value for each in found.values()] == [[1, 2], [1, 2], 5, {"x": [1, 2]}]
    view = store.read_live("a")
    assert view is not None
    assert view.value == [1, 2]
    wrong: Any = 5
    for call in (
        lambda: store.publish("a", 1, default=wrong),
        lambda: store.publish_many({"a": 1, "b": 2}, default=wrong),
        lambda: store.publish_many({"a": Item(1, default=wrong)}),
        lambda: store.publish_group("g", {"x": 1}, default=wrong),
        lambda: store.put_live("a", 1, ttl=60, default=wrong),
    ):
        with pytest.raises(InvalidInput, match="default must be a function"):
            call()
    latest = store.status("a")
    assert latest is not None
    assert latest.version == 1


def test_asyncio_has_the_same(tmp_path: Path) -> None:
    """A program that moves to asyncio loses its types."""

    async def main() -> None:
        async with swapstore.aio.connect(f"sqlite:///{tmp_path}/s.db") as store:
            assert await store.read_latest("mena", type=Country) is None
            await store.publish("mena", EGYPT, id="first", default=str)
            one = [
                await store.read_latest("mena", type=Country),
                await store.read_latest("mena", type=Country, max_staleness=60),
                await store.read_latest("mena", type=Country, min_version=1),
                (await store.read_latest_many(["mena"], type=Country))["mena"],
                await store.read("mena", type=Country, version=1),
            ]
            assert [found and found.value for found in one] == [EGYPT] * len(one)
            both = await asyncio.gather(
                store.read_latest("mena", type=Country), store.read_latest("mena"), return_exceptions=True
            )
            assert [getattr(found, "value", None) for found in both] == [EGYPT, attrs.asdict(EGYPT)]
            for reading in (
                store.read_latest("mena", type=int),
                store.read_latest("mena", type=int, max_staleness=60),
                store.read("mena", type=int, version=1),
            ):
                with pytest.raises(TypeMismatch, match="dataset 'mena': version 1 does not fit int"):
                    await reading

    asyncio.run(main())
