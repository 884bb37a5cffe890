"""The page of one dataset."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import swapstore
from swapstore.format.keys import group_name
from swapstore.store import AsyncStore
from tests.serve.conftest import TOKEN, served
from tests.support.damage import Damage
from tests.support.html import Page, checked
from tests.support.valkey import free_port
from tests.support.web import Site

HOSTILE = {'"><script>alert(1)</script>': "' onmouseover=alert(1) x='", "a\u202eb": "\u2066<b>"}


def versions(page: Page) -> list[str]:
    """The versions in the timeline, from the links to their snapshots."""
    return [
        each.text.strip()
        for each in page.all("a")
        if each.attributes["href"].rpartition("/")[0].endswith("/versions") and each.text.strip().isdecimal()
    ]


def test_what_is_served_is_told_from_what_is_latest(store: swapstore.Store, site: Site) -> None:
    """An operator takes the latest version for the one that readers get."""
    for n in range(3):
        store.publish("mena", {"n": n}, id=f"run-{n}", labels={"run": str(n)}, count=n)
    store.pin("mena", version=2)

    page = checked(site.get("/datasets/mena").body)

    assert page.all("h1")[0].text.split() == ["mena", "pinned"]
    current = next(row for row in page.all("tr") if "aria-current" in row.attributes)
    assert "2 served pinned" in " ".join(current.text.split())
    newest = page.rows()[0]
    assert [cell for cell in newest if "latest" in cell] == ["3 latest"]
    assert page.link("3") == "/datasets/mena/versions/3"
    assert page.link("JSON") == "/api/datasets/mena/latest"


def test_a_dataset_that_breaks_its_bound_says_which(real_url: str, store: swapstore.Store) -> None:
    """The page calls a dataset stale, and nobody knows what is expected of it."""
    store.publish("mena", {"n": 1}, count=1)
    bound = swapstore.Bound(max_age=timedelta(hours=12), min_count=10, min_size=5)
    with served(real_url, bounds={"mena": bound}) as site:
        page = checked(site.get("/datasets/mena").body)
    assert page.all("span", class_="badge too_small")
    assert "confirmed within 12 h, count of 10 or more, 5 B or more" in page.text


def test_a_dataset_that_is_not_there_is_a_page_that_says_so(site: Site) -> None:
    """A wrong name ends in a traceback, or in an empty page."""
    answer = site.get("/datasets/nothing")
    assert answer.status == 404
    assert "nothing is published" in checked(answer.body).text


def test_whatever_the_store_holds_is_text(store: swapstore.Store, site: Site) -> None:
    """A label runs as a script in the browser of an operator, or turns the text around it."""
    store.publish("a/b.c", "<script>alert(1)</script>", id="a:b/c@d+e", labels=HOSTILE)
    store.publish("a/b.c", "x", labels={"k": "x" * 900})

    answer = site.get("/datasets/a%2Fb.c")
    page = checked(answer.body)

    assert b"<script>alert" not in answer.body
    assert "\u202e" not in answer.body.decode()
    assert "\"><script>alert(1)</script>=' onmouseover=alert(1)" in page.text
    assert page.link("2") == "/datasets/a%2Fb.c/versions/2"
    assert site.get(page.link("2")).status == 200


def test_older_versions_are_a_page_or_rows_that_are_appended(store: swapstore.Store, site: Site) -> None:
    """Versions beyond the first page cannot be reached, or only with JavaScript."""
    for n in range(120):
        store.publish("mena", {"n": n})
    seen = versions(page := checked(site.get("/datasets/mena").body))[
        1:
    ]  # the first is that of what is served
    while page.all("tr", class_="more"):
        link = page.link("Older versions")
        rows = Page(b"<table>" + site.get(link, HX_Request="true").body + b"</table>")
        assert not rows.all("main")
        page = checked(site.get(link).body)
        assert versions(page) == versions(rows)
        seen += versions(page)
    assert [version for version in seen if version] == [str(n) for n in range(120, 0, -1)]


def test_versions_are_found_by_label_even_far_back(
    store: swapstore.Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request reads a whole long history, or says that there is nothing while it has not looked."""
    monkeypatch.setattr("swapstore.serve.page.dataset.LOOKED_AT", 10)
    store.publish("mena", 1, labels={"run": "a=b"})
    for n in range(2, 15):
        store.publish("mena", n)
    page = checked(site.get("/datasets/mena?label=run%3Da%3Db").body)
    assert not versions(page)
    assert "10 versions looked at." in page.text
    assert versions(checked(site.get(page.link("Older versions")).body)) == ["1"]
    assert site.get("/datasets/mena?label=run").status == 422


def test_rows_have_their_interval_and_change_across_pages(store: swapstore.Store, site: Site) -> None:
    """The last row of a page has no interval, because the version before it is on the next page."""
    for n in range(52):
        store.publish("mena", "x" * n)
    rows = checked(site.get("/datasets/mena").body).rows()
    assert rows[49][1] == "3"
    assert rows[49][6] == "+1 B"
    first = checked(site.get("/datasets/mena?before=2").body).rows()[0]
    assert (first[0], first[3], first[5]) == ("1", "", "")


def test_any_two_versions_can_be_compared(store: swapstore.Store, site: Site) -> None:
    """The form lacks a version, or sends what the diff does not take."""
    for n in range(3):
        store.publish("mena", n)
    page = checked(site.get("/datasets/mena").body)
    assert page.all("form", id="compare", action="/datasets/mena/diff")
    chosen = {
        each.attributes["name"]: each.attributes["value"]
        for each in page.all("input", form="compare")
        if "checked" in each.attributes
    }
    assert chosen == {"from": "2", "to": "3"}
    assert page.link("diff of version 2 with the one before") == "/datasets/mena/diff?to=2"
    assert len(page.all("input", form="compare", name="from")) == 3


def test_one_version_has_nothing_to_be_compared_with(store: swapstore.Store, site: Site) -> None:
    """The page of a new dataset fails, or offers a diff that cannot be."""
    store.publish("mena", 1)
    page = checked(site.get("/datasets/mena").body)
    assert not page.all("form", id="compare")
    assert not page.all("svg")
    assert not [each for each in page.all("a") if "/diff" in each.attributes["href"]]


def test_only_who_may_write_is_offered_to(store: swapstore.Store, site: Site) -> None:
    """A reader is shown buttons that refuse, or a writer has none."""
    for n in range(2):
        store.publish("mena", n)
    reader, writer = (
        checked(site.get("/datasets/mena", **headers).body)
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}"})
    )
    paths = {each.attributes["href"] for each in writer.all("a")}
    assert {"/datasets/mena/pin?version=2", "/datasets/mena/rollback?version=1"} <= paths
    assert "/datasets/mena/confirm" in paths
    assert not [each for each in reader.all("a") if "/pin" in each.attributes["href"]]


def test_a_group_shows_its_members(store: swapstore.Store, site: Site) -> None:
    """The members of a group cannot be found from its page."""
    store.publish_group("grid", {"EG": {"a": 1}, "IL/north": [1, 2, 3]})
    page = checked(site.get("/datasets/grid").body)
    assert ["IL/north", "json", "7 B"] in page.rows()
    assert checked(site.get(page.link("IL/north")).body).all("h1")[0].text.split()[0] == "IL/north"


def test_a_group_without_a_member_is_still_shown(store: swapstore.Store, site: Site) -> None:
    """The page that would say what is wrong fails because something is."""
    store.publish_group("grid", {"EG": {"a": 1}}, id="one")
    group = store.read_group("grid")
    assert group is not None
    key = store._context.keys.member("grid", group_name("one", group.sha256), "EG")
    Damage(store).delete(key)
    for headers, tells_all in (({}, False), ({"Authorization": f"Bearer {TOKEN}"}, True)):
        page = checked(site.get("/datasets/grid", **headers).body)
        assert "The members cannot be read" in page.text
        assert "swapstore verify grid" in page.text
        assert (key in page.text) is tells_all, "it may name the store"


def test_below_a_path_all_links_stay_there(real_url: str, store: swapstore.Store) -> None:
    """The page is mounted in another app, and its links lead out of it."""
    store.publish("a/b", {"x": [1]})
    store.publish("a/b", {"x": [2]})
    with served(real_url, mount="/data", allow_writes=True, token=TOKEN) as site:
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        answer = site.send("POST", "/data/login", f"token={TOKEN}".encode(), **form)
        session = {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}
        paths = ["", "/versions/2", "/value?pointer=/x/0", "/diff", "/pin?version=1", "/versions/9"]
        for path in ["/", "/health", "/login", *(f"/datasets/a%2Fb{each}" for each in paths)]:
            page = checked(site.get(f"/data{path}", **session).body)
            given = [
                each.attributes.get(name)
                for each in page.elements
                for name in ("href", "src", "action", "hx-get")
            ]
            assert {each for each in given if each and not each.startswith(("/data/", "#"))} == set()


def test_a_long_history_costs_one_page(
    store: swapstore.Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset with 10,000 versions takes long to show, and its page is a megabyte."""
    for n in range(210):
        store.publish("mena", n)
    limits: list[int] = []
    history = AsyncStore.history

    def counted(self: AsyncStore, name: str, *, limit: int, before: int | None = None) -> Any:
        limits.append(limit)
        return history(self, name, limit=limit, before=before)

    monkeypatch.setattr(AsyncStore, "history", counted)
    page = checked(site.get("/datasets/mena").body)
    assert len(page.rows()) == 51
    assert sorted(limits) == [51, 201]
    assert "200 values" in page.text


def test_the_latest_that_is_pinned_is_served(store: swapstore.Store, site: Site) -> None:
    """An operator reads that the latest is not served, and rolls back what was right."""
    store.publish("mena", {"a": 1})
    store.pin("mena", version=1)
    shown = site.get("/datasets/mena").body.decode()
    assert "(latest, pinned)" in shown
    assert "not served" not in shown

    store.publish("mena", {"a": 2})
    assert "not served" in site.get("/datasets/mena").body.decode()


def test_an_outage_is_told_in_plain_words_and_in_full_to_who_may_know() -> None:
    """Somebody who opens the page at night reads a class name, or strangers read where the store is."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with served(url, allow_writes=True, token=TOKEN) as site:
        answer = site.get("/")
        assert answer.status == 503
        assert "cannot be reached now" in answer.body.decode()
        assert str(port) not in answer.body.decode()
        assert "Sign in to see why" in answer.body.decode()
        told = site.get("/", Authorization=f"Bearer {TOKEN}").body.decode()
        assert f"127.0.0.1:{port}" in told
        assert site.get("/health").status == 200
        assert "unreachable" in site.get("/health").body.decode()


def test_intervals_are_those_of_the_later_version(store: swapstore.Store, site: Site) -> None:
    """A long pause is drawn at the version before it."""
    for n in range(3):
        store.publish("mena", n)
    page = checked(site.get("/datasets/mena").body)
    assert [each.text.partition("From ")[2].partition(".")[0] for each in page.all("desc")] == [
        "version 1 to version 3",
        "version 2 to version 3",
    ]


def test_what_is_expected_and_not_there_is_on_the_first_page(real_url: str, store: swapstore.Store) -> None:
    """A dataset that a producer never published is not missed."""
    store.publish("mena", 1)
    with served(real_url, bounds={"mena": "12h", "other": "12h"}) as site:
        rows = checked(site.get("/").body).rows()
        assert [row[:2] for row in rows] == [["mena", "fresh"], ["other", "missing"]]
        assert [row[:2] for row in checked(site.get("/health").body).rows()] == [["other", "missing"]]
        store.publish("other", 1)
        assert not checked(site.get("/health").body).rows()
