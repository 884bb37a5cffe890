"""The page that shows what changed."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec
import pytest

import swapstore
from swapstore.serve.page import diff
from tests.support.html import checked
from tests.support.web import Site


def test_a_diff_has_each_change_once_and_in_pages(store: swapstore.Store, site: Site) -> None:
    """A change is left out between two pages of them, or shown twice."""
    for plus in (0, 1):
        store.publish("mena", {f"k{number:03}": number + plus for number in range(250)})

    found = site.get("/datasets/mena/diff").body.decode()
    rest = [site.get(f"/datasets/mena/diff?offset={offset}", HX_Request="true") for offset in (100, 200)]

    pages = [found, *(each.body.decode() for each in rest)]
    assert [page.count('class="badge changed">changed<') for page in pages] == [100, 100, 50]
    assert "150 left" in pages[0]
    assert "<html" not in pages[1]
    assert "left" not in pages[2]


def test_what_is_in_a_payload_stays_text(store: swapstore.Store, site: Site) -> None:
    """A dataset full of markup runs its scripts in the browser of an operator."""
    bad = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    store.publish("mena", {bad: [bad]}, id="one", labels={"x": bad})
    store.publish("mena", {bad: [bad, bad * 90]}, id="two")

    for look in ("list", "side"):
        page = site.get(f"/datasets/mena/diff?look={look}&below=%3Cscript%3E").body.decode()
        page += site.get(f"/datasets/mena/diff?look={look}").body.decode()
        assert "<script>alert" not in page
        assert "<img" not in page
        assert "&lt;script&gt;" in page


def test_changes_are_selected_by_kind_and_place(store: swapstore.Store, site: Site) -> None:
    """Somebody who looks for what was removed has to read thousands of changes."""
    store.publish("mena", {"a": {"b": 1, "c": 2}, "ab": 3})
    store.publish("mena", {"a": {"b": 2, "d": 2}, "ab": 4})

    removed = site.get("/datasets/mena/diff?kind=removed").body.decode()
    below = site.get("/datasets/mena/diff?below=/a").body.decode()

    assert ("/a/c" in removed, ">/a/b<" in removed) == (True, False)
    assert (">/a/b<" in below, ">/ab<" in below) == (True, False)
    assert site.get("/datasets/mena/diff?kind=strange").status == 422


def test_a_diff_of_one_version_or_of_none_says_what_is_missing(store: swapstore.Store, site: Site) -> None:
    """The first page that somebody opens is a traceback."""
    assert site.get("/datasets/mena/diff").status == 404
    store.publish("mena", {"a": 1})
    answer = site.get("/datasets/mena/diff")
    assert answer.status == 404
    assert "no snapshot before version 1" in answer.body.decode()
    assert "same payload" in site.get("/datasets/mena/diff?from=1&to=1").body.decode()


def test_the_bytes_of_a_text_are_not_the_text(store: swapstore.Store, site: Site) -> None:
    """What was compared before is shown for versions with the same bytes, and another codec."""
    for text in (b'{"a":1}', b'{"a":2}'):
        store.publish("mena", msgspec.Raw(text))
    for text in (b'{"a":1}', b'{"a":2}'):
        store.publish("mena", text, codec="bytes")

    first = site.get("/datasets/mena/diff?from=1&to=2")
    second = site.get("/datasets/mena/diff?from=3&to=4")

    assert ">/a<" in first.body.decode()
    assert ">/a<" not in second.body.decode()


def test_two_threads_compare_at_the_same_time(
    store: swapstore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of changes fails because other people looked at other changes in that moment."""
    found = [store.read("mena", version=store.publish("mena", {"a": n}).version) for n in range(8)]
    versions = [each for each in found if each is not None]

    class Busy(OrderedDict[Any, Any]):
        """Lets another thread in, which compares many others, just after something was kept."""

        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            if others:
                pairs, others[:] = [*others], []
                for pair in pairs:
                    diff.compared(*pair)

    others: list[tuple[swapstore.Snapshot, swapstore.Snapshot]] = []
    monkeypatch.setattr(diff, "_kept", Busy())
    for n in range(2):
        others[:] = [(versions[0], each) for each in versions[2:]] if n else []
        assert [each.after for each in diff.compared(versions[0], versions[1]).changes] == [1]


def test_more_changes_are_selected_like_the_first(store: swapstore.Store, site: Site) -> None:
    """The next page of changes has those of other kinds, or of other places."""
    for plus in (0, 1):
        inside = {f"k{number:03}": number + plus for number in range(150)}
        store.publish("mena", {"a": inside, "b": inside, f"c{plus}": 1})

    page = checked(site.get("/datasets/mena/diff?below=/a&kind=changed").body)
    more = site.get(page.link("More: 50 left"), HX_Request="true").body.decode()

    assert more.count('class="badge changed">changed<') == 50
    assert more.count(">/a/k") == 50
