"""What HTTP can return instead of replies: a clear error, the last good version served, nothing lost."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from swapstore import (
    AccessDenied,
    Misconfigured,
    OutcomeUnknown,
    PayloadTooLarge,
    ReplyLost,
    Store,
    SwapstoreError,
    Throttled,
    Unavailable,
)
from swapstore.commands import Command, Get, Put
from swapstore.drivers.base import Driver
from tests.rest.support import FACES, driver_of, endpoint, store_on
from tests.support.rest import RestServer

HTML = "<html><body>secret page</body></html>"
AS_HTML = {"Content-Type": "text/html; charset=utf-8"}


def error_body(text: str) -> str:
    return json.dumps({"error": text})


@pytest.fixture(params=FACES)
def driver(request: pytest.FixtureRequest, rest: RestServer) -> Iterator[Driver]:
    with driver_of(request.param, rest.url, rest.token) as made:
        yield made


@pytest.fixture
def store(driver: Driver, rest: RestServer) -> Store:
    made = store_on(driver, rest.url, rest.token)
    made.publish("mena", {"n": 1}, id="one")
    return made


def assert_unharmed(store: Store, rest: RestServer, *, refused: str = "two") -> None:
    """The last good version is served, and the same publish succeeds as soon as it can."""
    rest.switches.reset()
    latest = store.read_latest("mena")
    assert latest is not None
    assert (latest.id, latest.version) == ("one", 1)
    assert store.publish("mena", {"n": 2}, id=refused).version == 2
    assert [row.id for row in store.history("mena")] == [refused, "one"]
    assert [finding for finding in store.verify("mena") if finding.wrong] == []


REFUSED = [
    (401, error_body("WRONGPASS invalid token"), {}, AccessDenied, "HTTP 401 (WRONGPASS"),
    (403, HTML, AS_HTML, AccessDenied, "HTTP 403"),
    (404, HTML, AS_HTML, Misconfigured, "URL is probably wrong"),
    (405, error_body("ERR method"), {}, Misconfigured, "URL is probably wrong"),
    (413, HTML, AS_HTML, PayloadTooLarge, "too large"),
    (413, error_body("ERR max request size exceeded. Limit: 512 bytes"), {}, PayloadTooLarge, "512 bytes"),
    (400, error_body("ERR max request size exceeded. Limit: 512 bytes"), {}, PayloadTooLarge, "512 bytes"),
    (400, error_body("ERR max daily request limit exceeded"), {"Retry-After": "900"}, Throttled, "daily"),
    (400, error_body("ERR failed to parse"), {}, Unavailable, "failed to parse"),
    (400, HTML, AS_HTML, Unavailable, "37 bytes of text/html"),
    (429, error_body("too many"), {"Retry-After": "900"}, Throttled, "in 900 s"),
    (301, "", {"Location": "https://elsewhere.test/pipeline?x=secret"}, Misconfigured, "elsewhere.test"),
    (307, "", {"Location": "/login"}, Misconfigured, "not followed"),
]


@pytest.mark.parametrize(("answer", "kind", "says"), [(each[:3], *each[3:]) for each in REFUSED])
def test_a_refused_publish_changes_nothing(
    store: Store,
    rest: RestServer,
    answer: tuple[int, str, dict[str, str]],
    kind: type[SwapstoreError],
    says: str,
) -> None:
    """A refused publish looks like success, or readers lose the version that they had."""
    before = len(rest.requests)
    rest.switches.answer(*answer, when="SET", times=99)
    with pytest.raises(kind) as caught:
        store.publish("mena", {"n": 2}, id="two")
    assert type(caught.value) is kind
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)
    assert sum("SET" in asked.names for asked in rest.requests[before:]) <= 4
    assert_unharmed(store, rest)


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (500, error_body("ERR internal"), {}),
        (502, HTML, AS_HTML),
        (503, HTML, AS_HTML),
        (504, "", {}),
        (408, "", {}),
        (499, "", {}),
        (200, HTML, AS_HTML),
        (200, "[", {}),
        (200, "[]", {}),
        (200, error_body("ERR who knows"), {}),
        (200, '[{"result":"OK"},{"neither":1}]', {}),
        (200, "\xff", {}),
    ],
)
def test_an_ambiguous_answer_ends_in_one_commit(
    store: Store, rest: RestServer, status: int, body: str, headers: dict[str, str], *, applied: bool
) -> None:
    """After an error of a gateway the publish is committed twice, or not at all."""
    rest.switches.answer(status, body.encode("latin-1"), headers, applied=applied, when="EVALSHA")
    commit = store.publish("mena", {"n": 2}, id="two")
    assert commit.version == 2
    assert [row.id for row in store.history("mena")] == ["two", "one"]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_gateway_that_stays_down_is_unavailable(store: Store, rest: RestServer, status: int) -> None:
    """Readers take an outage for data, or producers for success."""
    rest.switches.answer(status, HTML, AS_HTML, times=999)
    with pytest.raises(Unavailable, match=f"HTTP {status}") as caught:
        store.read_latest("mena")
    assert "secret" not in str(caught.value)
    with pytest.raises(Unavailable):
        store.publish("mena", {"n": 2}, id="two")
    assert_unharmed(store, rest)


def test_a_commit_that_cannot_be_checked_has_an_unknown_outcome(store: Store, rest: RestServer) -> None:
    """A producer is not told that its publish may be committed, or under which id to retry."""
    rest.switches.answer(502, HTML, AS_HTML, applied=True, when="EVALSHA")
    rest.switches.answer(502, HTML, AS_HTML, times=99)
    with pytest.raises(OutcomeUnknown) as caught:
        store.publish("mena", {"n": 2}, id="two")
    assert caught.value.id == "two"
    rest.switches.reset()
    assert store.publish("mena", {"n": 2}, id="two").version == 2
    assert [row.id for row in store.history("mena")] == ["two", "one"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((502, HTML, AS_HTML), ReplyLost),
        ((200, HTML, AS_HTML), ReplyLost),
        ((200, "[]", {}), ReplyLost),
        ((200, "[1,2,3]", {}), ReplyLost),
        ((401, "", {}), AccessDenied),
    ],
)
def test_what_cannot_have_changed_anything_is_not_a_lost_reply(
    driver: Driver,
    rest: RestServer,
    answer: tuple[int, str, dict[str, str]],
    expected: type[SwapstoreError],
) -> None:
    """A refused request is reported as possibly applied, or an unreadable answer as refused."""
    rest.switches.answer(*answer, times=2)
    batches: list[list[Command[Any]]] = [[Get("a"), Put("b", b"x", 1000)], [Get("a")]]
    for batch in batches:
        with pytest.raises(expected) as caught:
            driver.execute(batch)
        assert type(caught.value) is expected
    assert len(rest.requests) == 2, "sent again"


def test_html_is_described_and_not_quoted(driver: Driver, rest: RestServer) -> None:
    """A login page in the way looks like data, or its text ends up in a log."""
    rest.switches.answer(200, HTML, AS_HTML)
    with pytest.raises(Unavailable, match=r"not JSON: 37 bytes of text/html"):
        driver.execute([Get("a")])


def test_a_request_above_max_request_is_not_sent(rest: RestServer) -> None:
    """A payload that is too large leaves half a batch behind, or a misleading error."""
    with driver_of("blocking", rest.url, rest.token, max_request=20_000) as driver:
        store = store_on(driver, rest.url, rest.token)
        store.publish("mena", {"n": 1}, id="one")
        before = len(rest.requests)
        with pytest.raises(PayloadTooLarge) as caught:
            store.publish("mena", "x" * 30_000, id="two")
        assert caught.value.limit_bytes == 20_000
        assert caught.value.size_bytes > 30_000
        assert str(caught.value.size_bytes) in str(caught.value)
        assert "20000" in str(caught.value)
        assert all("SET" not in asked.names for asked in rest.requests[before:])
        assert_unharmed(store, rest)


@pytest.mark.parametrize("how", ["command", "request", "413"])
def test_a_limit_of_the_endpoint_is_reported(store: Store, rest: RestServer, how: str) -> None:
    """A producer does not learn the size and the limit, or readers lose what they had."""
    rest.switches.cap_bytes, rest.switches.too_large = 10_000, how  # type: ignore[assignment]
    with pytest.raises(PayloadTooLarge) as caught:
        store.publish("mena", "x" * 20_000, id="two")
    assert caught.value.limit_bytes == 10_000
    assert caught.value.size_bytes > 20_000
    assert_unharmed(store, rest)


def test_a_connection_reset_while_sending(store: Store, rest: RestServer) -> None:
    """A gateway that resets the connection during a large body makes a publish look successful."""
    rest.switches.cap_bytes, rest.switches.too_large = 100_000, "reset"
    with pytest.raises(Unavailable):
        store.publish("mena", "x" * 3_000_000, id="two")
    assert_unharmed(store, rest)


@pytest.mark.parametrize("how", ["drop_before", "drop_after", "cut"])
def test_a_connection_that_ends_in_a_commit(store: Store, rest: RestServer, how: str) -> None:
    """A connection that breaks during a commit leads to no commit, or to two."""
    getattr(rest.switches, how)(when="EVALSHA")
    assert store.publish("mena", {"n": 2}, id="two").version == 2
    assert [row.id for row in store.history("mena")] == ["two", "one"]


@pytest.mark.parametrize("face", FACES)
def test_an_endpoint_that_is_not_there(face: str) -> None:
    """An unreachable endpoint leaves the outcome in doubt, although nothing was sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        driver_of(face, f"http://127.0.0.1:{port}") as driver,
        pytest.raises(Unavailable, match="cannot connect") as caught,
    ):
        driver.execute([Put("a", b"x", 1000)])
    assert type(caught.value) is Unavailable


@pytest.mark.parametrize("face", FACES)
def test_what_does_not_speak_http(face: str) -> None:
    """A server that does not speak HTTP looks like data."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"-ERR unknown command 'POST'\r\n")

    with endpoint(serve) as url, driver_of(face, url) as driver, pytest.raises(ReplyLost):
        driver.execute([Get("a")])
