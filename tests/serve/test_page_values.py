"""The page of one value over time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import swapstore
from swapstore.store import AsyncStore
from tests.support.damage import Damage
from tests.support.html import checked
from tests.support.web import Site


def publish(store: swapstore.Store, *texts: str) -> None:
    for text in texts:
        store.publish("mena", msgspec.Raw(text.encode()))


def test_runs_of_the_same_value_are_folded(store: swapstore.Store, site: Site) -> None:
    """A change drowns among versions that have none, or `1.0` after `1` counts as none."""
    publish(store, '{"a":[1]}', '{"a":[1.0],"b":1}', '{"a":[1.0],"b":2}', '{"a":[]}', '{"a":[1.0]}')
    page = checked(site.get("/datasets/mena/value?pointer=/a/0").body)
    assert [row[:3] for row in page.rows()] == [
        ["5", "1.0", "changed"],
        ["4", "nothing there", "changed"],
        ["2 to 3 2 versions", "1.0", "changed"],
        ["1", "1", "first version"],
    ]
    assert "by position" in page.text
    assert page.all("svg")
    assert "1 version without one" in page.text


def test_the_page_goes_on_with_older_versions(store: swapstore.Store, site: Site) -> None:
    """Values beyond the last fifty cannot be seen, or the oldest on a page is called a first version."""
    publish(store, *(f'{{"a":{n}}}' for n in range(7)))
    page = checked(site.get("/datasets/mena/value?pointer=/a&last=5").body)
    assert [row[1] for row in page.rows()] == ["6", "5", "4", "3", "2"]
    assert page.rows()[-1][2] == "not read"
    older = checked(site.get(page.link("Older versions")).body)
    assert [row[1:3] for row in older.rows()] == [["1", "changed"], ["0", "first version"]]
    assert site.get("/datasets/mena/value?pointer=/a&last=201").status == 422


def test_what_takes_too_long_is_shown_in_parts(
    store: swapstore.Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty large documents keep the browser waiting for minutes."""
    monkeypatch.setattr("swapstore.serve.page.values.PATIENCE_S", -1)
    publish(store, *(f'{{"a":"x{n}"}}' for n in range(6)))
    page = checked(site.get("/datasets/mena/value?pointer=/a").body)
    assert [row[1] for row in page.rows()] == ['"x5"', '"x4"', '"x3"', '"x2"']
    assert "4 versions read so far" in page.text
    rest = checked(site.get(page.link("Go on with older ones")).body)
    assert [row[1] for row in rest.rows()] == ['"x1"', '"x0"']


def test_the_same_content_is_read_once(
    store: swapstore.Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hundred versions of one content are read two hundred times."""
    publish(store, *(['{"a":1}', '{"a":2}'] * 5))
    read: list[int] = []
    reading = AsyncStore.read

    def counted(self: AsyncStore, name: str, *, version: int) -> Any:
        read.append(version)
        return reading(self, name, version=version)

    monkeypatch.setattr(AsyncStore, "read", counted)
    page = checked(site.get("/datasets/mena/value?pointer=/a").body)
    assert len(page.rows()) == 10
    assert len(read) == 2


def test_versions_that_cannot_be_read_say_so(store: swapstore.Store, site: Site) -> None:
    """One damaged or binary version hides all others."""
    store.publish("mena", {"a": "<script>"}, id="one")
    store.publish("mena", {"a": "lost"}, id="two")
    store.publish("mena", b"bytes", id="three", codec="bytes")
    store.publish_group("mena", {"EG": {"a": 1}}, id="four")
    Damage(store).delete("swapstore:id:{mena}:two")
    page = checked(site.get("/datasets/mena/value?pointer=/a").body)
    assert [row[1] for row in page.rows()] == [
        "a group: choose one of its members",
        "not JSON",
        "cannot be read: PayloadMissing",
        '"<script>"',
    ]
    one = checked(site.get("/datasets/mena/value?pointer=/a&member=EG").body)
    assert [row[1] for row in one.rows()] == [
        "1",
        "no such member",
        "cannot be read: PayloadMissing",
        "no such member",
    ]


def test_objects_and_long_texts_are_cut(store: swapstore.Store, site: Site) -> None:
    """A large object is in the page fifty times, or two texts with the same beginning count as one."""
    publish(store, f'["{"x" * 300}1"]', f'["{"x" * 300}2"]')
    page = checked(site.get("/datasets/mena/value?pointer=/0").body)
    assert [row[2] for row in page.rows()] == ["changed", "first version"]
    assert site.get(page.link("all")).json == "x" * 300 + "2"
    assert [row[2] for row in checked(site.get("/datasets/mena/value").body).rows()] == [
        "changed",
        "first version",
    ]


def test_what_is_no_pointer_is_refused(store: swapstore.Store, site: Site) -> None:
    """A mistyped pointer is said to lead nowhere in each version, after all of them were read."""
    publish(store, "{}")
    assert site.get("/datasets/mena/value?pointer=a").status == 422
    assert site.get("/datasets/nothing/value?pointer=/a").status == 404


def test_older_values_of_a_member_are_those_of_this_member(store: swapstore.Store, site: Site) -> None:
    """The second page of the values of a member is that of the whole group."""
    for n in range(4):
        store.publish_group("mena", {"EG": {"a": n}, "IL": {"a": -1}})
    page = checked(site.get("/datasets/mena/value?pointer=/a&member=EG&last=2").body)
    assert [row[1] for row in page.rows()] == ["3", "2"]
    older = checked(site.get(page.link("Older versions")).body)
    assert [row[1] for row in older.rows()] == ["1", "0"]
    newest = checked(site.get(older.link("The newest")).body)
    assert [row[1] for row in newest.rows()] == ["3", "2"]


def test_the_line_goes_from_the_oldest_to_the_newest(store: swapstore.Store, site: Site) -> None:
    """What rises is drawn as if it fell."""
    publish(store, '{"a":1}', '{"a":2}', '{"a":5}')
    page = checked(site.get("/datasets/mena/value?pointer=/a").body)
    points = page.all("polyline")[0].attributes["points"].split()
    down = [float(point.partition(",")[2]) for point in points]
    assert down == sorted(down, reverse=True)
    assert "From version 1 to version 3." in page.text
