"""Bytes that break parsers, under the keys of one dataset: bounded, `Corrupt`, and its trouble alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import attrs
import pytest

from swapstore import Repair, Retention, Store
from swapstore.errors import SwapstoreError
from swapstore.format import manifest, pages, records
from swapstore.models import Ref
from tests.fsck.conftest import DEEP, MANIFEST, StoredDataset, key
from tests.support import invariants
from tests.support.drivers import another
from tests.support.times import at

DEPTH = 100_000
NESTED = b"[" * DEPTH + b"]" * DEPTH
HUGE = b"9" * 400
Make = Callable[[int], StoredDataset]


def with_field(raw: bytes, name: bytes, value: bytes) -> bytes:
    """Replace the value of a field of the first JSON object that has it."""
    return re.sub(rb'"%b":[0-9]+' % name, b'"%b":%b' % (name, value), raw, count=1)


def with_huge(name: str) -> Callable[[bytes], bytes]:
    return lambda raw: with_field(raw, name.encode(), HUGE)


MANIFESTS: dict[str, Callable[[bytes], bytes]] = {
    "nested-header": lambda raw: raw.replace(b'"format":1', b'"format":1,"x":' + NESTED, 1),
    "nested-body": lambda raw: raw.replace(b'\n{"rows"', b'\n{"x":' + NESTED + b',"rows"', 1),
    "nested-all": lambda raw: raw[: raw.index(b",")] + b',"x":' + NESTED,
    "nested-format": lambda raw: raw.replace(b'"format":1', b'"format":' + NESTED, 1),
    "other-epoch": lambda raw: raw.replace(b'{"etag":"', b'{"etag":"xyz', 1),
    "huge-ref": lambda raw: raw.replace(b'"pages":[[1,8,', b'"pages":[[1,' + HUGE + b",", 1),
    "huge-page-name": lambda raw: raw.replace(b'"pages":[[1,', b'"pages":[[' + b"9" * 5000 + b",", 1),
    "huge-row": lambda raw: raw.replace(b'\n{"rows":[[', b'\n{"rows":[[' + HUGE, 1),
    "digest": lambda raw: re.sub(rb'"[A-Za-z0-9_-]{43}"', b'"' + b"?" * 43 + b'"', raw, count=1),
    "digits": lambda raw: with_field(raw, b"floor", b"9" * 5000),
}
for field in ("floor", "first_version", "count", "committed_at", "confirmed_at", "format", "ts", "size"):
    MANIFESTS[f"huge-{field}"] = partial(with_field, name=field.encode(), value=HUGE)


def forged(dataset: StoredDataset, *below: tuple[int, int, int, int]) -> bytes:
    """A page of references under the key of the oldest page: its header and digest are right."""
    ref = invariants.manifest_of(dataset.store).log.pages[0]
    epoch = ref.key.rpartition(":")[2].partition(".")[0]
    base = ref.key.rpartition(":")[0]
    stored = [manifest.StoredRef(*fields) for fields in below]
    refs = manifest.read_refs(stored, f"{base}:", epoch, ref.key)
    page = pages.seal(refs, level=1, dataset="mena", epoch=epoch, keys=dataset.store._context.keys)
    return page.record


PAGES: dict[str, Callable[[StoredDataset], bytes]] = {
    "nested-header": lambda _: b'{"page":' + NESTED + b"}\n{}",
    "nested-body": lambda _: records.pack(
        {
            "page": "a.1-8",
            "format": 1,
            "dataset": "mena",
            "size": len(NESTED),
            "sha256": records.digest(NESTED),
        },
        NESTED,
    ),
    "names-itself": lambda dataset: forged(dataset, (1, 8, 1, 7)),
    "names-itself-twice": lambda dataset: forged(dataset, (1, 8, 1, 7), (1, 8, 1, 7)),
    "names-itself-beside-nothing": lambda dataset: forged(dataset, (1, 8, 1, 7), (9, 0, 1, 0)),
    "huge-size": lambda _: b'{"page":"a.1-8","format":1,"dataset":"mena","size":' + HUGE + b',"sha256":""}\n',
}


def calls(store: Store) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Everything that a user can ask about the dataset."""

    def followed() -> list[Any]:
        with closing(another(store).follow("mena", after=0, poll=0.001)) as follower:
            return list(islice(follower, 5))

    yield "read_latest", lambda: store.read_latest("mena")
    yield "read id", lambda: store.read("mena", id="id-3")
    yield "read version", lambda: store.read("mena", version=3)
    yield "as_of", lambda: store.read("mena", as_of=at(3))
    yield "as_of now", lambda: store.read("mena", as_of=at(10**12))
    yield "history", lambda: list(store.history("mena", limit=None))
    yield "status", lambda: store.status("mena")
    yield "confirm", lambda: store.confirm("mena")
    yield "pin", lambda: store.pin("mena", id="id-3")
    yield "publish", lambda: store.publish("mena", "new", id="new")
    yield "publish again", lambda: store.publish("mena", {"n": 3}, id="id-3", ts=at(3))
    yield "prune", lambda: store.prune("mena", retention=Retention(max_count=70))
    yield "follow", followed
    yield "verify", lambda: list(store.verify("mena"))
    yield "repair", lambda: store.repair("mena")


def call_everything(dataset: StoredDataset) -> None:
    """Every call ends, with an answer or an error of ours, and other datasets are not concerned."""
    for client in (another(dataset.store), dataset.store):
        for name, call in calls(client):
            try:
                call()
            except SwapstoreError:
                continue
            except Exception as error:
                raise AssertionError(name) from error
    assert dataset.store.datasets() == ["asia", "mena"]
    outcomes = another(dataset.store).publish_many({"asia": "a", "mena": "m"})
    assert set(outcomes.failures) <= {"mena"}


def check(dataset: StoredDataset) -> None:
    """After all that, a repair brings everything back, unless a client published over the damage."""
    call_everything(dataset)
    assert {finding.dataset for finding in another(dataset.store).verify() if finding.wrong} <= {"mena"}
    reports: list[Repair] = another(dataset.store).repair(apply=True)
    assert [(report.dropped, report.left) for report in reports] == [((), ())] * len(reports)
    assert dataset.problems() == []
    reader = another(dataset.store)
    assert all(reader.read("mena", id=row.id) is not None for row in dataset.rows if row.version > 40)


@pytest.mark.parametrize("how", MANIFESTS)
def test_a_hostile_manifest(published: Make, how: str) -> None:
    """A number of 400 digits or deeply nested JSON in one manifest stops a check of all datasets."""
    dataset = published(DEEP)
    another(dataset.store).publish("asia", "a")
    before = dataset.damage.get(MANIFEST)
    dataset.damage.alter(MANIFEST, MANIFESTS[how])
    assert dataset.damage.get(MANIFEST) != before
    assert "manifest-damaged" in dataset.problems()
    check(dataset)


@pytest.mark.parametrize("how", PAGES)
def test_a_hostile_page(published: Make, how: str) -> None:
    """A page that names itself keeps history, a follower and a read by time from ever ending."""
    dataset = published(DEEP)
    another(dataset.store).publish("asia", "a")
    record = PAGES[how](dataset)
    dataset.damage.alter(dataset.page(), lambda _: record)
    assert "page-damaged" in dataset.problems()
    check(dataset)


def test_two_pages_that_name_each_other(published: Make) -> None:
    """A cycle of two pages keeps a search from ever ending."""
    dataset = published(3)
    keys = dataset.store._context.keys
    one = Ref(key=keys.page("mena", "a.1-8"), count=8, first_version=1, last_version=8, min_ts=1, max_ts=8)
    other = attrs.evolve(one, key=keys.page("mena", "b.1-8"))
    for ref, below in ((one, other), (other, one)):
        page = pages.seal([below], level=1, dataset="mena", epoch="a", keys=keys)
        record = page.record.replace(
            b'"page":"a.1-8"', b'"page":"%b"' % ref.key.rpartition(":")[2].encode(), 1
        )
        with pytest.raises(SwapstoreError, match="other versions, times or bases"):
            pages.parse(record, ref, "mena")


@pytest.mark.parametrize("kind", ["id", "ts"])
@pytest.mark.parametrize("how", ["nested", "nested-field", "digits", "empty", "newline"])
def test_a_hostile_record(published: Make, kind: str, how: str) -> None:
    """Deeply nested JSON in one record stops a check of all datasets."""
    dataset = published(DEEP)
    another(dataset.store).publish("asia", "a")
    record = {
        "nested": NESTED + b"\n" + NESTED,
        "nested-field": b'{"x":' + NESTED + b"}\n",
        "digits": b'{"id":"id-3","ts":' + b"9" * 5000 + b"}\n",
        "empty": b"",
        "newline": b"\n",
    }[how]
    dataset.damage.alter(key(kind, 3), lambda _: record)
    call_everything(dataset)
    (report,) = another(dataset.store).repair(apply=True)
    assert report.dropped == (("id-3",) if kind == "id" else ())
    assert dataset.problems() == []


def test_keys_that_look_like_ours(published: Make) -> None:
    """A key with a number of 5000 digits stops a check of all keys."""
    dataset = published(3)
    for name in (
        "page:{mena}:a." + "9" * 5000 + "-1",
        "ts:{mena}:" + "9" * 5000 + ":x",
        "page:{mena}:zz.1-2",
    ):
        dataset.damage.put(f"swapstore:{name}", b"x")
    found = {finding.problem.value for finding in another(dataset.store).verify()}
    assert found == {"foreign"}
