"""What clients get over real HTTP, from the documented apps and from those of the package."""

from __future__ import annotations

import hashlib
import http.client
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import urllib3

import swapstore
from swapstore import Store
from swapstore.cache import Cache
from swapstore.format import encodings
from swapstore.http import frames
from tests.http.conftest import APPS, Serving, asgi_app
from tests.support.valkey import Server, free_port
from tests.support.web import START_S, Answer, Site, running_asgi

TEXT = b'{ "kept": 1.00, "text": "\xc3\xa9" }'
LARGE = msgspec.json.encode([{"port": n % 7, "calls": n, "text": "calm"} for n in range(20_000)])


@pytest.fixture(autouse=True)
def published(store: Store) -> None:
    """One dataset."""
    store.publish("eu/prices", msgspec.Raw(TEXT))


def tag(payload: bytes) -> str:
    return f'"{hashlib.sha256(payload).hexdigest()}"'


def is_whole(answer: Answer) -> bool:
    return answer.status == 200 and answer.headers["ETag"].startswith(tag(answer.body)[:-1])


def decoded(site: Site, path: str, **headers: str) -> Answer:
    """Ask with a client that takes zstd, and decodes what it gets."""
    with urllib3.PoolManager() as client:
        given = {name.replace("_", "-"): text for name, text in headers.items()}
        asked = {"Accept-Encoding": "gzip, zstd", **given}
        got = client.request("GET", f"http://127.0.0.1:{site.port}{path}", headers=asked)
        return Answer(got.status, got.headers, got.data)  # type: ignore[arg-type]


def test_the_payload_is_handed_through_byte_for_byte(site: Site, store: Store) -> None:
    """A client that checks a digest or a signature gets other bytes than were published."""
    answer = site.get("/datasets/eu/prices")
    assert (answer.status, answer.body) == (200, TEXT)
    assert answer.headers.get_all("Content-Type") == ["application/json"]
    assert answer.headers.get_all("Content-Length") == [str(len(TEXT))]
    assert answer.headers["ETag"] == tag(TEXT)
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in answer.headers
    image = bytes(range(256)) * 1000
    store.publish("image", image, codec="bytes")
    answer = site.get("/datasets/image")
    assert answer.body == image
    assert answer.headers["Content-Type"] == "application/octet-stream"


def test_a_client_with_the_current_version_gets_no_body(site: Site) -> None:
    """Every client fetches megabytes once a minute, although nothing is new."""
    known = site.get("/datasets/eu/prices").headers["ETag"]
    for given in (known, f"W/{known}", f'"other", {known}'):
        answer = site.get("/datasets/eu/prices", If_None_Match=given)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["ETag"] == known
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert not {"Content-Type", "Content-Encoding"} & set(answer.headers)


def test_a_new_version_is_sent(site: Site, store: Store) -> None:
    """A client keeps its old version permanently."""
    known = site.get("/datasets/eu/prices").headers["ETag"]
    store.publish("eu/prices", {"new": True})
    answer = site.get("/datasets/eu/prices", If_None_Match=known)
    assert (answer.status, answer.body) == (200, b'{"new":true}')
    assert answer.headers["ETag"] == tag(answer.body) != known


def test_after_a_rollback_a_client_gets_the_old_content(site: Site, store: Store) -> None:
    """A client keeps what was rolled back, because it has a later date than what is served."""
    first = site.get("/datasets/eu/prices").headers["ETag"]
    store.publish("eu/prices", {"wrong": True})
    wrong = site.get("/datasets/eu/prices").headers["ETag"]
    store.rollback("eu/prices", version=1)
    later = "Fri, 31 Dec 9999 23:59:59 GMT"
    assert site.get("/datasets/eu/prices", If_None_Match=wrong, If_Modified_Since=later).body == TEXT
    assert site.get("/datasets/eu/prices", If_Modified_Since=later).body == TEXT
    assert site.get("/datasets/eu/prices", If_None_Match=first).status == 304
    store.confirm("eu/prices")
    assert site.get("/datasets/eu/prices", If_None_Match=first).status == 304


@pytest.mark.parametrize("compression", ["none", "zstd", "delta"])
def test_a_client_that_takes_zstd_decodes_what_was_published(
    site: Site, real_url: str, compression: str
) -> None:
    """A browser shows garbage, or is sent ten times as many bytes as it needs."""
    with swapstore.connect(real_url, compression=compression) as producer:  # type: ignore[arg-type]
        producer.publish("large", msgspec.Raw(LARGE))
        changed = LARGE.replace(b"calm", b"tense", 1)
        producer.publish("large", msgspec.Raw(changed))
    answer = decoded(site, "/datasets/large")
    assert (answer.status, answer.body) == (200, changed)
    assert answer.headers["Content-Encoding"] == "zstd"
    assert int(answer.headers["Content-Length"]) * 5 < len(changed)
    etag = answer.headers["ETag"]
    assert etag.startswith(tag(changed)[:-1])
    assert etag != tag(changed)
    assert decoded(site, "/datasets/large", If_None_Match=etag).status == 304
    plain = site.get("/datasets/large", If_None_Match=etag)
    assert (plain.status, plain.body, plain.headers["ETag"]) == (200, changed, tag(changed))


def test_head_says_the_same_without_the_body(site: Site, store: Store) -> None:
    """A monitor that sends HEAD gets an error, or another etag."""
    store.publish("large", msgspec.Raw(LARGE))
    for path in ("/datasets/eu/prices", "/datasets/large", "/datasets/nowhere"):
        for encoding in ("identity", "zstd"):
            whole = site.get(path, Accept_Encoding=encoding)
            answer = site.get(path, "HEAD", Accept_Encoding=encoding)
            assert (answer.status, answer.body) == (whole.status, b"")
            for name in ("Content-Length", "Content-Type", "ETag", "Content-Encoding", "Cache-Control"):
                assert answer.headers.get_all(name) == whole.headers.get_all(name), name
    assert site.get("/datasets/eu/prices", "HEAD", If_None_Match=tag(TEXT)).status == 304


def test_an_unpublished_dataset_is_not_found(site: Site) -> None:
    """A client takes a misspelt name for a server that is down, and retries forever."""
    for name in ("nowhere", "eu", ".hidden", "a%20b", "x" * 300, "%ff", "%00", "%F0%9F%92%A9", "eu/prices/"):
        answer = site.get(f"/datasets/{name}")
        assert answer.status == 404, name
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert msgspec.json.decode(answer.body)["status"] == 404
    assert site.get("/datasets/eu/prices").status == 200


def test_headers_that_nobody_should_send(site: Site) -> None:
    """A broken client, or somebody who probes, fills the log with errors of the server."""
    garbage = ["", '"', "W/", '","', "*, *", '"\xe9"', ",;=", "q=1", "zstd;q=nan", "zstd;q=1e999", "x" * 4000]
    for name in ("If_None_Match", "If_Modified_Since", "Accept_Encoding"):
        for given in garbage:
            answer = site.get("/datasets/eu/prices", **{name: given})
            assert (answer.status, answer.body) == (200, TEXT), (name, given)


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
                assert answer.status == 503
                assert answer.headers["Retry-After"] == "5"
                assert server.url.split("/")[2].encode() not in answer.body
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
    stop = threading.Event()
    wrong: list[Answer] = []

    def ask() -> None:
        while not stop.is_set():
            both = (site.get("/datasets/eu/prices"), decoded(site, "/datasets/eu/prices"))
            wrong.extend(each for each in both if not is_whole(each))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for version in range(2, 22):
        store.publish("eu/prices", {"n": version, "text": "calm " * (100 * version)})
    stop.set()
    for client in clients:
        client.join()
    assert wrong == []


# --- the apps of the package -------------------------------------------------------------------------

of_the_package = pytest.mark.parametrize("serving", APPS, indirect=True, ids=lambda made: made.__name__)


@of_the_package
def test_members_of_a_group(site: Site, store: Store) -> None:
    """A page gets the table of the members, or one country's numbers for another's."""
    store.publish_group("portwatch", {"EG": msgspec.Raw(TEXT), "SG": 7})
    one = site.get("/datasets/portwatch?member=EG")
    assert (one.status, one.body, one.headers["ETag"]) == (200, TEXT, tag(TEXT))
    whole = site.get("/datasets/portwatch")
    assert (whole.status, whole.body) == (200, b'{"EG":%b,"SG":7}' % TEXT)
    assert whole.headers["Content-Type"] == "application/json"
    assert site.get("/datasets/portwatch", If_None_Match=whole.headers["ETag"]).status == 304
    store.publish_group("portwatch", {"EG": msgspec.Raw(TEXT), "SG": 8})
    assert site.get("/datasets/portwatch", If_None_Match=whole.headers["ETag"]).status == 200
    assert site.get("/datasets/portwatch?member=EG", If_None_Match=one.headers["ETag"]).status == 304
    for path in ("portwatch?member=XX", "portwatch?member=a:b", "eu/prices?member=EG", "nowhere?member=EG"):
        assert site.get(f"/datasets/{path}").status == 404, path
    store.publish_group("tiles", {"t": b"\xff"}, codec="bytes")
    tile = site.get("/datasets/tiles?member=t")
    assert (tile.body, tile.headers["Content-Type"]) == (b"\xff", "application/octet-stream")
    assert site.get("/datasets/tiles").status == 404


@of_the_package
def test_other_methods_are_refused(site: Site) -> None:
    """A client that posts is told that it succeeded."""
    answer = site.get("/datasets/eu/prices", "POST")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


@of_the_package
@pytest.mark.parametrize("query", ["", "?", "?member=", "?a=b;c", "?%ff=%ff"])
def test_queries_that_name_no_member(site: Site, query: str) -> None:
    """A link with a tracking parameter is an error."""
    assert site.get(f"/datasets/eu/prices{query}").status == 200


@pytest.mark.server
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="POSIX signals")
def test_a_slow_store_does_not_hold_up_the_event_loop(tmp_path: Path, real_url: str) -> None:
    """While one client waits for a server that does not answer, nobody else is answered."""
    with Server(tmp_path / "server") as server, swapstore.connect(server.url) as producer:
        producer.publish("mena", 1)
        with asgi_app(server.url) as site:
            assert site.get("/datasets/mena").status == 200
            assert server._process is not None
            pid = server._process.pid
            os.kill(pid, signal.SIGSTOP)
            waiting = http.client.HTTPConnection("127.0.0.1", site.port, timeout=START_S)
            try:
                waiting.request("GET", "/datasets/mena")
                assert site.get("/elsewhere").status == 404
                assert select.select([waiting.sock], [], [], 0)[0] == []
            finally:
                os.kill(pid, signal.SIGCONT)
            assert waiting.getresponse().status == 200
            waiting.close()


def test_large_payloads_are_compressed_beside_the_event_loop(
    store: Store, real_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each publish of some megabytes, all clients of a process wait while it compresses."""
    store.publish("large", msgspec.Raw(LARGE))
    began, go_on = threading.Event(), threading.Event()
    compress = encodings.encoded_as

    def compressing(*given: Any) -> encodings.Encoded:
        began.set()
        assert go_on.wait(START_S)
        return compress(*given)

    monkeypatch.setattr(encodings, "encoded_as", compressing)
    monkeypatch.setattr(frames, "_kept", Cache(1 << 20))
    got = []
    with asgi_app(real_url) as site:
        client = threading.Thread(target=lambda: got.append(decoded(site, "/datasets/large")))
        client.start()
        assert began.wait(START_S)
        assert site.get("/datasets/large").body == LARGE
        go_on.set()
        client.join()
    assert got[0].body == LARGE
    assert got[0].headers["Content-Encoding"] == "zstd"


def test_an_app_without_a_mount(tmp_path: Path) -> None:
    """`uvicorn module:app` answers 404 to everything, or does not start."""
    url = f"sqlite:///{tmp_path}/app.db"  # no connection is left when the event loop of the server ends
    with swapstore.connect(url) as producer:
        producer.publish("eu/prices", msgspec.Raw(TEXT))
    app = swapstore.http.asgi_app(swapstore.aio.connect(url), cache_control="max-age=60")
    with running_asgi(app, lifespan="auto") as site:
        answer = site.get("/eu/prices")
        assert (answer.body, answer.headers["Cache-Control"]) == (TEXT, "max-age=60")
        assert site.get("/").status == 404


@pytest.mark.slow
def test_forked_workers_of_gunicorn(store: Store, real_url: str, tmp_path: Path) -> None:
    """A worker that was forked after the app was loaded hangs, or shares a connection with another one."""
    store.publish("large", msgspec.Raw(LARGE))
    (tmp_path / "served.py").write_text(
        "import swapstore, swapstore.http\n"
        "with swapstore.connect() as store:\n"
        "    swapstore.http.response(store.read_latest('large'), {'Accept-Encoding': 'zstd'})\n"
        "app = swapstore.http.wsgi_app(swapstore.connect())\n",
        "utf-8",
    )
    site = Site(free_port())
    command = ["-m", "gunicorn", "--preload", "--workers", "2", "--threads", "2", "--log-level", "error"]
    server = subprocess.Popen(
        [sys.executable, *command, "--bind", f"127.0.0.1:{site.port}", "served:app"],
        cwd=tmp_path,
        env={**os.environ, "SWAPSTORE_URL": real_url},
    )
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                assert site.get("/eu/prices").body == TEXT
                break
            except ConnectionRefusedError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        for n in range(20):
            store.publish("eu/prices", {"n": n})
            assert site.get("/eu/prices").body == b'{"n":%d}' % n
            assert decoded(site, "/large").body == LARGE
        assert site.get("/large", "HEAD", Accept_Encoding="zstd").body == b""
    finally:
        server.terminate()
        assert server.wait(START_S) == 0
