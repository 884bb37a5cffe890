"""What producers and operators send to the API, from well-behaved clients and from others."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

import swapstore
import swapstore.aio
import swapstore.http
from swapstore import codecs, errors
from swapstore.serve import bodies, problems
from swapstore.serve.api import writes
from swapstore.store import AsyncStore
from tests.serve.conftest import TOKEN, call, served
from tests.support.deployment import until
from tests.support.proxy import Proxy
from tests.support.valkey import Server, free_port
from tests.support.web import Answer, Site

BEARER = {"Authorization": f"Bearer {TOKEN}"}
JSON = {**BEARER, "Content-Type": "application/json"}
BYTES = {**BEARER, "Content-Type": "application/octet-stream"}
DATASET = "/api/datasets/mena"


def put(site: Site, body: bytes = b"1", headers: Mapping[str, str] = JSON, **more: Any) -> Answer:
    return site.send("PUT", DATASET, body, **headers, **more)


def versions(store: swapstore.Store) -> list[int]:
    return [row.version for row in store.history("mena")]


# --- publish -------------------------------------------------------------------------------------------


def test_the_body_is_published_byte_for_byte(site: Site, store: swapstore.Store) -> None:
    """Readers get what a server wrote anew, with another digest than the producer's."""
    text = b' {"b": 1.0,\n "a": [ ]} '
    answer = put(
        site,
        text,
        Idempotency_Key="run-1",
        Swapstore_Ts="2026-01-31T18:00:00Z",
        Swapstore_Label="run=7, city=Z%C3%BCrich%2C%20Kreis%201",
        Swapstore_Dedupe_Key="source-1",
    )

    assert answer.status == 201
    assert answer.headers["Swapstore-Version"] == "1"
    assert answer.json["id"] == "run-1"
    assert answer.json["created"]
    assert site.get(answer.headers["Location"]).body == text
    row = next(store.history("mena"))
    assert (row.ts, row.dedupe_key) == (1769882400000, "source-1")
    assert row.labels == {"run": "7", "city": "Zürich, Kreis 1"}


def test_bytes_are_bytes(site: Site, store: swapstore.Store) -> None:
    """A payload that is not JSON is refused, or is said to be JSON."""
    assert put(site, b"\x00\xff", BYTES).status == 201
    found = store.read_latest("mena")
    assert found is not None
    assert (found.codec, found.raw) == ("bytes", b"\x00\xff")


@pytest.mark.parametrize("headers", [JSON, BYTES])
def test_ten_megabytes(site: Site, headers: dict[str, str], store: swapstore.Store) -> None:
    """A large snapshot cannot be published over HTTP."""
    body = json.dumps("x" * 10_000_000).encode()
    assert put(site, body, headers).status == 201
    found = store.read_latest("mena")
    assert found is not None
    assert found.raw == body


def test_a_large_text_is_checked_once_and_not_by_the_event_loop(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All other clients wait while the JSON of one is checked, which takes seconds for 10 MB."""
    seen, parsed = [], codecs._parsed

    def noted(text: bytes) -> Any:
        seen.append(threading.get_ident())
        return parsed(text)

    monkeypatch.setattr(codecs, "_parsed", noted)
    put(site, b"1")
    put(site, json.dumps("x" * writes.QUICK_BYTES).encode())

    of_loop, of_another = seen
    assert of_loop != of_another


BAD_HEADERS: list[tuple[dict[str, str], int, str]] = [
    ({"Content-Type": "text/plain"}, 415, "application/json, application/octet-stream"),
    ({"Content-Type": ""}, 415, "application/octet-stream"),
    ({"Content-Encoding": "gzip"}, 415, "without Content-Encoding"),
    ({"Idempotency-Key": "a b"}, 422, "id"),
    ({"Idempotency-Key": '"'}, 422, "id"),
    ({"Swapstore-Ts": "yesterday"}, 422, "RFC 3339"),
    ({"Swapstore-Ts": "2026-01-31T18:00:00"}, 422, "timezone"),
    ({"Swapstore-Ts": "1769882400"}, 422, "seconds, perhaps?"),
    ({"Swapstore-Label": "run"}, 422, "key=value"),
    ({"Swapstore-Label": "run=%zz"}, 422, "percent-encoded"),
    ({"Swapstore-Label": "run=%ff"}, 422, "UTF-8"),
    ({"Swapstore-Label": "run=\xfc"}, 422, "percent-encoded"),
    ({"Swapstore-Label": "run=1,run=2"}, 422, "twice"),
    ({"Swapstore-Dedupe-Key": ""}, 422, "dedupe_key"),
    ({"If-Match": "7"}, 422, "in quotes"),
    ({"If-Match": 'W/"abc"'}, 422, "strong"),
    ({"If-Match": "*"}, 422, "in quotes"),
    ({"If-Match": '"a", "b"'}, 422, "in quotes"),
    ({"If-None-Match": '"abc"'}, 422, "can only be *"),
    ({"If-Match": '"1"', "If-None-Match": "*"}, 422, "not both"),
]


def test_bad_headers_publish_nothing(site: Site, store: swapstore.Store) -> None:
    """A condition or a label that cannot be read is ignored, and the snapshot goes out without it."""
    for headers, status, says in BAD_HEADERS:
        answer = put(site, b"1", {**JSON, **headers})
        assert (answer.status, answer.json["published"]) == (status, False), headers
        assert says in answer.json["detail"], headers
        assert store.status("mena") is None, headers


def test_a_header_that_is_there_twice_is_refused(site: Site, store: swapstore.Store) -> None:
    """One of two conditions is ignored: which one depends on the proxies on the way."""
    lines = [f"PUT {DATASET} HTTP/1.1", "Host: x", "Content-Length: 1", 'If-Match: "0"', 'If-Match: "9"']
    answer = raw(site, [*lines, *(f"{name}: {text}" for name, text in JSON.items())], b"1")
    assert b" 422 " in answer
    assert b"given 2 times" in answer
    assert store.status("mena") is None


def test_labels_may_be_headers_of_their_own(site: Site, store: swapstore.Store) -> None:
    """Of several labels, only the first is stored."""
    lines = [f"PUT {DATASET} HTTP/1.1", "Host: x", "Content-Length: 1", "Connection: close"]
    lines += ["Swapstore-Label: a=1", "Swapstore-Label: b=2"]
    raw(site, [*lines, *(f"{name}: {text}" for name, text in JSON.items())], b"1")
    assert next(store.history("mena")).labels == {"a": "1", "b": "2"}


def test_text_that_is_not_json_is_refused_with_the_place(site: Site, store: swapstore.Store) -> None:
    """Readers get what they cannot decode, or the producer has to look for the fault."""
    answer = put(site, b'{"a": 1,\n "b": NaN}')
    assert (answer.status, answer.json["published"]) == (422, False)
    assert "line 2, column 7" in answer.json["detail"]
    assert store.status("mena") is None


def test_a_name_that_is_not_allowed_is_refused(site: Site) -> None:
    """A name of a dataset adds a header to the response, or leaves its place."""
    for name in ("a%00b", "%2e%2e%2fetc", "a%0dSet-Cookie:%20x=1", "%ff", "a" * 200):
        answer = site.send("PUT", f"/api/datasets/{name}", b"1", **JSON)
        assert (answer.status, answer.json["published"]) == (422, False), name
        assert answer.headers["Set-Cookie"] is None, name


# --- conditions ----------------------------------------------------------------------------------------


def test_a_version_is_a_condition(site: Site) -> None:
    """A producer overwrites what another one has published since it read."""
    assert put(site, b"1", If_None_Match="*").status == 201
    assert put(site, b"2", If_Match='"1"').status == 201
    for condition in ({"If-Match": '"1"'}, {"If-None-Match": "*"}):
        answer = put(site, b"3", {**JSON, **condition})
        assert (answer.status, answer.json["title"]) == (412, "Conflict")
        assert (answer.json["published"], answer.json["current_version"]) == (False, 2)


@pytest.mark.parametrize("encoding", ["identity", "zstd"])
def test_an_entity_tag_is_a_condition(site: Site, encoding: str) -> None:
    """Of read, change and publish, the last step takes what the first one returned."""
    put(site, json.dumps("x" * 1000).encode())
    answer = site.get(f"{DATASET}/latest", Accept_Encoding=encoding)
    tag = answer.headers["ETag"]
    assert ("zstd" in tag) == (encoding == "zstd")

    assert put(site, b"2", If_Match=tag).status == 201
    refused = put(site, b"3", If_Match=tag)
    assert (refused.status, refused.json["published"], refused.json["current_version"]) == (412, False, 2)


def test_an_entity_tag_of_nothing(site: Site, store: swapstore.Store) -> None:
    """A dataset is published anew after it was dropped."""
    answer = put(site, b"1", If_Match=f'"{"0" * 40}a"')
    assert (answer.status, answer.json["current_version"]) == (412, 0)
    assert store.status("mena") is None


def test_a_retry_with_an_entity_tag_finds_its_first_attempt(site: Site, store: swapstore.Store) -> None:
    """A retry whose reply was lost is told that another producer has published, which is itself."""
    put(site, b"1")
    tag = site.get(f"{DATASET}/latest").headers["ETag"]
    first = put(site, b"2", If_Match=tag, Idempotency_Key="run-2")
    again = put(site, b"2", If_Match=tag, Idempotency_Key="run-2")

    assert (first.status, again.status) == (201, 200)
    assert again.json["version"] == first.json["version"]
    assert versions(store) == [2, 1]


# --- retries -------------------------------------------------------------------------------------------


def test_the_same_key_at_once_is_one_commit(site: Site, store: swapstore.Store) -> None:
    """Two attempts of one client, whose first one was only slow, are two snapshots."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: put(site, b"[1]", Idempotency_Key="run-1"), range(4)))

    assert sorted(each.status for each in answers) == [200, 200, 200, 201]
    assert versions(store) == [1]


def test_a_retry_after_a_lost_reply_ends_in_one_commit(site: Site, store: swapstore.Store) -> None:
    """A client that does not know whether it has published does so twice."""
    with Proxy(site.port) as proxy:
        proxy.lose_reply_of(b"run-1")
        with pytest.raises((OSError, http.client.HTTPException)):
            put(Site(proxy.port), b"1", Idempotency_Key="run-1")
        assert proxy.lost == 1
        answer = put(Site(proxy.port), b"1", Idempotency_Key="run-1")

    assert (answer.status, answer.json["created"]) == (200, False)
    assert versions(store) == [1]


def test_a_key_names_one_content(site: Site) -> None:
    """A producer that uses a key twice takes what it did not publish for published."""
    put(site, b"1", Idempotency_Key="run-1")
    answer = put(site, b"2", Idempotency_Key='"run-1"')
    assert (answer.status, answer.json["title"], answer.json["published"]) == (409, "IdConflict", False)


def test_what_was_published_by_another_key_is_found(site: Site) -> None:
    """A dedupe key that a header gives is not used."""
    put(site, b"1", Swapstore_Dedupe_Key="source-1")
    assert put(site, b"2", Swapstore_Dedupe_Key="source-1").status == 200


# --- what the store says -------------------------------------------------------------------------------


def test_a_snapshot_that_retention_hides_at_once(real_url: str) -> None:
    """A producer takes a backfill that nobody can read for published."""
    options = {"retention": swapstore.Retention(max_age=timedelta(days=1))}
    with served(real_url, connecting=options, allow_writes=True, token=TOKEN) as site:
        put(site, b"1")
        answer = put(site, b"2", Swapstore_Ts="2020-01-01T00:00:00Z")
    assert (answer.status, answer.json["title"], answer.json["published"]) == (409, "TooOld", False)


def test_a_validator_of_the_server_refuses(real_url: str) -> None:
    """What producers in Python may not publish goes in over HTTP."""
    options = {"validators": [lambda candidate, _: None if candidate.value else "it is empty"]}
    with served(real_url, connecting=options, allow_writes=True, token=TOKEN) as site:
        answer = put(site, b"[]")
        assert (answer.status, answer.json["title"], answer.json["published"]) == (422, "Rejected", False)
        assert "it is empty" in answer.json["detail"]


def test_a_server_that_is_down() -> None:
    """A producer does not learn that it can try again, and that nothing was published."""
    with served(f"redis://127.0.0.1:{free_port()}/0", allow_writes=True, token=TOKEN) as site:
        for condition in ({}, {"If-Match": '"abc"'}):
            answer = put(site, b"1", {**JSON, **condition})
            assert (answer.status, answer.json["published"]) == (503, False)
            assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.server
def test_too_few_replicas(valkey: Server) -> None:
    """A producer takes what is published for what is not, and gives up or publishes it anew."""
    options = {"durability": swapstore.Durability(replicas=1, timeout=0.1)}
    with served(valkey.url, connecting=options, allow_writes=True, token=TOKEN) as site:
        answer = put(site, b"1", Idempotency_Key="run-1")
        assert (answer.status, answer.json["published"]) == (503, True)
        assert (answer.json["id"], answer.json["version"]) == ("run-1", 1)
        assert answer.headers["Retry-After"]


def every(kind: type[errors.SwapstoreError]) -> Iterator[type[errors.SwapstoreError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from every(each)


STATUSES = {
    "Conflict": 412,
    "IdConflict": 409,
    "TooOld": 409,
    "Refused": 409,
    "Rejected": 422,
    "InvalidInput": 422,
    "PayloadTooLarge": 413,
    "NotFound": 404,
    "UnderReplicated": 503,
    "TooStale": 503,
    "StoreClosed": 500,
}


@pytest.mark.parametrize(
    "kind", [each for each in every(errors.SwapstoreError) if "swapstore" in each.__module__]
)
def test_each_error_has_a_status(kind: type[errors.SwapstoreError]) -> None:
    """A client does not try again what it should, or tries again what cannot succeed."""
    error = kind.__new__(kind, "it failed")
    error.__dict__.update({"dataset": None, "id": "run-1", "current_version": 1, "retry_after_s": 7.5})
    error.__dict__["commit"] = swapstore.Commit(
        dataset="mena", version=1, etag="", id="run-1", ts=0, sha256="", size=1, created=True, is_latest=True
    )
    answer = problems.of_error(error, in_full=True)
    expected = 503 if issubclass(kind, errors.Unavailable) else STATUSES.get(kind.__name__, 500)

    assert answer.status_code == expected
    assert ("Retry-After" in answer.headers) == (expected == 503)
    if issubclass(kind, errors.OutcomeUnknown):
        assert json.loads(bytes(answer.body))["id"] == "run-1"
    if kind is errors.Throttled:
        assert answer.headers["Retry-After"] == "8"


# --- slow and hostile clients --------------------------------------------------------------------------


def raw(site: Site, lines: list[str], body: bytes = b"") -> bytes:
    """Send a request as it is, and return what comes until the server closes or the response is whole."""
    with opened(site, lines, body) as connection:
        connection.settimeout(20)
        answer = b""
        while b"\r\n\r\n" not in answer or b"}" not in answer.partition(b"\r\n\r\n")[2]:
            got = connection.recv(65536)
            if not got:
                break
            answer += got
        return answer


@contextmanager
def opened(site: Site, lines: list[str], body: bytes = b"") -> Iterator[socket.socket]:
    """Send the beginning of a request."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        yield connection


def head(*more: str, size: int | None = None) -> list[str]:
    lines = [
        f"PUT {DATASET} HTTP/1.1",
        "Host: x",
        *(f"{name}: {text}" for name, text in BYTES.items()),
        *more,
    ]
    return lines if size is None else [*lines, f"Content-Length: {size}"]


CHUNKED = "Transfer-Encoding: chunked"


def test_a_body_in_chunks(site: Site, store: swapstore.Store) -> None:
    """A client that streams cannot publish."""
    assert b" 201 " in raw(site, head(CHUNKED), b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    found = store.read_latest("mena")
    assert found is not None
    assert found.raw == b"abcde"


def test_a_body_that_is_too_large(real_url: str, store: swapstore.Store) -> None:
    """A client fills the memory of the server."""
    with served(real_url, allow_writes=True, token=TOKEN, max_body=10) as site:
        announced = raw(site, head("Expect: 100-continue", size=11))
        assert announced.startswith(b"HTTP/1.1 413 ")  # before anything was sent
        streamed = raw(site, head(CHUNKED), b"8\r\nabcdefgh\r\n8\r\nabcdefgh\r\n")
        assert b" 413 " in streamed
        assert b'"published":false' in streamed
        assert put(site, b"x" * 10, BYTES).status == 201
    assert versions(store) == [1]


def test_a_body_that_does_not_arrive(
    real_url: str, store: swapstore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that sends nothing keeps a connection, and room for its body, for good."""
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.2)
    with served(real_url, allow_writes=True, token=TOKEN, max_body=10) as site:
        for lines, body in ((head(size=10), b"x" * 9), (head(CHUNKED), b"9\r\nxxxxxxxxx\r\n")):
            for _ in range(3):  # each gives its room back
                answer = raw(site, lines, body)
                assert b" 408 " in answer
                assert b'"published":false' in answer
                assert b"connection: close" in answer.lower()
    assert store.status("mena") is None


def arriving(sizes: list[int], pause_s: float) -> Request:
    """A request whose body arrives in parts, with pauses between them."""
    rest = list(sizes)

    async def receive() -> dict[str, Any]:
        if len(rest) < len(sizes):
            await asyncio.sleep(pause_s)
        size = rest.pop(0)
        return {"type": "http.request", "body": b"x" * size, "more_body": bool(rest)}

    return Request({"type": "http", "method": "PUT", "headers": []}, receive)


def test_a_body_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends a byte now and then keeps its room for days."""
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.2)
    with pytest.raises(HTTPException) as refused:
        asyncio.run(bodies.read(arriving([1] * 100, 0.02), 1000))
    assert refused.value.status_code == 408


def test_a_large_body_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer behind a slow line cannot publish what is large."""
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.2)
    monkeypatch.setattr(bodies, "SLOWEST", 10)
    assert len(asyncio.run(bodies.read(arriving([1000] * 5, 0.1), 5000))) == 5000


def test_a_body_takes_room_until_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is slow, many clients at once fill the memory of the server."""
    go_on, both = asyncio.Event(), asyncio.Barrier(3)
    publish = AsyncStore.publish

    async def slow(self: AsyncStore, *arguments: Any, **options: Any) -> Any:
        if not go_on.is_set():
            await both.wait()
        await go_on.wait()
        return await publish(self, *arguments, **options)

    async def run() -> None:
        async with swapstore.aio.connect(f"sqlite:///{tmp_path}/store.db") as store:
            app = swapstore.http.app(store, allow_writes=True, token=TOKEN, max_body=100)

            async def put_100(name: str) -> int:
                return (await call(app, "PUT", f"/api/datasets/{name}", b"x" * 100, BYTES))[0]

            under_way = [asyncio.ensure_future(put_100(name)) for name in "ab"]
            await both.wait()
            assert await put_100("c") == 503
            go_on.set()
            assert await asyncio.gather(*under_way) == [201, 201]
            assert await put_100("c") == 201

    monkeypatch.setattr(AsyncStore, "publish", slow)
    asyncio.run(asyncio.wait_for(run(), 20))


def test_where_it_is_leads_there(site: Site) -> None:
    """The address of what was published leads to another dataset, or nowhere."""
    answer = site.send("PUT", "/api/datasets/eu%2Fx", b"[1]", **JSON)
    assert answer.headers["Location"] == "/api/datasets/eu%2Fx/latest?version=1"
    assert site.get(answer.headers["Location"]).json == [1]


def test_the_bodies_of_all_clients_are_bounded(real_url: str, store: swapstore.Store) -> None:
    """Many clients at once fill the memory of the server, each with a body that is not too large."""
    with served(real_url, allow_writes=True, token=TOKEN, max_body=1000) as site:
        slow = head("Expect: 100-continue", size=1000)
        with opened(site, slow) as first, opened(site, slow) as second:
            for each in (first, second):
                assert each.recv(100).startswith(b"HTTP/1.1 100 ")  # its room is reserved
                each.sendall(b"x" * 999)
            refused = put(site, b"x", BYTES)
            assert (refused.status, refused.json["published"]) == (503, False)
            assert int(refused.headers["Retry-After"]) > 0
            streamed = raw(site, head(CHUNKED), b"1\r\nx\r\n0\r\n\r\n")
            assert b" 503 " in streamed
        assert store.status("mena") is None  # they went away in the middle
        until(lambda: put(site, b"x" * 1000, BYTES).status == 201, "there is room again")
    assert len(versions(store)) == 1


# --- cancellation --------------------------------------------------------------------------------------


def test_a_client_that_goes_away_after_its_body_has_published(site: Site, store: swapstore.Store) -> None:
    """A publish is cut in the middle when nobody waits for its reply any more."""
    with opened(site, head("Idempotency-Key: run-1", size=1_000_000), b"x" * 1_000_000):
        pass
    until(lambda: store.status("mena") is not None, "it is published")
    assert put(site, b"x" * 1_000_000, BYTES, Idempotency_Key="run-1").status == 200
    assert versions(store) == [1]


def test_a_request_that_is_cancelled_anywhere_can_be_repeated(real_url: str, store: swapstore.Store) -> None:
    """A server that stops while it publishes leaves half of it, or the retry is a second commit."""

    async def cut(steps: int) -> int:
        """Cancel a request after so many turns of the event loop, and repeat it."""
        async with swapstore.aio.connect(real_url) as cut_off:
            app = swapstore.http.app(cut_off, allow_writes=True, token=TOKEN)
            headers = {**JSON, "Idempotency-Key": f"run-{steps}"}
            task = asyncio.ensure_future(call(app, "PUT", DATASET, b"[1]", headers))
            for _ in range(steps):
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return (await call(app, "PUT", DATASET, b"[1]", headers))[0]

    assert {asyncio.run(cut(steps)) for steps in range(12)} <= {200, 201}
    assert sorted(row.id for row in store.history("mena")) == sorted(f"run-{steps}" for steps in range(12))
    assert [each for each in store.verify("mena") if each.expires_in_ms is None] == []


# --- what is served ------------------------------------------------------------------------------------


def order(site: Site, what: str, body: Any = None, method: str = "POST") -> Answer:
    text = None if body is None else json.dumps(body).encode()
    return site.send(method, f"{DATASET}/{what}", text, **JSON)


def test_pin_unpin_rollback_and_confirm(site: Site) -> None:
    """An operator cannot change what is served, or is not shown the result."""
    put(site, b"1", Idempotency_Key="one")
    put(site, b"2")

    for _ in range(2):  # a retry does nothing more
        assert order(site, "pin", {"version": 1}).json["pinned"]["id"] == "one"
    assert site.get(f"{DATASET}/latest").body == b"1"
    for _ in range(2):
        assert order(site, "pin", method="DELETE").json["pinned"] is None
    assert site.get(f"{DATASET}/latest").body == b"2"
    for _ in range(2):
        assert order(site, "rollback", {"id": "one"}).json["latest"]["version"] == 1
    before = order(site, "confirm").json
    assert order(site, "confirm").json["confirmed_at"] >= before["confirmed_at"]
    assert site.get(DATASET).json["serving"]["id"] == "one"


BAD_TARGETS: list[tuple[Any, int]] = [
    (None, 422),
    ({}, 422),
    ({"version": 1, "id": "one"}, 422),
    ({"version": "1"}, 422),
    ({"version": True}, 422),
    ({"version": 0}, 422),
    ({"Version": 1}, 422),
    ([1], 422),
    ({"version": 9}, 404),
    ({"id": "nine"}, 404),
    ({"id": "x" * 5000}, 413),
]


@pytest.mark.parametrize("what", ["pin", "rollback"])
def test_a_target_that_is_not_one(site: Site, store: swapstore.Store, what: str) -> None:
    """A mistake in an order serves another snapshot."""
    put(site, b"1", Idempotency_Key="one")
    before = store.status("mena")
    for body, status in BAD_TARGETS:
        assert order(site, what, body).status == status, body
        assert store.status("mena") == before, body


def test_an_order_has_to_be_json(site: Site) -> None:
    """A form of another site, which cannot send JSON, gives orders."""
    put(site, b"1")
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = site.send("POST", f"{DATASET}/pin", b'{"version":1}', **{**JSON, "Content-Type": kind})
        assert (answer.status, answer.headers["Accept"]) == (415, "application/json")


def test_orders_for_nothing(site: Site) -> None:
    """An operator who mistypes a name is told that it is done."""
    for answer in (
        order(site, "pin", {"version": 1}),
        order(site, "pin", method="DELETE"),
        order(site, "confirm"),
    ):
        assert (answer.status, answer.json["title"]) == (404, "NotFound")


def test_the_etag_of_a_status_is_no_condition(store: swapstore.Store, site: Site) -> None:
    """A client that sends the wrong etag is told that the dataset has changed, reads it again, and so on."""
    commit = store.publish("mena", 1)
    answer = site.send(
        "PUT",
        "/api/datasets/mena",
        b"2",
        Authorization=f"Bearer {TOKEN}",
        Content_Type="application/json",
        If_Match=f'"{commit.etag}"',
    )
    assert answer.status == 422
    assert "header ETag" in answer.json["detail"]
    assert store.status("mena").version == 1  # type: ignore[union-attr]
