"""What readers ask of the API."""

from __future__ import annotations

import pytest

import swapstore
import swapstore.aio
import swapstore.http
from tests.serve.conftest import TOKEN, served
from tests.support.html import checked
from tests.support.web import Site

TS = 1_769_839_200_000


def test_a_name_with_slashes_and_dots_is_one_segment_of_a_path(store: swapstore.Store, site: Site) -> None:
    """Another dataset is read if a server decodes the slash too early."""
    name = "eu/../latest"
    store.publish(name, {"a": 1}, id="one")
    store.publish("eu", {"a": 2})

    answer = site.get("/api/datasets/eu%2F..%2Flatest/latest")

    assert (answer.status, answer.json) == (200, {"a": 1})
    assert answer.headers["Swapstore-Id"] == "one"
    assert site.get("/api/datasets/eu%2F..%2Flatest").json["dataset"] == name
    unknown = site.get("/api/datasets/eu/../latest")
    assert unknown.status == 404
    assert "%2F" in unknown.json["detail"]  # the one that a proxy has decoded is told, and so is its operator


def test_problems_say_what_is_wrong(site: Site) -> None:
    """A program gets a page for people, or a status that says nothing."""
    answer = site.get("/api/datasets/nothing/latest")

    assert answer.status == 404
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["title"] == "NotFound"
    assert "nothing is published" in answer.json["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "?versoin=1",
        "/latest?versoin=1",
        "/history?label=run=7",
        "/history?limit=1&after=3",
        "/diff?form=1",
    ],
)
def test_a_parameter_with_a_typo_is_refused(path: str, store: swapstore.Store, site: Site) -> None:
    """Another snapshot than the one that was asked for is returned, or the history without its filter."""
    store.publish("mena", 1)
    store.publish("mena", 2)
    answer = site.get(f"/api/datasets/mena{path}")
    assert (answer.status, answer.json["title"]) == (422, "InvalidInput")
    assert "is unknown" in answer.json["detail"]


def test_a_path_with_a_slash_at_its_end_is_not_there(store: swapstore.Store, site: Site) -> None:
    """A publish without a name is answered by a redirect without a word, which few clients follow."""
    for path in ("/api/datasets/", "/api/datasets/mena/"):
        answer = site.get(path)
        assert (answer.status, answer.json["title"]) == (404, "Not Found")


def test_what_is_no_origin_is_refused() -> None:
    """A browser refuses every call, because of a host name where an origin should be."""
    store = swapstore.aio.connect("sqlite:///never.db")
    for wrong in ("example.com", "https://example.com/", "https://example.com/path", ""):
        with pytest.raises(swapstore.InvalidInput, match="origin"):
            swapstore.http.app(store, cors=[wrong])
    swapstore.http.app(store, cors=["https://example.com", "http://localhost:3000"])


def test_below_a_path_that_is_not_ascii(real_url: str, store: swapstore.Store) -> None:
    """No link of the page leads anywhere, or signing in is an error of the server."""
    store.publish("eu/x", 1)
    with served(real_url, "/d\u00e4ta", allow_writes=True, token=TOKEN) as site:
        page = checked(site.get("/d%C3%A4ta/").body)
        assert page.link("eu/x") == "/d%C3%A4ta/datasets/eu%2Fx"
        assert site.get(page.link("eu/x")).status == 200
        asked = site.get("/d%C3%A4ta/datasets/eu%2Fx/confirm")
        assert (asked.status, asked.headers["Location"].partition("?")[0]) == (303, "/d%C3%A4ta/login")
        assert site.get(asked.headers["Location"]).status == 200


def test_the_history_by_label_and_in_pages(store: swapstore.Store, site: Site) -> None:
    """A row is left out between two pages, or those of another run are among them."""
    for n in range(7):
        store.publish("mena", n, labels={"run": "odd" if n % 2 else "even"})
    path, seen = "/api/datasets/mena/history?limit=3", []
    page = site.get(path).json
    while True:
        seen += [row["version"] for row in page["rows"]]
        if page["next"] is None:
            break
        page = site.get(f"{path}&before={page['next']}").json
    assert seen == [7, 6, 5, 4, 3, 2, 1]
    odd = site.get("/api/datasets/mena/history?label.run=odd").json
    assert [row["version"] for row in odd["rows"]] == [6, 4, 2]


def test_a_payload_names_its_snapshot(store: swapstore.Store, site: Site) -> None:
    """A client that decides by version takes one snapshot for another."""
    for n in range(2):
        store.publish("mena", {"n": n}, id=f"run-{n}", ts=TS + n)
    for query, version in (("", 2), ("?version=1", 1), ("?id=run-0", 1)):
        answer = site.get(f"/api/datasets/mena/latest{query}")
        named = [answer.headers[f"Swapstore-{name}"] for name in ("Version", "Id", "Ts")]
        assert named == [str(version), f"run-{version - 1}", str(TS + version - 1)]
        assert answer.json == {"n": version - 1}
        again = site.get(f"/api/datasets/mena/latest{query}", If_None_Match=answer.headers["ETag"])
        assert (again.status, again.headers["Swapstore-Version"]) == (304, str(version))


def test_an_earlier_snapshot_is_chosen_by_time(store: swapstore.Store, site: Site) -> None:
    """Somebody who asks what was known at a time gets what is known now."""
    for n in range(2):
        store.publish("mena", {"n": n}, ts=TS + n)
    for as_of in (f"{TS}", "2026-01-31T06:00:00Z"):
        assert site.get(f"/api/datasets/mena/latest?as_of={as_of}").json == {"n": 0}
    assert site.get(f"/api/datasets/mena/latest?as_of={TS - 1}").status == 404


def test_a_member_of_an_earlier_group(store: swapstore.Store, site: Site) -> None:
    """What a member was in an earlier version is what it is now."""
    for n in range(2):
        store.publish_group("grid", {"EG": [n], **({"IL": [n]} if n else {})})
    path = "/api/datasets/grid/members"
    assert (site.get(f"{path}/EG").json, site.get(f"{path}/EG?version=1").json) == ([1], [0])
    assert (site.get(f"{path}/IL").json, site.get(f"{path}/IL?version=1").status) == ([1], 404)
    store.publish("mena", 1)
    assert site.get("/api/datasets/mena/members/EG?version=1").status == 404
