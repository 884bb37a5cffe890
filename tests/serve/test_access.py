"""Who may do what: tokens, sessions, pages of other sites, and ways around the guard."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

import swapstore
import swapstore.aio
import swapstore.http
from swapstore import InvalidInput
from swapstore.serve import access, guard
from swapstore.serve.access import COOKIE, Access, Role
from swapstore.store import AsyncStore
from tests.serve.conftest import READ_TOKEN, TOKEN, call, served
from tests.support.web import Answer, Site

BEARER, READER = {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"Bearer {READ_TOKEN}"}
DATASET = "/api/datasets/mena"
FORM = "application/x-www-form-urlencoded"


def put(site: Site, **headers: str) -> Answer:
    return site.send("PUT", DATASET, b"1", Content_Type="application/json", **headers)


def sign_in(site: Site, token: str, to: str = "/", mount: str = "", **headers: str) -> Answer:
    body = urlencode({"token": token, "next": to}).encode()
    return site.send("POST", f"{mount}/login", body, Content_Type=FORM, **headers)


def cookie_of(answer: Answer) -> str:
    return answer.headers["Set-Cookie"].partition(";")[0]


@pytest.fixture
def closed(real_url: str, store: swapstore.Store) -> Iterator[Site]:
    """A site that readers need a token for, too."""
    store.publish("mena", 1)
    with served(real_url, allow_writes=True, token=TOKEN, read_token=READ_TOKEN) as site:
        yield site


# --- tokens --------------------------------------------------------------------------------------------


WRONG = [
    "",
    "Bearer",
    "Bearer ",
    f"Bearer {TOKEN}x",
    f"Bearer {TOKEN[:-1]}",
    f"Basic {TOKEN}",
    f"Bearer {TOKEN.upper()}",
    f"Bearer {READ_TOKEN}, Bearer {TOKEN}",
    "Bearer \xfc" + "x" * 20,
]


def test_a_wrong_token_opens_nothing(site: Site, closed: Site) -> None:
    """Anybody can publish, or read what is not for everybody."""
    for authorization in WRONG:
        for each in (site, closed):
            answer = put(each, Authorization=authorization)
            assert (answer.status, answer.json["published"]) == (401, False), authorization
            is_shown = authorization.partition(" ")[0] == "Bearer"
            assert ("not one that this server knows" in answer.json["detail"]) is is_shown, authorization
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert closed.get(f"{DATASET}/latest", Authorization=authorization).status == 401, authorization
        assert closed.get("/", Authorization=authorization).headers["Location"] == "/login?next=%2F"


def test_a_reader_cannot_write(closed: Site, store: swapstore.Store) -> None:
    """Who has the token for reading publishes."""
    assert closed.get(f"{DATASET}/latest", **READER).status == 200
    assert put(closed, **READER).status == 403
    assert closed.send("DELETE", f"{DATASET}/pin", None, **READER).status == 403
    page = closed.send("POST", "/datasets/mena/confirm", None, **READER)
    assert (page.status, page.headers["Content-Type"]) == (403, "text/html; charset=utf-8")
    assert put(closed, **BEARER).status == 201
    assert closed.get(f"{DATASET}/latest", **BEARER).status == 200


def test_a_server_that_only_reads(real_url: str, store: swapstore.Store) -> None:
    """A server that was started for reading is written to by who has a token."""
    store.publish("mena", 1)
    with served(real_url, token=TOKEN) as site:
        for headers in (BEARER, {}, {"Cookie": cookie_of(sign_in(site, TOKEN))}):
            answer = put(site, **headers)
            assert (answer.status, answer.json["published"]) == (403, False)
            assert "--allow-writes" in answer.json["detail"]
            assert site.get("/datasets/mena/confirm", **headers).status == 403


@pytest.mark.parametrize(
    "options",
    [
        {"token": "short"},
        {"token": f"{TOKEN}\n"},
        {"token": f"{TOKEN} and more"},
        {"token": f"{TOKEN}\xfc"},
        {"token": TOKEN, "read_token": TOKEN},
        {"read_token": ""},
        {"allow_writes": True},
        {"allow_writes": True, "read_token": READ_TOKEN},
    ],
)
def test_tokens_that_cannot_be_used(options: dict[str, Any]) -> None:
    """A token that no header can carry opens nothing, one for reading opens all, a short one is guessed."""
    with pytest.raises(InvalidInput) as error:
        Access.of(**{"allow_writes": False, "token": None, "read_token": None, **options})
    assert TOKEN not in str(error.value)


def test_no_token_is_shown(real_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A token stands in a log, which many people can read."""
    store = swapstore.aio.connect(real_url)
    app = swapstore.http.app(store, allow_writes=True, token=TOKEN, read_token=READ_TOKEN)
    digest = app.state.site.access.writer.hex()
    options: dict[str, Any] = {"allow_writes": True, "token": TOKEN, "read_token": READ_TOKEN}
    with served(real_url, log_level="debug", **options) as site:
        answers = [sign_in(site, TOKEN), sign_in(site, f"{TOKEN}x"), put(site, **BEARER), put(site, **READER)]
        session = cookie_of(answers[0]).partition("=")[2]
        answers += [site.get("/", Cookie=cookie_of(answers[0])), site.get("/login/", **BEARER)]
    log = "".join(capsys.readouterr())
    assert f"PUT {DATASET}" in log
    sent = "".join(f"{each.headers}{each.body!r}" for each in answers[1:])
    for secret in (TOKEN, READ_TOKEN, digest, session):
        assert secret not in log + sent + repr(app.state.site)


# --- sessions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mount", ["", "/data"])
def test_signing_in_and_out(real_url: str, mount: str) -> None:
    """A person cannot sign in, or the session is open to scripts, other paths and other sites."""
    with served(real_url, mount, allow_writes=True, token=TOKEN, read_token=READ_TOKEN) as site:
        asked = site.get(f"{mount}/datasets/eu%2Fx?a=1").headers["Location"]
        assert asked == f"{mount}/login?next=%2Fdatasets%2Feu%252Fx%3Fa%3D1"
        form = site.get(asked)
        assert form.status == 200
        assert b'value="/datasets/eu%2Fx?a=1"' in form.body

        answer = sign_in(site, TOKEN, "/datasets/eu%2Fx?a=1", mount)
        assert (answer.status, answer.headers["Location"]) == (303, f"{mount}/datasets/eu%2Fx?a=1")
        attributes = answer.headers["Set-Cookie"].lower().split("; ")[1:]
        assert sorted(attributes) == ["httponly", "max-age=43200", f"path={mount or '/'}", "samesite=strict"]
        session = {"Cookie": cookie_of(answer), "Origin": f"http://127.0.0.1:{site.port}"}
        assert site.get(f"{mount}/", **session).status == 200

        out = site.send("POST", f"{mount}/logout", None, **session)
        assert (out.status, out.headers["Location"]) == (303, f"{mount}/")
        assert "max-age=0" in out.headers["Set-Cookie"].lower()


def test_a_reader_can_sign_out(real_url: str) -> None:
    """On a server that only reads, a session lasts until it ends by itself."""
    with served(real_url, read_token=READ_TOKEN) as site:
        session = {"Cookie": cookie_of(sign_in(site, READ_TOKEN)), "Sec_Fetch_Site": "same-origin"}
        assert site.send("POST", "/logout", None, **session).status == 303


def test_the_cookie_of_a_site_with_tls_is_for_tls_alone(tmp_path: Path) -> None:
    """The session is sent in the clear to who takes the place of the server."""
    store = swapstore.aio.connect(f"sqlite:///{tmp_path}/store.db")
    app = swapstore.http.app(store, allow_writes=True, token=TOKEN)
    form = {"Content-Type": FORM}
    _, headers = asyncio.run(call(app, "POST", "/login", f"token={TOKEN}".encode(), form, "https"))
    assert "; secure" in headers["set-cookie"].lower()


def test_a_wrong_token_gets_the_form_again(site: Site) -> None:
    """A person who mistypes the token is in, or sees a page without a way on."""
    for token in (f"{TOKEN}x", ""):
        answer = sign_in(site, token, "/datasets/mena")
        assert answer.status == 401
        assert answer.headers["Set-Cookie"] is None
        assert b"This is not a token" in answer.body
        assert b'value="/datasets/mena"' in answer.body
        assert TOKEN.encode() not in answer.body


ELSEWHERE = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "https://evil.example",
    "javascript:alert(1)",
    "evil.example",
    "/a\r\nSet-Cookie: x=1",
    " //evil.example",
    "/ü",
    "",
]


def test_signing_in_leads_to_this_site_alone(site: Site) -> None:
    """A link to the form, with the right address, ends on a page of somebody else who asks for the token."""
    for to in ELSEWHERE:
        answer = sign_in(site, TOKEN, to)
        assert (answer.status, answer.headers["Location"]) == (303, "/"), to
        assert b"evil" not in site.get(f"/login?next={quote(to, safe='')}").body, to


def test_a_form_is_bounded(site: Site) -> None:
    """Anybody fills the memory of the server, without a token."""
    for body in (b"token=" + b"x" * 10_000, b"&".join([b"a=1"] * 30), b"token=%ff", b"\xff"):
        assert site.send("POST", "/login", body, Content_Type=FORM).status in {413, 422}
    assert site.send("POST", "/login", b"{}", Content_Type="application/json").status == 415


def test_nobody_signs_in_without_a_token(real_url: str) -> None:
    """A server without tokens asks for one."""
    with served(real_url) as site:
        assert site.get("/login").status == 404
        assert sign_in(site, "").status == 404


def test_sessions_cannot_be_forged(closed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may read makes a session for writing of the own one, or lengthens it."""
    reading = cookie_of(sign_in(closed, READ_TOKEN)).partition("=")[2]
    writing = cookie_of(sign_in(closed, TOKEN)).partition("=")[2]
    _, expires, mac = writing.split(".")
    forged = [
        "2" + reading[1:],
        f"2.{int(expires) + 1}.{mac}",
        f"2.{expires}9.{mac}",
        f"2.{expires}.{mac[:-1]}",
        f"2.{expires}.",
        f"3.{expires}.{mac}",
        f"2.{expires}.{mac}.{mac}",
        f"2.-1.{mac}",
        f"2.{'9' * 5000}.{mac}",
        "",
        "..",
    ]
    for each in forged:
        assert closed.get(f"{DATASET}/latest", Cookie=f"{COOKIE}={each}").status == 401, each
    ours = {"Sec_Fetch_Site": "same-origin"}
    assert put(closed, Cookie=f"{COOKIE}={reading}", **ours).status == 403
    assert put(closed, Cookie=f"{COOKIE}={writing}", **ours).status == 201

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + access.SESSION_S + 1)
    assert closed.get(f"{DATASET}/latest", Cookie=f"{COOKIE}={writing}").status == 401


def test_a_session_ends_with_its_token() -> None:
    """After a token has leaked and was changed, the sessions that it has begun go on."""
    old = Access.of(allow_writes=True, token=TOKEN, read_token=READ_TOKEN)
    new = Access.of(allow_writes=True, token=f"{TOKEN}-new", read_token=READ_TOKEN)
    assert old._role_by_session(old.session(Role.WRITER)) is Role.WRITER
    assert new._role_by_session(old.session(Role.WRITER)) is Role.NOBODY
    assert new._role_by_session(old.session(Role.READER)) is Role.READER


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long an answer takes tells how much of a token is right."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", noted)
    rules = Access.of(allow_writes=True, token=TOKEN, read_token=READ_TOKEN)
    for token in (TOKEN, READ_TOKEN, "x"):
        compared.clear()
        rules.role_by_token(token)
        assert [b for _, b in compared] == [rules.writer, rules.reader]


# --- pages of other sites ------------------------------------------------------------------------------


OF_ANOTHER_SITE: list[dict[str, str]] = [
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "cross-site", "Origin": "http://{host}"},
    {"Origin": "null"},
    {"Origin": "null", "Host": ""},
    {"Origin": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "http://{host}.evil.example"},
    {"Origin": "http://evil@{host}"},
    {"Origin": "ftp://{host}"},
    {"Origin": "http://{host}/"},
    {},
    {"Authorization": "Basic dXNlcjpwYXNzd29yZA==", "Sec_Fetch_Site": "cross-site"},
    {"Authorization": "Negotiate abc", "Origin": "http://evil.example"},
]


@pytest.mark.parametrize("path", ["/datasets/mena/confirm", f"{DATASET}/confirm", "/logout"])
def test_a_page_of_another_site_writes_nothing(site: Site, store: swapstore.Store, path: str) -> None:
    """A page that a signed-in person visits makes their browser publish."""
    store.publish("mena", 1)
    before = store.status("mena")
    assert before is not None
    session = {"Cookie": cookie_of(sign_in(site, TOKEN)), "Content_Type": FORM}
    for headers in OF_ANOTHER_SITE:
        given = {name: text.format(host=f"127.0.0.1:{site.port}") for name, text in headers.items()}
        answer = site.send("POST", path, b"etag=" + before.etag.encode(), **session, **given)
        assert answer.status in {400, 403}, headers  # 400: the server itself refuses an empty Host
        assert answer.headers["Set-Cookie"] is None, headers
        assert store.status("mena") == before, headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
        {"Origin": "http://{host}"},
        {"Origin": "HTTPS://{host}"},  # a proxy takes care of TLS
    ],
)
def test_a_page_of_this_site_writes(site: Site, store: swapstore.Store, headers: dict[str, str]) -> None:
    """A person cannot use the forms of the page."""
    store.publish("mena", 1)
    session = {"Cookie": cookie_of(sign_in(site, TOKEN)), "Content_Type": FORM}
    given = {name: text.format(host=f"127.0.0.1:{site.port}") for name, text in headers.items()}
    status = store.status("mena")
    assert status is not None
    body = urlencode({"etag": status.etag}).encode()
    assert site.send("POST", "/datasets/mena/confirm", body, **session, **given).status == 303


def test_browsers_name_the_origin_of_our_own_forms(site: Site) -> None:
    """Over http, a browser sends our forms with `Origin: null`, as no-referrer asks it to, and all fail."""
    assert site.get("/").headers["Referrer-Policy"] == "same-origin"


def test_a_page_of_a_known_origin_needs_the_token(real_url: str) -> None:
    """A page that may call the API does so with the session of the person who visits it."""
    with served(real_url, allow_writes=True, token=TOKEN, cors=["https://app.example"]) as site:
        there = {"Origin": "https://app.example", "Sec_Fetch_Site": "cross-site"}
        assert put(site, Cookie=cookie_of(sign_in(site, TOKEN)), **there).status == 403
        answer = put(site, **BEARER, **there)
        assert answer.status == 201
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert answer.headers["Access-Control-Allow-Credentials"] is None


# --- ways around ---------------------------------------------------------------------------------------

TRICKS = [
    "/static/../api/datasets",
    "/static/%2e%2e/api/datasets",
    "/static/..%2fapi/datasets",
    "/static/..%2f..%2f..%2fpyproject.toml",
    "/static//etc/passwd",
    "//api/datasets",
    "/api//datasets",
    "/login/../api/datasets",
    "/login/..",
    "/login%2f..%2fapi%2fdatasets",
    "/loginx",
    "/login;/api/datasets",
    "/%6cogin/../api/datasets",
    "/api/openapi.json/../datasets",
    "/api/openapi.json%00/datasets",
    "/API/datasets",
    "/%61pi/datasets",
    "/api/datasets/",
    "/api/%64atasets/mena/latest",
    "/api/datasets/mena%2flatest",
    "http://127.0.0.1/api/datasets",
]


METHODS = ["GET", "HEAD", "OPTIONS", "POST", "TRACE", "DELETE", "get", "ANY"]


@pytest.mark.parametrize("mount", ["", "/data"])
def test_there_is_no_way_around_the_token(real_url: str, store: swapstore.Store, mount: str) -> None:
    """A path that means one thing to the guard and another to the routes shows what needs a token."""
    store.publish("mena", "a secret")
    before = store.status("mena")
    with served(real_url, mount, allow_writes=True, token=TOKEN, read_token=READ_TOKEN) as site:
        paths = [mount + each if each.startswith("/") else each for each in TRICKS]
        paths += ["/%64ata/api/datasets", "/data%2fapi%2fdatasets", "/data//login/../api/datasets"]
        paths += [f"{mount}/api/datasets", f"{mount}/", f"{mount}{DATASET}/latest"]
        for path, method in itertools.product(paths, METHODS):
            answer = site.get(path, method)
            assert answer.status in {303, 400, 401, 404, 405}, (method, path)
            assert b"mena" not in answer.body, (method, path)
            assert b"secret" not in answer.body, (method, path)
    assert store.status("mena") == before


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_method_is_that_of_the_request_line(site: Site, store: swapstore.Store, method: str) -> None:
    """A form of another site, or a link, deletes what it cannot send a DELETE for."""
    store.publish("mena", 1)
    before = store.status("mena")
    override = {"X_HTTP_Method_Override": "PUT", "X_HTTP_Method": "PUT", "X_Method_Override": "PUT"}
    answer = site.send(
        method, f"{DATASET}?_method=PUT", b"_method=PUT", Content_Type=FORM, **override, **BEARER
    )
    assert answer.status == (405 if method == "POST" else 422)
    assert store.status("mena") == before


def test_what_is_open_shows_nothing_of_the_store(closed: Site) -> None:
    """Who has no token sees the address of the store, or names of datasets."""
    for path in ("/login", "/login?next=/datasets/mena", "/static/style.css"):
        answer = closed.get(path)
        assert answer.status == 200
        assert b"store.db" not in answer.body
        assert b"namespace" not in answer.body
    assert b"store.db" not in sign_in(closed, "wrong").body


def test_a_wrong_token_does_not_fall_back_on_the_session(closed: Site, store: swapstore.Store) -> None:
    """A page of another site, which may send headers, gets past the check of its origin with any token."""
    session = {"Cookie": cookie_of(sign_in(closed, TOKEN)), "Authorization": "Bearer not-a-token-of-here"}
    assert closed.get(f"{DATASET}/latest", **session).status == 401
    assert put(closed, Sec_Fetch_Site="cross-site", **session).status == 401


def test_a_page_without_tls_is_not_this_site_with_tls(tmp_path: Path) -> None:
    """Who can change what a network carries in the clear acts with the session that TLS protects."""
    store = swapstore.aio.connect(f"sqlite:///{tmp_path}/store.db")
    app = swapstore.http.app(store, allow_writes=True, token=TOKEN)
    for scheme, status in (("http", 403), ("https", 303)):
        headers = {"Host": "data.example", "Origin": f"{scheme}://data.example", "Cookie": f"{COOKIE}=x"}
        assert asyncio.run(call(app, "POST", "/logout", b"", headers, "https"))[0] == status


def test_only_who_may_know_the_servers_asks_the_doctor(real_url: str) -> None:
    """Strangers see the addresses of servers, and make the store work."""
    with served(real_url, allow_writes=True, token=TOKEN) as site:
        assert site.get("/doctor").status == 403
        assert b"/doctor" not in site.get("/health").body
        assert site.get("/doctor", **BEARER).status == 200


def test_a_page_of_a_known_origin_may_ask_before_it_sends_a_token(real_url: str) -> None:
    """A browser asks without the token whether it may send it, and is refused because there is none."""
    with served(real_url, read_token=READ_TOKEN, cors=["https://app.example"]) as site:
        asked = {"Origin": "https://app.example", "Access_Control_Request_Headers": "authorization"}
        answer = site.get(f"{DATASET}/latest", "OPTIONS", Access_Control_Request_Method="GET", **asked)
        assert answer.status == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        refused = site.get(f"{DATASET}/latest", Origin="https://app.example")
        assert refused.status == 401
        assert refused.headers["Access-Control-Allow-Origin"] == "https://app.example"


def test_no_cache_keeps_a_page(site: Site, store: swapstore.Store) -> None:
    """A shared browser shows what is private after its user has signed out."""
    store.publish("mena", {"a": 1})
    for path in ("/", "/datasets/mena", "/datasets/mena/versions/1", "/datasets/none", "/login"):
        assert site.get(path).headers["Cache-Control"] == "no-store"


def test_a_mistake_of_ours_is_as_closed_as_all_else(
    site: Site, store: swapstore.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that nobody expects may be framed, or tells strangers what the error says."""

    async def broken(*_: object) -> None:
        raise RuntimeError("redis://user:s3cret@inner.example")

    store.publish("mena", 1)
    usual = site.get("/datasets/mena").headers
    monkeypatch.setattr(AsyncStore, "status", broken)
    for path in ("/datasets/mena", DATASET):
        answer = site.get(path)
        assert answer.status == 500
        assert b"inner.example" not in answer.body
        for name in (each.decode() for each in guard.HEADERS):
            assert answer.headers.get_all(name) == usual.get_all(name), name
