"""What readers ask of the API."""

from __future__ import annotations

import pytest

import swapstore
import swapstore.aio
import swapstore.http
from tests.support.web import Site


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
