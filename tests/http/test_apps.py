"""What clients of the documented web services get, over real HTTP."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import swapstore
from swapstore import Store
from tests.http.conftest import Serving, Site
from tests.support.valkey import Server

TEXT = b'{ "kept": 1.00, "text": "\xc3\xa9" }'


@pytest.fixture
def store(real_url: str) -> Iterator[Store]:
    """The producer's store."""
    with swapstore.connect(real_url) as made:
        yield made


@pytest.fixture
def site(real_url: str, store: Store, serving: Serving) -> Iterator[Site]:
    """An app on the same store, with one dataset."""
    store.publish("eu/prices", msgspec.Raw(TEXT))
    with serving(real_url) as running:
        yield running


def tag(store: Store) -> str:
    snapshot = store.read_latest("eu/prices")
    assert snapshot is not None
    return f'"{snapshot.etag}"'


def test_the_payload_is_handed_through_byte_for_byte(site: Site, store: Store) -> None:
    """A client that checks a digest or a signature gets other bytes than were published."""
    answer = site.get("/datasets/eu/prices")
    assert (answer.status, answer.body) == (200, TEXT)
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["ETag"] == tag(store)
    image = bytes(range(256)) * 1000
    store.publish("image", image, codec="bytes")
    answer = site.get("/datasets/image")
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(image).digest()
    assert answer.headers["Content-Type"] == "application/octet-stream"


def test_a_client_with_the_current_version_gets_no_body(site: Site, store: Store) -> None:
    """Every client fetches megabytes once a minute, although nothing is new."""
    known = site.get("/datasets/eu/prices").headers["ETag"]
    answer = site.get("/datasets/eu/prices", If_None_Match=known)
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["ETag"] == known
    assert answer.headers["Cache-Control"] == "no-cache"


def test_a_new_version_is_sent(site: Site, store: Store) -> None:
    """A client keeps its old version permanently."""
    known = site.get("/datasets/eu/prices").headers["ETag"]
    store.publish("eu/prices", {"new": True})
    answer = site.get("/datasets/eu/prices", If_None_Match=known)
    assert (answer.status, answer.body) == (200, b'{"new":true}')
    assert answer.headers["ETag"] == tag(store) != known


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("{tag}", 304),
        ("W/{tag}", 304),
        ('"other", W/"another" ,  {tag}', 304),
        ("*", 304),
        ('"other"', 200),
        ('W/"other"', 200),
        ("", 200),
        ('"{bare}.more"', 200),
        ('"x{bare}"', 200),
    ],
)
def test_weak_etags_match(site: Site, store: Store, given: str, status: int) -> None:
    """Behind a proxy that compresses, and so weakens etags, every response has its full body."""
    known = tag(store)
    header = given.format(tag=known, bare=known.strip('"'))
    assert site.get("/datasets/eu/prices", If_None_Match=header).status == status


def test_head_says_the_same_without_the_body(site: Site, store: Store) -> None:
    """A monitor that sends HEAD gets an error, or another etag."""
    answer = site.get("/datasets/eu/prices", "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(TEXT))
    assert answer.headers["ETag"] == tag(store)
    assert site.get("/datasets/eu/prices", "HEAD", If_None_Match=tag(store)).status == 304


def test_an_unpublished_dataset_is_not_found(site: Site, store: Store) -> None:
    """A client takes a misspelt name for a server that is down, and retries forever."""
    for name in ("nowhere", "eu", ".hidden", "a%20b", "x" * 300):
        answer = site.get(f"/datasets/{name}")
        assert (answer.status, answer.body) == (404, b"")
    assert site.get("/datasets/eu/prices").status == 200


def test_a_store_that_is_down_is_not_nothing_published(tmp_path: Path, serving: Serving) -> None:
    """Clients drop what they have while the server restarts, as if it had been removed."""
    server = Server(tmp_path / "server").start()
    try:
        with swapstore.connect(server.url) as producer:
            producer.publish("mena", 1)
        with serving(server.url) as site:
            known = site.get("/datasets/mena").headers["ETag"]
            server.stop()
            for headers in ({}, {"If_None_Match": known}):
                answer = site.get("/datasets/mena", **headers)
                assert (answer.status, answer.body) == (503, b"")
                assert answer.headers["Retry-After"] == "5"
    finally:
        server.stop()


@pytest.mark.every_store
def test_damaged_data_is_an_error_of_the_server(site: Site, store: Store) -> None:
    """Altered bytes are sent as data, or look like nothing published."""
    row = store.status("eu/prices").serving  # type: ignore[union-attr]
    key = store._context.keys.id("eu/prices", row.id)
    store._driver.execute([swapstore.commands.Write(key, b"nonsense")])
    assert site.get("/datasets/eu/prices").status == 500


@pytest.mark.every_store
def test_many_clients_at_once_see_whole_versions(site: Site, store: Store) -> None:
    """Under load a client gets one version's etag with another version's bytes."""
    stop, wrong = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            answer = site.get("/datasets/eu/prices")
            version = int(answer.headers["ETag"].split(".")[1])
            whole = answer.body == TEXT if version == 1 else answer.body == b'{"n":%d}' % version
            if answer.status != 200 or not whole:
                wrong.append(answer)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for version in range(2, 22):
        store.publish("eu/prices", {"n": version})
    stop.set()
    for client in clients:
        client.join()
    assert wrong == []


def test_members_of_a_group(site: Site, store: Store) -> None:
    """A page gets the table of the members, or one country's numbers for another's."""
    store.publish_group("portwatch", {"EG": msgspec.Raw(TEXT), "SG": 7})
    one = site.get("/datasets/portwatch?member=EG")
    assert (one.status, one.body) == (200, TEXT)
    whole = site.get("/datasets/portwatch")
    assert (whole.status, msgspec.json.decode(whole.body)) == (
        200,
        {"EG": msgspec.json.decode(TEXT), "SG": 7},
    )
    assert whole.headers["Content-Type"].startswith("application/json")
    for path in ("portwatch?member=XX", "portwatch?member=a:b", "eu/prices?member=EG", "nowhere?member=EG"):
        assert site.get(f"/datasets/{path}").status == 404, path
    store.publish_group("tiles", {"t": b"\xff"}, codec="bytes")
    tile = site.get("/datasets/tiles?member=t")
    assert (tile.status, tile.body, tile.headers["Content-Type"]) == (
        200,
        b"\xff",
        "application/octet-stream",
    )
    assert site.get("/datasets/tiles").status == 404
