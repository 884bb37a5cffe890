"""A status of HTTP 200 says nothing about single commands: the reply to each of them is checked."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from swapstore import (
    AccessDenied,
    Corrupt,
    InvalidInput,
    PayloadTooLarge,
    ReadOnly,
    ReplyLost,
    StoreFull,
    SwapstoreError,
    Throttled,
    Unavailable,
    Unscripted,
    Unsupported,
)
from swapstore.commands import (
    Ask,
    Command,
    CompareAndSet,
    Expire,
    Failed,
    Get,
    GetAll,
    Keep,
    Members,
    Peek,
    Put,
    Register,
    Replace,
    Stage,
    Ttl,
    Ttls,
    Write,
)
from swapstore.drivers import refusals
from swapstore.drivers.base import Driver
from swapstore.drivers.rest import wire
from tests.rest.support import FACES, driver_of, store_on
from tests.support.rest import RestServer


@pytest.fixture(params=FACES)
def driver(request: pytest.FixtureRequest, rest: RestServer) -> Iterator[Driver]:
    with driver_of(request.param, rest.url, rest.token) as made:
        yield made


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFull),
        ("ERR DB capacity quota exceeded", StoreFull),
        ("READONLY You can't write against a read only replica.", ReadOnly),
        ("MISCONF Redis is configured to save RDB snapshots", ReadOnly),
        ("NOPERM this user has no permissions to run the 'set' command", AccessDenied),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", Corrupt),
        ("ERR max request size exceeded. Limit: 1048576 bytes, Actual: 2000000 bytes", PayloadTooLarge),
        ("ERR max single record size exceeded", PayloadTooLarge),
        ("ERR max daily request limit exceeded. Limit: 10000, Usage: 10000", Throttled),
        ("ERR max requests limit exceeded", Throttled),
        ("ERR unknown command 'SET', with args beginning with: 'a' 'the payload'", Unsupported),
        ("ERR Command is not available: 'SET'.", Unsupported),
        ("ERR something new", Unavailable),
    ],
)
def test_an_error_among_replies(
    driver: Driver, rest: RestServer, text: str, kind: type[SwapstoreError]
) -> None:
    """A refused command inside a response with status 200 counts as success."""
    rest.switches.fail(2, text)
    first, refused, last = driver.execute([Put("a", b"1", 999), Put("b", b"2", 999), Get("a")])
    assert (first, last) == (None, b"1")
    assert isinstance(refused, Failed)
    assert type(refused.error) is kind
    assert refused.error.key == "b"
    assert "the payload" not in str(refused.error)
    assert driver.execute([Get("b")]) == [None]


@pytest.mark.parametrize(
    "text",
    [
        "ERR unknown command 'EVALSHA', with args beginning with: 'abc'",
        "ERR Command is not available: 'EVALSHA'. See https://example.test/docs",
        'ERR Command "EVAL" is not allowed in REST or it has a special context path',
        "NOPERM this user has no permissions to run the 'eval' command",
        "NOPERM User r has no permissions to run the 'evalsha' command",
    ],
)
def test_an_endpoint_without_scripts_is_recognised(driver: Driver, rest: RestServer, text: str) -> None:
    """A store commits without scripts although the endpoint can run them."""
    for command in (Replace("a", b"x", 999), Ask(("EVAL", "return 1", "0"))):
        rest.switches.fail(1, text)
        (refused,) = driver.execute([command])
        assert isinstance(refused, Failed)
        assert type(refused.error) is Unscripted
    assert issubclass(Unscripted, AccessDenied)


@pytest.mark.parametrize(
    "text",
    [
        "ERR ACL failure in script: User r has no permissions to run the 'persist' command",
        "NOPERM No permissions to access a key",
        "ERR Unknown Redis command called from script script: abc, on @user_script:1.",
    ],
)
def test_an_error_inside_a_script_is_not_a_missing_script(
    driver: Driver, rest: RestServer, text: str
) -> None:
    """One missing right is taken for an endpoint without scripts."""
    rest.switches.fail(1, text)
    (refused,) = driver.execute([Replace("a", b"x", 999)])
    assert isinstance(refused, Failed)
    assert not isinstance(refused.error, Unscripted)


def test_a_script_that_the_server_forgot_is_sent_once_more(driver: Driver, rest: RestServer) -> None:
    """After a restart of the server every publish fails, or the rest of its batch is sent twice."""
    assert driver.execute([Replace("a", b"1", 999)]) == [True]
    driver.execute([Ask(("SCRIPT", "FLUSH"))])
    before = len(rest.requests)
    assert driver.execute([Register("s", "m"), Replace("a", b"2", 999), Get("a")]) == [None, True, b"1"]
    assert [asked.names for asked in rest.requests[before:]] == [["SADD", "EVALSHA", "GET"], ["EVAL"]]
    assert driver.execute([Get("a")]) == [b"2"]


def test_a_script_text_that_is_refused_temporarily(driver: Driver, rest: RestServer) -> None:
    """The rest of a batch that was carried out is sent again."""
    driver.execute([Replace("a", b"1", 999)])
    driver.execute([Ask(("SCRIPT", "FLUSH"))])
    rest.switches.answer(429, "", {"Retry-After": "1"}, when="EVAL")
    put, replaced = driver.execute([Put("b", b"x", 999), Replace("a", b"2", 999)])
    assert put is None
    assert isinstance(replaced, Failed)
    assert isinstance(replaced.error, Throttled)
    assert driver.execute([Get("a"), Get("b")]) == [b"1", b"x"]


def test_a_lost_reply_to_a_script_text(driver: Driver, rest: RestServer) -> None:
    """What the endpoint may have carried out is told as refused."""
    driver.execute([Replace("a", b"1", 9999)])
    driver.execute([Ask(("SCRIPT", "FLUSH"))])
    rest.switches.drop_after(when="EVAL")
    with pytest.raises(ReplyLost):
        driver.execute([Put("b", b"x", 999), Replace("a", b"2", 999)])
    assert driver.execute([Get("a")]) == [b"2"]


def test_a_lost_reply_to_a_replacement(driver: Driver, rest: RestServer) -> None:
    """The same, where another command takes the place of one."""
    rest.switches.denied = frozenset({"PEXPIRE"})
    rest.switches.drop_after(when="EXPIRE")
    with pytest.raises(ReplyLost):
        driver.execute([Put("b", b"x", 999), Expire("b", 5000)])


def test_a_replacement_that_is_refused_temporarily(driver: Driver, rest: RestServer) -> None:
    """The rest of a batch that was carried out is sent again, or its commit is told as failed."""
    rest.switches.denied = frozenset({"PEXPIRE", "GETRANGE"})
    rest.switches.answer(429, "", {"Retry-After": "1"}, when="EXPIRE", times=1)
    put, expired = driver.execute([Put("b", b"x", 9999), Expire("b", 5000)])
    assert put is None
    assert isinstance(expired, Failed)
    assert isinstance(expired.error, Throttled)
    rest.switches.denied = frozenset({"PEXPIRE", "EXPIRE"})
    (expired,) = driver.execute([Expire("b", 5000)])
    assert isinstance(expired, Failed)
    rest.switches.denied = frozenset({"GETRANGE"})
    assert driver.execute([Expire("b", 5000)]) == [None]
    assert rest.requests[-1].names == ["PEXPIRE"], "nothing shows that the other one is better"
    rest.switches.denied = frozenset({"PEXPIRE", "GETRANGE"})
    assert driver.execute([Put("b", b"y", 9999), Expire("b", 5000)]) == [None, None]
    rest.switches.answer(429, "", {"Retry-After": "1"}, when="GET", times=1)
    with pytest.raises(Throttled):  # nothing but reads: all of it may be sent again
        driver.execute([Ttl("b"), Peek("b", 9)])
    assert driver.execute([Peek("b", 9)]) == [b"y"]


def test_a_replacement_never_shortens_a_ttl(driver: Driver, rest: RestServer) -> None:
    """A record that is to stay for half a second is deleted at once, under a reader."""
    rest.switches.denied = frozenset({"PEXPIRE"})
    for ttl_ms, sent in ((500, b"1"), (30_500, b"31"), (30_000, b"30")):
        driver.execute([Put("b", b"x", 90_000), Expire("b", ttl_ms)])
        assert rest.requests[-1].commands[-1] == (b"EXPIRE", b"b", sent)


def drop_last(items: list[Any]) -> list[Any]:
    return items[:-1]


@pytest.mark.parametrize(
    "change",
    [
        drop_last,
        lambda items: [*items, {"result": "OK"}],
        lambda items: [{}, *items[1:]],
        lambda items: [None, *items[1:]],
        lambda items: [{"error": 5}, *items[1:]],
        lambda items: [{"result": "OK", "error": "both"}, *items[1:]],
        lambda items: [{"result": {"a": 1}}, *items[1:]],
        lambda items: [{"result": 1.5}, *items[1:]],
        lambda items: [{"result": True}, *items[1:]],
        lambda items: [*items[:1], {"result": ["T0s="]}, *items[2:]],
        lambda items: [*items[:1], {"result": 7}, *items[2:]],
        lambda items: [*items[:2], {"result": "b25l"}, *items[3:]],
        lambda items: [*items[:3], {"result": "T0s="}, *items[4:]],
        lambda items: [*items[:1], {"result": "no base64!"}, *items[2:]],
    ],
)
def test_replies_of_the_wrong_number_or_type(
    driver: Driver, rest: RestServer, change: Callable[[list[Any]], list[Any]]
) -> None:
    """A reply that belongs to another command is taken for this one's."""
    driver.execute([Get("warm")])
    rest.switches.mangle(lambda raw: json.dumps(change(json.loads(raw))).encode())
    with pytest.raises(ReplyLost, match="whether the request was carried out is not known"):
        driver.execute([Put("a", b"x", 999), Peek("a", 9), Ttl("a"), Members("s")])


@pytest.mark.parametrize(
    "change",
    [
        lambda items: [{"result": items[0]["result"][:1]}, items[1]],
        lambda items: [{"result": [1, None]}, items[1]],
        lambda items: [{"result": "eA=="}, items[1]],
        lambda items: [items[0], {"result": [-1]}],
        lambda items: [items[0], {"result": [-1, None]}],
        lambda items: [items[0], {"result": -1}],
    ],
)
def test_replies_about_many_keys_of_the_wrong_number_or_type(
    driver: Driver, rest: RestServer, change: Callable[[list[Any]], list[Any]]
) -> None:
    """The record of one snapshot is taken for that of another."""
    driver.execute([Put("a", b"x", 999)])
    values, ttls = driver.execute([GetAll(("a", "b")), Ttls(("a", "b"))])
    assert (values, len(ttls)) == ([b"x", None], 2)
    rest.switches.mangle(lambda raw: json.dumps(change(json.loads(raw))).encode())
    with pytest.raises(ReplyLost, match="does not fit its command"):
        driver.execute([GetAll(("a", "b")), Ttls(("a", "b"))])


def test_binary_arguments_are_refused_before_anything_is_sent(driver: Driver, rest: RestServer) -> None:
    """Binary arguments arrive changed, or stop the batch in the middle."""
    for command in (Stage("k", b"\xff", 999), Put("k", b"\xc3\x28", 999), Write("k", b"\x80")):
        with pytest.raises(InvalidInput, match="codec='bytes'") as caught:
            driver.execute([Put("a", b"x", 999), command])
        assert caught.value.key == "k"
        assert "k cannot be sent" in str(caught.value)
    assert rest.requests == []


def test_binary_payloads_can_be_published(driver: Driver, rest: RestServer) -> None:
    """A binary payload cannot be stored through an endpoint that carries only text."""
    store = store_on(driver, rest.url, rest.token)
    store.publish("mena", bytes(range(256)), codec="bytes")
    other = store_on(driver, rest.url, rest.token)
    latest = other.read_latest("mena")
    assert latest is not None
    assert latest.value == bytes(range(256))


def test_an_empty_batch_sends_nothing(driver: Driver, rest: RestServer) -> None:
    """An endpoint refuses an empty list, and the batch fails."""
    assert driver.execute([]) == []
    assert rest.requests == []


def test_the_first_exchange_detects_the_encoding(driver: Driver, rest: RestServer) -> None:
    """Every request carries one more command, instead of the first one only."""
    assert driver.execute([Put("a", b"x", 999)]) == [None]
    assert driver.execute([Get("a")]) == [b"x"]
    assert [asked.names for asked in rest.requests] == [["SET", "ECHO"], ["GET"]]
    assert {asked.headers["upstash-encoding"] for asked in rest.requests} == {"base64"}


def plain(raw: bytes) -> bytes:
    """Answer like an endpoint that ignores the encoding header."""

    def undo(value: Any) -> Any:
        if isinstance(value, list):
            return [undo(each) for each in value]
        if isinstance(value, str) and value != "OK":
            from base64 import b64decode  # noqa: PLC0415

            return b64decode(value).decode("utf-8", "replace")
        return value

    items = json.loads(raw)
    return json.dumps(
        [{k: undo(v) if k == "result" else v for k, v in item.items()} for item in items]
    ).encode()


@pytest.mark.parametrize("echo", [True, False])
def test_an_endpoint_that_answers_in_plain_text(driver: Driver, rest: RestServer, *, echo: bool) -> None:
    """Data of a self-hosted endpoint that ignores the header is garbled, or refused."""
    if not echo:
        rest.switches.denied = frozenset({"ECHO"})
    rest.switches.mangle(plain, times=9999)
    store = store_on(driver, rest.url, rest.token)
    store.publish("mena", {"text": "ünï ☃ mena OK"}, id="one")
    store.publish("mena", ["T0s=", "abcd"], id="two")
    other = store_on(driver, rest.url, rest.token)
    assert [(row.id, row.version) for row in other.history("mena")] == [("two", 2), ("one", 1)]
    one, two = other.read("mena", id="one"), other.read("mena", id="two")
    assert one is not None
    assert two is not None
    assert (one.value, two.value) == ({"text": "ünï ☃ mena OK"}, ["T0s=", "abcd"])


def test_a_detected_encoding_is_kept(driver: Driver, rest: RestServer) -> None:
    """Without an echo, plain `mena` is decoded as base64, and the name is garbled."""
    rest.switches.denied = frozenset({"ECHO"})
    rest.switches.mangle(plain, times=9999)
    driver.execute([Put("a", b"{}", 9999), Register("s", "mena"), Get("a")])
    assert driver.execute([Members("s")]) == [frozenset({"mena"})]


def test_a_denied_echo_is_not_sent_again(driver: Driver, rest: RestServer) -> None:
    """Every request carries, and pays for, a command that is refused."""
    rest.switches.denied = frozenset({"ECHO"})
    for _ in range(6):
        assert driver.execute([Get("a")]) == [None]
    assert rest.count("ECHO") == 3


def test_texts_are_whole_where_echo_is_denied(driver: Driver, rest: RestServer) -> None:
    """A reader whose token may not ECHO gets garbled texts."""
    rest.switches.denied = frozenset({"ECHO"})
    for value in (b"mena", b64encode(b"mena"), b"{}", b"OK"):
        assert driver.execute([Put("a", value, 999), Get("a")]) == [None, value]


@pytest.mark.parametrize("command", [Keep("k", b"v"), CompareAndSet("k", b"v", b"w"), Stage("k", b"v", 9)])
@pytest.mark.parametrize("reply", [0, 1, b"", b"QUEUED", []])
def test_only_ok_means_that_something_was_set(command: Command[bool], reply: object) -> None:
    """A swap that did not happen is acknowledged."""
    assert wire.value(command, b"OK", ("SET",)) is True
    assert wire.value(command, None, ("SET",)) is False
    with pytest.raises(wire.Unreadable):
        wire.value(command, reply, ("SET",))


@pytest.mark.parametrize(
    ("text", "is_sent_again"),
    [
        ("READONLY You can't write against a read only replica.", True),
        ("ERR Error running script (call to f_1): @user_script:9: -READONLY You can't write", True),
        ("MASTERDOWN Link with MASTER is down", True),
        ("BUSY Redis is busy running a script.", True),
        ("BUSYKEY Target key name already exists.", False),
        ("ERR unknown command 'READONLY'", False),
    ],
)
def test_what_another_server_will_carry_out(text: str, *, is_sent_again: bool) -> None:
    """A publish fails during a failover, because the server names the reason inside that of a script."""
    assert refusals.is_misdirected(text) is is_sent_again
