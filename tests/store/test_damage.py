"""Damage from outside: each case ends in a clear error, and never in a wrong result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from swapstore import Store
from swapstore.commands import Failed
from swapstore.errors import (
    Corrupt,
    Damaged,
    PayloadMissing,
    Unavailable,
    UnsupportedFormat,
)
from tests.support import invariants
from tests.support.drivers import another, meddled, sqlite_connection
from tests.support.times import at
from tests.support.valkey import client_of

MANIFEST = "swapstore:manifest:{mena}"


def raw_client(store: Store) -> Any:
    return client_of(store._driver)


def is_sqlite(store: Store) -> bool:
    return store._driver.where.startswith("sqlite")


def delete(store: Store, key: str) -> None:
    if is_sqlite(store):
        with sqlite_connection(store._driver) as connection:
            connection.execute("DELETE FROM records WHERE key = ?", (key,))
    else:
        raw_client(store).delete(key)


def alter(store: Store, key: str, change: Callable[[bytes], bytes]) -> None:
    if is_sqlite(store):
        with sqlite_connection(store._driver) as connection:
            (value,) = connection.execute("SELECT value FROM records WHERE key = ?", (key,)).fetchone()
            connection.execute("UPDATE records SET value = ? WHERE key = ?", (change(value), key))
    else:
        client = raw_client(store)
        client.set(key, change(client.get(key)))


@pytest.fixture
def damaged(store: Store) -> Store:
    """Three committed versions, about to be damaged."""
    for number in (1, 2, 3):
        store.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number))
    return store


def test_an_altered_payload_is_corrupt(damaged: Store) -> None:
    """An altered payload is served, or the error does not name key, id and version."""
    alter(damaged, "swapstore:id:{mena}:id-3", lambda raw: raw[:-2] + b"9}")
    with pytest.raises(Corrupt, match="dataset 'mena': .*swapstore:id:{mena}:id-3") as caught:
        another(damaged).read_latest("mena")
    assert caught.value.key == "swapstore:id:{mena}:id-3"
    snap = another(damaged).read("mena", version=2)
    assert snap is not None
    assert snap.value == {"n": 2}


@pytest.mark.every_store
def test_a_deleted_payload_is_missing_and_not_nothing(damaged: Store) -> None:
    """An evicted payload looks like `nothing published yet`."""
    delete(damaged, "swapstore:id:{mena}:id-3")
    reader = another(damaged)
    reads: list[Callable[[], object]] = [
        lambda: reader.read_latest("mena"),
        lambda: reader.read("mena", version=3),
        lambda: reader.read("mena", id="id-3"),
        lambda: reader.read("mena", as_of=at(3)),
    ]
    for read in reads:
        with pytest.raises(
            PayloadMissing, match=r"dataset 'mena': version 3 \(id 'id-3'\).*deleted or evicted"
        ):
            read()


def test_a_retry_of_a_lost_snapshot_is_not_called_a_success(damaged: Store) -> None:
    """A retry of an id whose payload is damaged or gone is reported as committed."""
    alter(damaged, "swapstore:id:{mena}:id-3", lambda raw: raw[:-2] + b"9}")
    with pytest.raises(Corrupt, match="new id"):
        another(damaged).publish("mena", {"n": 3}, id="id-3")
    delete(damaged, "swapstore:id:{mena}:id-3")
    with pytest.raises(PayloadMissing, match="new id"):
        another(damaged).publish("mena", {"n": 3}, id="id-3")


def test_a_validator_does_not_block_the_publish_after_a_lost_payload(damaged: Store) -> None:
    """A validator fails on the lost latest payload, and the dataset cannot be published again."""
    delete(damaged, "swapstore:id:{mena}:id-3")
    seen: list[object] = []
    commit = another(damaged).publish("mena", 4, validate=lambda _c, previous: seen.append(previous))
    assert (commit.version, seen) == (4, [None])


def test_a_permanent_page_with_other_rows_is_named(store: Store) -> None:
    """A manifest restored beside newer pages makes a publish retry instead of naming the page."""
    for number in range(15):  # the next publish seals the first page
        store.publish("mena", number, id=f"id-{number}")
    status = store.status("mena")
    assert status is not None
    page = f"swapstore:page:{{mena}}:{status.etag.split('.')[0]}.1-8"
    if is_sqlite(store):
        with sqlite_connection(store._driver) as connection:
            connection.execute("INSERT INTO records VALUES (?, ?, NULL)", (page, b"other page\n"))
    else:
        raw_client(store).set(page, b"other page\n")
    with pytest.raises(Corrupt, match=r"page:.*permanent and holds something else") as caught:
        store.publish("mena", "next")
    assert caught.value.key == page, "the way out is to remove it"


def test_the_next_publish_replaces_a_lost_payload(damaged: Store) -> None:
    """A lost payload blocks the producer, and readers stay without data."""
    delete(damaged, "swapstore:id:{mena}:id-3")
    assert another(damaged).publish("mena", "next").version == 4
    snap = another(damaged).read_latest("mena")
    assert snap is not None
    assert snap.value == "next"


@pytest.mark.every_store
@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda _: b'{"other":"application"}', Corrupt, "not a swapstore manifest"),
        (lambda _: b"", Corrupt, "not a swapstore manifest"),
        (lambda raw: raw[:40], Corrupt, "no header line"),
        (lambda raw: raw.replace(b'"mena"', b'"asia"'), Corrupt, "another dataset"),
        (lambda raw: raw.replace(b'"format":1', b'"format":2'), UnsupportedFormat, "upgrade swapstore"),
        (lambda raw: raw.replace(b'"count":3', b'"count":"3"'), Corrupt, "damaged"),
    ],
)
def test_a_damaged_manifest_is_refused_by_all(
    damaged: Store, change: Callable[[bytes], bytes], error: type[Damaged], match: str
) -> None:
    """A reader is not told what is wrong, or a producer overwrites a damaged manifest."""
    alter(damaged, MANIFEST, change)
    client = another(damaged)
    for use in (
        lambda: client.read_latest("mena"),
        lambda: client.read("mena", version=1),
        lambda: list(client.history("mena")),
        lambda: client.status("mena"),
        lambda: client.publish("mena", 4, id="id-4"),
        lambda: client.pin("mena", id="id-1"),
    ):
        with pytest.raises(error, match=match) as caught:
            use()
        assert "dataset 'mena'" in str(caught.value)
    found: list[bytes] = []
    alter(damaged, MANIFEST, lambda raw: found.append(raw) or raw)  # type: ignore[func-returns-value]
    assert b'"id-4"' not in found[0]
    assert damaged.datasets() == (["mena"] if found[0] else [])


def test_a_client_that_knew_the_manifest_notices_that_it_was_replaced(damaged: Store) -> None:
    """A client works on with its cached manifest after somebody overwrote the stored one."""
    alter(damaged, MANIFEST, lambda _: b'{"other":"application"}')
    for use in (lambda: damaged.read_latest("mena"), lambda: damaged.publish("mena", 4)):
        with pytest.raises(Corrupt, match="not a swapstore manifest"):
            use()


def test_a_manifest_with_a_damaged_body_still_serves_latest(damaged: Store) -> None:
    """A damaged log takes the latest from readers, or a producer builds on it."""
    alter(damaged, MANIFEST, lambda raw: raw[:-10])
    snap = another(damaged).read_latest("mena")
    assert snap is not None
    assert snap.value == {"n": 3}
    with pytest.raises(Corrupt, match="body"):
        another(damaged).publish("mena", 4)


def test_a_damaged_page_is_named(store: Store) -> None:
    """A deleted or altered page takes more than its own part of the history with it."""
    for number in range(1, 101):
        store.publish("mena", number, id=f"id-{number}", ts=at(number))
    status = store.status("mena")
    assert status is not None
    page = f"swapstore:page:{{mena}}:{status.etag.split('.')[0]}.1-8"
    alter(store, page, lambda raw: raw.replace(b'"id-7"', b'"id-x"'))
    reader = another(store)
    with pytest.raises(Corrupt, match="page:.*1-8"):
        reader.read("mena", version=7)
    assert len(list(reader.history("mena", limit=92))) == 92
    delete(store, page)
    with pytest.raises(PayloadMissing, match=r"page:.*versions 1 to 8"):
        list(another(store).history("mena", limit=None))
    assert store.publish("mena", "goes on").version == 101


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_dedupe_key_whose_page_is_lost_is_not_published_again(store: Store, damage: str) -> None:
    """A retry with the key of a commit is committed a second time, because a page is damaged."""
    for number in range(30):
        store.publish("mena", number, dedupe_key=f"run-{number}")
    page = store._context.keys.page("mena", f"{invariants.manifest_of(store).epoch}.9-16")
    if damage == "missing":
        delete(store, page)
    else:
        alter(store, page, lambda raw: raw[:-5] + b"x" + raw[-4:])
    for client in (another(store), another(store)):
        client.status("mena")
        with pytest.raises(PayloadMissing if damage == "missing" else Corrupt) as caught:
            client.publish("mena", "again", dedupe_key="run-10")
        assert caught.value.key == page
        assert "dedupe_key 'run-10' was published as version 11" in str(caught.value)
        assert "Nothing was published" in str(caught.value)
        with pytest.raises(type(caught.value), match="'run-10' was published as version 11") as asked:
            client.published("mena", dedupe_key="run-10")
        assert (asked.value.key, asked.value.published) == (page, None)
    commit = another(store).publish("mena", "other", dedupe_key="run-20")
    assert (commit.version, commit.created) == (21, False), "the key of another page is found"
    assert another(store).publish("mena", "new", dedupe_key="run-30").version == 31


def test_a_live_view_that_was_altered_is_corrupt(store: Store) -> None:
    """An altered live view is shown."""
    store.publish("mena", 1)
    store.put_live("mena", [1], ttl=60)
    alter(store, "swapstore:live:{mena}", lambda raw: raw + b" ")
    with pytest.raises(Corrupt, match="live"):
        store.read_live("mena")


@pytest.mark.every_store
def test_a_lost_manifest_does_not_free_committed_ids(damaged: Store) -> None:
    """After the manifest is lost, a committed id silently gets other content."""
    delete(damaged, MANIFEST)
    with pytest.raises(Corrupt, match="id-2 is permanent but no version names it"):
        another(damaged).publish("mena", "other", id="id-2")
    assert another(damaged).publish("mena", "new", id="id-9").version == 1


@pytest.mark.every_store
def test_another_type_of_value_is_named(store: Store) -> None:
    """A list under the manifest's key is not named, or taken for an empty dataset."""
    if is_sqlite(store):
        return
    raw_client(store).rpush(MANIFEST, "x")
    for use in (lambda: store.read_latest("mena"), lambda: store.publish("mena", 1)):
        with pytest.raises(Corrupt, match="dataset 'mena': .*another type of value"):
            use()


@pytest.mark.every_store
def test_a_new_epoch_is_not_blocked_by_old_pages(store: Store) -> None:
    """After the manifest is lost, old pages block the first seal of the new epoch."""
    for number in range(64):
        store.publish("mena", number, id=f"old-{number}")
    delete(store, MANIFEST)
    fresh = another(store)
    for number in range(64):
        fresh.publish("mena", number, id=f"new-{number}")
    ids = [row.id for row in another(store).history("mena", limit=None)]
    assert ids == [f"new-{number}" for number in range(63, -1, -1)]


def test_an_id_of_a_lost_epoch_is_refused_with_its_key(store: Store) -> None:
    """A retry of an id of a lost epoch crashes, or the error does not name its key."""
    store.publish("mena", 1, id="old")
    delete(store, MANIFEST)
    another(store).publish("mena", 2, id="new")
    with pytest.raises(Corrupt, match="old is permanent but no version names it") as caught:
        another(store).publish("mena", 1, id="old")
    assert caught.value.key == "swapstore:id:{mena}:old"


def test_a_damaged_id_record_names_its_key(store: Store) -> None:
    """The error about a damaged id record does not say which key to look at."""
    for number in range(70):
        store.publish("mena", number, id=f"id-{number}")
    key = "swapstore:id:{mena}:id-3"
    for raw in (b"no line", b"{}\n"):
        alter(store, key, lambda _, raw=raw: raw)  # type: ignore[misc]
        with pytest.raises(Corrupt, match=key) as caught:
            another(store).read("mena", id="id-3")
        assert caught.value.key == key


def test_a_damaged_dataset_is_listed(store: Store) -> None:
    """A dataset with a damaged manifest is missing in the list, which hides the damage."""
    store.publish("mena", 1)
    reader, meddler = meddled(store)
    meddler.replies(1, lambda _: [Failed(Corrupt("another type, on purpose"))])
    assert reader.datasets() == ["mena"]
    meddler.replies(3, lambda _: [Failed(Unavailable("loading, on purpose"))])
    with pytest.raises(Unavailable, match="loading"):
        reader.datasets()
