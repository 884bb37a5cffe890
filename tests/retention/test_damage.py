"""Retention continues beside damaged pages."""

from __future__ import annotations

import pytest

from swapstore import Store
from swapstore.format import manifest
from tests.retention.model import at_most, fill, ids, keeping, permanent, stored
from tests.store.test_damage import alter, delete
from tests.support.drivers import another
from tests.support.times import at

pytestmark = pytest.mark.usefixtures("small_pages")


@pytest.mark.slow
@pytest.mark.every_store
@pytest.mark.parametrize("how", ["missing", "altered"])
def test_a_damaged_page_does_not_keep_others_from_being_unlinked(
    store: Store, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lost page ends retention permanently, and the store fills up."""
    monkeypatch.setattr(manifest, "G", 8)
    fill(store, 128)
    row_pages = [ref for ref in stored(store).log.pages if ref.count == manifest.F]
    assert len(row_pages) == 7
    assert row_pages[1].last_version < 128 - manifest.recent(), "the first two are tried first"
    for ref in row_pages[:2]:
        damage(store, ref.key, how)
    before = len(permanent(store, "id"))
    client = keeping(store, 1)
    for number in range(20):
        client.publish("mena", number, id=f"more-{number}", ts=at(9000 + number))
    after_publishing = len(permanent(store, "id"))
    assert after_publishing < before - 10 * manifest.F, "publishing goes on unlinking"
    store.prune("mena")
    assert len(permanent(store, "id")) <= at_most(1) + 2 * manifest.F
    assert ids(another(store)) == ["more-19"]


def test_a_damaged_page_of_references_does_not_keep_others_from_being_unlinked(store: Store) -> None:
    """One lost page of references keeps the rest of the history from being unlinked."""
    fill(store, 150)
    oldest = max(stored(store).log.pages, key=lambda ref: ref.count)
    delete(store, oldest.key)
    kept_by_damage = oldest.count
    client = keeping(store, 20)
    for number in range(60):
        client.publish("mena", number, id=f"more-{number}", ts=at(9000 + number))
    assert len(permanent(store, "id")) <= kept_by_damage + at_most(20)
    assert len(ids(another(store))) == 20


def damage(store: Store, key: str, how: str) -> None:
    if how == "missing":
        delete(store, key)
    else:
        alter(store, key, lambda data: data[:-9] + b"x" * 9)


def test_a_pin_whose_page_is_lost_can_be_undone(store: Store) -> None:
    """An operator cannot unpin, because it is not known whether the lost page names the snapshot."""
    fill(store, 60)
    store.pin("mena", id="id-1")
    keeping(store, 3).publish("mena", "new", id="new", ts=at(9000))
    for key in permanent(store, "page"):
        delete(store, key)
    assert another(store).unpin("mena").pinned is None
    assert store._context.keys.id("mena", "id-1") in permanent(store, "id"), "rather too many than too few"
