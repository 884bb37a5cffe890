"""What readers ask of the API."""

from __future__ import annotations

import swapstore
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
