"""Responses as such: what headers mean, which representation is sent, and what a process keeps for that."""

from __future__ import annotations

import asyncio
import copy
import random
import subprocess
import sys
import threading
import time
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

import attrs
import fakeredis
import flask
import msgspec
import pytest
from django.http.request import HttpHeaders
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.requests import Request
from werkzeug.datastructures import EnvironHeaders
from werkzeug.datastructures import Headers as WerkzeugHeaders
from werkzeug.test import create_environ

import swapstore
import swapstore.http
import swapstore.http.flask
import swapstore.http.starlette
from swapstore import Group, Member, Snapshot, Store
from swapstore.cache import Cache
from swapstore.format import encodings
from swapstore.http import frames, headers
from swapstore.testing import SimulatedStore

TEXT = msgspec.json.encode([{"n": n % 10, "text": "calm"} for n in range(200)])
SNAPSHOT = Snapshot(
    size=len(TEXT),
    sha256="ab" * 32,
    codec="json",
    raw=TEXT,
    dataset="mena",
    id="1",
    ts=0,
    version=1,
    etag="a.1.b",
    committed_at=1_700_000_000_999,
    labels={},
)
TAG = f'"{"ab" * 32}"'
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
answer = swapstore.http.response
zstd = encodings._zstd()


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> Cache:
    """The frames that this process keeps: none of another test."""
    fresh = Cache(1 << 20)
    monkeypatch.setattr(frames, "_kept", fresh)
    monkeypatch.setattr(swapstore.cache, "frames", fresh)
    return fresh


# --- conditions: RFC 9110, section 13 -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("none_match", "status"),
    [
        (TAG, 304),
        (f"W/{TAG}", 304),
        (f'"other", W/"another" ,  {TAG}', 304),
        (f'"a,b",{TAG}', 304),
        (f'"", ,{TAG}', 304),
        (f'"\xe9", {TAG}', 304),
        ("*", 304),
        (" * ", 304),
        ('"other"', 200),
        (TAG.strip('"'), 200),
        (f'"x{TAG[1:]}', 200),
        (f'{TAG[:-1]}.more"', 200),
        (TAG.upper(), 200),
        (TAG[:-1], 200),
        ("", 200),
        ('"*"', 200),
    ],
)
def test_entity_tags(none_match: str, status: int) -> None:
    """A client that has the content gets it again, or one that has other content is told to keep it."""
    assert answer(SNAPSHOT, {"if-none-match": none_match}).status == status


@pytest.mark.parametrize(
    ("given_headers", "status"),
    [
        ({"If-Modified-Since": DATE}, 304),
        ({"If-Modified-Since": "Tue, 14 Nov 2023 22:13:21 GMT"}, 200),  # after a rollback
        ({"If-Modified-Since": "Fri, 31 Dec 9999 23:59:59 GMT"}, 200),
        ({"If-Modified-Since": "Tue, 14 Nov 2023 22:13:19 GMT"}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": ""}, 200),
        ({"If-Modified-Since": DATE, "If-None-Match": '"other"'}, 200),
        ({"If-Modified-Since": DATE, "If-None-Match": "garbage"}, 200),
        ({"If-Modified-Since": "yesterday", "If-None-Match": TAG}, 304),
    ],
)
def test_dates(given_headers: dict[str, str], status: int) -> None:
    """A client with a later version than the one that was rolled back to keeps it."""
    made = answer(SNAPSHOT, given_headers)
    assert made.status == status
    assert made.headers["ETag"] == TAG
    assert made.headers.get("Last-Modified") == (DATE if status == 200 else None)


@pytest.mark.parametrize("committed_at", [2**53 - 1, -1, -(2**53) + 1])
def test_no_date_is_sent_that_another_commit_may_have(
    committed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commits within a second have one date: who has the first one never gets the second."""
    assert "Last-Modified" not in answer(attrs.evolve(SNAPSHOT, committed_at=committed_at), {}).headers
    monkeypatch.setattr("time.time", lambda: SNAPSHOT.committed_at / 1000 + 59)
    assert "Last-Modified" not in answer(SNAPSHOT, {}).headers
    assert answer(SNAPSHOT, {"If-Modified-Since": DATE}).status == 200
    monkeypatch.setattr("time.time", lambda: SNAPSHOT.committed_at / 1000 + 60)
    assert answer(SNAPSHOT, {}).headers["Last-Modified"] == DATE


@pytest.mark.parametrize("serve", ["pin", "rollback"])
def test_no_date_is_sent_that_a_later_commit_had(serve: str) -> None:
    """Of two commits within a second, the later one is rolled back: who has it keeps it for good."""
    simulated = SimulatedStore()
    simulated.clock.ms = SNAPSHOT.committed_at
    with simulated.connect() as store:
        first = store.publish("mena", 1)
        store.publish("mena", 2)
        date = answer(store.read_latest("mena"), {}).headers["Last-Modified"]
        getattr(store, serve)("mena", version=first.version)
        made = answer(store.read_latest("mena"), {"If-Modified-Since": date})
    assert (made.status, made.body, made.headers.get("Last-Modified")) == (200, b"1", None)


# --- Accept-Encoding: RFC 9110, section 12.5.3 --------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "encoded"),
    [
        ("zstd", True),
        ("ZSTD", True),
        ("gzip, deflate, br, zstd", True),
        ("zstd;q=0.001", True),
        ("zstd ; Q=1.000", True),
        ("identity;q=0.5, zstd;q=0.5", True),
        ("*;q=0, zstd", True),
        ("gzip\t,\tzstd\t", True),
        (", ,zstd,", True),
        ("zstd;q=0", False),
        ("zstd;q=0.000", False),
        ("identity, zstd;q=0.5", False),
        ("identity", False),
        ("*", False),
        ("gzip", False),
        ("", False),
        ("zstd;q=2", False),
        ("zstd;q=0.0001", False),
        ("zstd;q=-1", False),
        ("zstd;q=nan", False),
        ("zstd;q=\u0661", False),
        ("zstd;level=3", False),
        ("xzstd, zstdx", False),
        ("zstd gzip", False),
    ],
)
def test_which_encoding_a_client_takes(accept: str, *, encoded: bool) -> None:
    """A client gets bytes that it cannot decode, or ten times as many as it needs."""
    made = answer(SNAPSHOT, {"Accept-Encoding": accept})
    assert made.headers.get("Content-Encoding") == ("zstd" if encoded else None)
    assert (zstd.decompress(made.body) if encoded else made.body) == TEXT
    assert made.headers["Content-Length"] == str(len(made.body))
    assert made.headers["Vary"] == "Accept-Encoding"


def test_without_the_header_nothing_is_encoded() -> None:
    """A program that knows nothing of encodings gets a frame."""
    assert answer(SNAPSHOT, {}).body == TEXT


def test_each_representation_has_a_strong_tag_of_its_own(kept: Cache) -> None:
    """A cache gives a client the frame of another one, or joins parts of two."""
    plain, framed = answer(SNAPSHOT, {}), answer(SNAPSHOT, {"Accept-Encoding": "zstd"})
    kept.keep_frame(SNAPSHOT.sha256, zstd.compress(TEXT, 19))
    other = answer(SNAPSHOT, {"Accept-Encoding": "zstd"})
    assert other.body != framed.body
    tags = {made.headers["ETag"] for made in (plain, framed, other)}
    assert len(tags) == 3
    assert not [tag for tag in tags if tag.startswith("W/")]
    for tag in tags:  # whoever has one of them, and takes it, is up to date, whatever this process has
        again = answer(SNAPSHOT, {"Accept-Encoding": "zstd", "If-None-Match": tag})
        assert (again.status, again.headers["ETag"]) == (304, tag)
    assert answer(SNAPSHOT, {"If-None-Match": framed.headers["ETag"]}).status == 200


def test_a_client_that_is_up_to_date_costs_no_compression(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart, each client that asks whether there is news makes the server compress."""
    tag = answer(SNAPSHOT, {"Accept-Encoding": "zstd"}).headers["ETag"]
    monkeypatch.setattr(frames, "_kept", Cache(1 << 20))
    monkeypatch.setattr(encodings, "encoded_as", None)
    assert answer(SNAPSHOT, {"Accept-Encoding": "zstd", "If-None-Match": tag}).status == 304


def compressions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the payloads that are compressed from now on."""
    sizes: list[int] = []
    compress = encodings.encoded_as

    def compressing(payload: bytes, *given: Any) -> encodings.Encoded:
        sizes.append(len(payload))
        return compress(payload, *given)

    monkeypatch.setattr(encodings, "encoded_as", compressing)
    return sizes


# --- frames -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_group", [False, True])
def test_the_frame_that_is_stored_is_passed_on(
    real_url: str, monkeypatch: pytest.MonkeyPatch, *, is_group: bool
) -> None:
    """Each process compresses each version again, although the store has it compressed."""
    level = 12  # another frame than this process would make
    with swapstore.connect(real_url, compression="zstd") as producer, monkeypatch.context() as patched:
        patched.setattr(encodings, "LEVEL", level)
        if is_group:
            producer.publish_group("mena", {"EG": msgspec.Raw(TEXT)})
        else:
            producer.publish("mena", msgspec.Raw(TEXT))
    monkeypatch.setattr(frames, "_compressed", None)
    member = "EG" if is_group else None
    with swapstore.connect(real_url) as reader:
        made = answer(reader.read_latest("mena"), {"Accept-Encoding": "zstd"}, member=member)
    assert made.body == zstd.compress(TEXT, level)


@pytest.mark.parametrize("compression", ["none", "delta"])
def test_other_payloads_are_compressed_once(
    real_url: str, compression: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client gets a frame that it cannot decode without a base, or each request costs a compression."""
    with swapstore.connect(real_url, compression=compression) as producer:
        for n in range(3):
            producer.publish("mena", f"{n} {random.Random(1).randbytes(2000).hex()}")
    with swapstore.connect(real_url) as reader:
        found = reader.read_latest("mena")
        assert found is not None
        made = compressions(monkeypatch)
        for _ in range(3):
            body = answer(reader.read_latest("mena"), {"Accept-Encoding": "zstd"}).body
            assert zstd.decompress(body) == found.raw
    assert len(made) == 1


def test_threads_that_need_the_same_frame_make_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a publish, forty threads of a server compress the same ten megabytes."""
    made = compressions(monkeypatch)
    threads = [
        threading.Thread(target=answer, args=(SNAPSHOT, {"Accept-Encoding": "zstd"})) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_what_does_not_get_smaller_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image is compressed for each request, or gets larger."""
    noise = random.Random(1).randbytes(2000)
    image = attrs.evolve(SNAPSHOT, raw=noise, sha256="ef" * 32, codec="bytes")
    for _ in range(2):
        made = answer(image, {"Accept-Encoding": "zstd"})
        assert (made.body, made.headers["ETag"]) == (noise, f'"{"ef" * 32}"')
        assert "Content-Encoding" not in made.headers
        monkeypatch.setattr(encodings, "encoded_as", None)


def test_a_small_payload_is_sent_as_it_is() -> None:
    """Two hundred bytes are compressed to save half a packet."""
    small = attrs.evolve(SNAPSHOT, raw=b" " * 511, sha256="cd" * 32)
    assert answer(small, {"Accept-Encoding": "zstd"}).body == small.raw


def test_the_window_of_a_large_frame_is_one_that_browsers_accept() -> None:
    """A browser refuses a frame with a window of more than 8 MiB (RFC 9659)."""
    frame = encodings.encoded_as(b"0123456789abcdef" * (3 << 20), "zstd", None).body
    decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 23})
    assert len(decoder.decompress(frame)) == 48 << 20


def test_a_program_that_answers_no_requests_keeps_no_frames(real_url: str) -> None:
    """Every reader of compressed snapshots holds each of them twice."""
    with swapstore.connect(real_url, compression="zstd") as producer:
        producer.publish("mena", msgspec.Raw(TEXT))
    code = (
        "import sys, swapstore\n"
        f"assert swapstore.connect({real_url!r}).read_latest('mena').size == {len(TEXT)}\n"
        "assert swapstore.cache.frames is None\n"
        "assert 'swapstore.http' not in sys.modules\n"
        "assert swapstore.http.response(None, {}).status == 404\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- groups, errors, and what headers may be ----------------------------------------------------------


def member(name: str, raw: bytes, codec: str = "json") -> Member:
    return Member(name=name, size=len(raw), sha256=swapstore.format.records.digest(raw), codec=codec, raw=raw)


def group(*members: Member) -> Group:
    fields = {name: getattr(SNAPSHOT, name) for name in attrs.fields_dict(Snapshot)}
    fields.update(codec="group", members={each.name: each for each in members})
    return Group(**fields)


def test_a_group_as_a_whole() -> None:
    """A client gets half of the members under the etag of all, or a member under that of the group."""
    both, one = group(member("EG", TEXT), member("SG", b"7")), group(member("EG", TEXT))
    made = answer(both, {})
    assert made.body == b'{"EG":%b,"SG":7}' % TEXT
    assert answer(one, {}).body == b'{"EG":%b}' % TEXT
    assert len({each.headers["ETag"] for each in (made, answer(one, {}), answer(both, {}, member="EG"))}) == 3
    renamed = answer(group(member("EG", TEXT), member("US", b"7")), {"If-None-Match": made.headers["ETag"]})
    assert renamed.body == b'{"EG":%b,"US":7}' % TEXT
    framed = answer(both, {"Accept-Encoding": "zstd"})
    assert zstd.decompress(framed.body) == made.body
    assert answer(both, {"If-None-Match": made.headers["ETag"]}).status == 304
    assert answer(group(member("EG", b"1", "bytes")), {}).status == 404
    for found in (both, SNAPSHOT):
        assert answer(found, {}, member="US").status == 404


def test_content_types() -> None:
    """A browser shows JSON as a download, or a CSV file as JSON."""
    assert answer(SNAPSHOT, {}).headers["Content-Type"] == "application/json"
    image = attrs.evolve(SNAPSHOT, codec="bytes")
    assert answer(image, {}).headers["Content-Type"] == "application/octet-stream"
    assert answer(image, {}, content_type="text/csv").headers["Content-Type"] == "text/csv"


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (None, 404, None),
        (swapstore.NotFound("redis://secret"), 404, None),
        (swapstore.InvalidInput("redis://secret"), 404, None),
        (swapstore.Unavailable("redis://secret"), 503, "5"),
        (swapstore.Throttled("redis://secret", retry_after_s=1.2), 503, "2"),
        (swapstore.Throttled("redis://secret"), 503, "5"),
        (swapstore.TooStale("redis://secret"), 503, "5"),
    ],
)
def test_what_a_client_is_told_of_an_error(error: Any, status: int, retry_after: str | None) -> None:
    """A client drops what it has during an outage, a cache keeps the error, or an address is shown."""
    made = answer(error, {"If-None-Match": "*"})
    assert (made.status, made.headers.get("Retry-After")) == (status, retry_after)
    assert made.headers["Cache-Control"] == "no-store"
    assert b"secret" not in made.body


@pytest.mark.parametrize("none_match", ['"other"', TAG])
def test_a_stale_snapshot_says_how_old_it_is(none_match: str) -> None:
    """A cache serves for an hour more what was served in an outage, and nobody sees that it is old."""
    seen_at = time.time_ns() // 1_000_000 - 90_000
    stale = attrs.evolve(SNAPSHOT, stale=True, seen_at=seen_at)
    made = answer(stale, {"If-None-Match": none_match}, cache_control="max-age=3600")
    assert made.headers["Cache-Control"] == "no-cache"
    assert 90 <= int(made.headers["Age"]) < 150
    fresh = answer(SNAPSHOT, {"If-None-Match": none_match}, cache_control="max-age=3600")
    assert (fresh.headers["Cache-Control"], fresh.headers.get("Age")) == ("max-age=3600", None)


@pytest.mark.parametrize(
    ("cache_control", "expected"),
    [
        ("private, max-age=60, stale-if-error=600", "no-cache, private"),
        ('max-age=60,Private="set-cookie"', "no-cache, private"),
        ("no-store", "no-cache, no-store"),
        ("no-cache, immutable", "no-cache"),
    ],
)
def test_a_stale_snapshot_is_kept_by_no_cache_that_may_not_keep_it(cache_control: str, expected: str) -> None:
    """In an outage, a shared cache keeps what is for one user only."""
    stale = attrs.evolve(SNAPSHOT, stale=True, seen_at=1)
    assert answer(stale, {}, cache_control=cache_control).headers["Cache-Control"] == expected


@pytest.mark.parametrize("kind", [swapstore.Corrupt, swapstore.AccessDenied, swapstore.StoreClosed])
def test_errors_that_somebody_has_to_look_at_are_raised(kind: type[swapstore.SwapstoreError]) -> None:
    """Damage is answered with 404, and nobody learns of it."""
    with pytest.raises(kind):
        answer(kind("damaged"), {})


def test_a_view_that_is_not_started_is_no_missing_dataset() -> None:
    """Every client drops what it has, because the service has a fault."""
    with SimulatedStore().connect() as store:
        store.publish("mena", 1)
        view = store.view(["mena"])
        with pytest.raises(swapstore.InvalidInput) as caught:
            view["mena"]
        for error in (caught.value, copy.copy(caught.value)):
            with pytest.raises(swapstore.InvalidInput, match="not started"):
                answer(error, {})


def test_a_store_of_another_event_loop_is_no_missing_dataset() -> None:
    """An app whose store was used in another loop answers 404 to everything, and nothing is logged."""
    store = swapstore.aio.connect(fakeredis.aioredis.FakeRedis(server=fakeredis.FakeServer()))
    app = swapstore.http.asgi_app(store)
    scope = {"type": "http", "method": "GET", "path": "/mena"}
    statuses = []

    async def send(message: Any) -> None:
        await asyncio.sleep(0)
        statuses.append(message.get("status"))

    asyncio.run(app(scope, None, send))  # type: ignore[arg-type]
    with pytest.raises(swapstore.InvalidInput, match="another event loop"):
        asyncio.run(app(scope, None, send))  # type: ignore[arg-type]
    assert statuses == [404, None]
    asyncio.run(store.close())


def test_apps_send_no_body_for_head_whatever_the_server_does(tmp_path: Path) -> None:
    """A server that sends what it is given sends a body, which is taken for the next response."""
    url = f"sqlite:///{tmp_path}/store.db"
    sent: list[Any] = []

    async def send(message: Any) -> None:
        await asyncio.sleep(0)
        sent.append(message)

    with swapstore.connect(url) as store:
        store.publish("mena", 1)
        asgi = swapstore.http.asgi_app(swapstore.aio.connect(url), cache_control="max-age=7")
        asyncio.run(asgi({"type": "http", "method": "HEAD", "path": "/mena"}, None, send))  # type: ignore[arg-type]
        wsgi = swapstore.http.wsgi_app(store, cache_control="max-age=7")
        body = wsgi({"REQUEST_METHOD": "HEAD", "PATH_INFO": "/mena"}, lambda *given: sent.append(given))
    assert (sent[1]["body"], b"".join(body)) == (b"", b"")
    assert {(b"content-length", b"1"), (b"cache-control", b"max-age=7")} <= set(sent[0]["headers"])
    assert {("Content-Length", "1"), ("Cache-Control", "max-age=7")} <= set(sent[2][1])


def test_starlette_and_flask_get_all_options() -> None:
    """A service asks for a header, and its framework's function sends the default."""
    found = group(member("EG", b"1"), member("SG", b"2"))
    options: Any = {"member": "SG", "cache_control": "max-age=7", "content_type": "text/csv"}
    made: list[Any] = [
        swapstore.http.starlette.response(
            Request({"type": "http", "method": "GET", "headers": []}), found, **options
        ),
        swapstore.http.flask.response(flask.Request(create_environ()), found, **options),
    ]
    for each in made:
        body = each.get_data() if isinstance(each, flask.Response) else each.body
        assert (body, each.headers["Cache-Control"]) == (b"2", "max-age=7")
        assert each.headers["Content-Type"].startswith("text/csv")


def test_headers_of_every_framework() -> None:
    """A framework's headers cannot be passed, or one of several lines is lost."""
    lines = [("if-none-match", '"other"'), ("IF-NONE-MATCH", TAG), ("If-None-Match", '"more"')]
    message = HTTPMessage()
    for name, value in lines:
        message[name] = value
    given_headers: list[Any] = [
        lines,
        message,
        Headers(raw=[(name.lower().encode(), value.encode()) for name, value in lines]),
        WerkzeugHeaders(lines),
        EnvironHeaders({"HTTP_IF_NONE_MATCH": TAG}),
        HttpHeaders({"HTTP_IF_NONE_MATCH": TAG}),
    ]
    for each in given_headers:
        assert answer(SNAPSHOT, each).status == 304, type(each)


visible = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40)
pieces = st.lists(
    st.sampled_from(
        [TAG, "W/", '"', "*", ",", ";", "q=", "zstd", "identity", "0", "1", ".", " ", "\t", "\xe9", DATE]
    ),
    max_size=12,
).map("".join)


@given(
    st.dictionaries(
        st.sampled_from(["If-None-Match", "If-Modified-Since", "Accept-Encoding"]), visible | pieces
    )
)
def test_no_header_is_an_error(given_headers: dict[str, str]) -> None:
    """A client that sends nonsense makes the server fail, or is sent something other than the snapshot."""
    made = answer(SNAPSHOT, given_headers)
    assert made.status in {200, 304}
    if made.status == 200:
        encoded = "Content-Encoding" in made.headers
        assert (zstd.decompress(made.body) if encoded else made.body) == TEXT
    for value in made.headers.values():
        value.encode("latin-1")
        assert "\n" not in value


@given(
    st.lists(
        st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"')), max_size=5
    )
)
def test_tags_are_found_in_any_list(tags: list[str]) -> None:
    """A tag with a comma in it hides those that follow."""
    quoted = [f'"{tag}"' for tag in tags]
    listed = " , ".join(f"W/{tag}" if n % 2 else tag for n, tag in enumerate(quoted))
    assert headers.Asked.of({"If-None-Match": listed}).tags == quoted


@pytest.mark.parametrize("make", [swapstore.http.asgi_app, swapstore.http.wsgi_app])
def test_an_app_of_the_wrong_store_is_refused(make: Any, store: Store) -> None:
    """A blocking store in an event loop holds up all clients, and nobody knows why."""
    wrong = store if make is swapstore.http.asgi_app else swapstore.aio.connect("sqlite:///never.db")
    with pytest.raises(swapstore.InvalidInput, match="takes a store of"):
        make(wrong)
    right = swapstore.aio.connect("sqlite:///never.db") if wrong is store else store
    with pytest.raises(swapstore.InvalidInput, match="max_staleness"):
        make(right, max_staleness=-1)
