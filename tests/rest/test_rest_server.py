"""The REST server of these tests behaves as Upstash documents: otherwise the tests prove nothing."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Iterator

import pytest

from tests.support.rest import RestServer
from tests.support.valkey import Server
from tests.support.web import Answer

BINARY = bytes(range(256))


class Client:
    """A plain HTTP client that keeps its connection."""

    def __init__(self, rest: RestServer) -> None:
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", int(rest.url.rpartition(":")[2]), timeout=5
        )
        self.headers = {"Authorization": f"Bearer {rest.token}"}

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send a request; `Upstash_Encoding` is the header Upstash-Encoding."""
        more = {name.replace("_", "-"): text for name, text in headers.items()}
        self._connection.request(method, path, body, {**self.headers, **more})
        answer = self._connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())

    def run(self, *command: str | int, **headers: str) -> Answer:
        return self.send("POST", "/", json.dumps(command).encode(), **headers)

    def pipeline(self, *commands: list[str], path: str = "/pipeline", **headers: str) -> Answer:
        return self.send("POST", path, json.dumps(commands).encode(), **headers)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def client(rest: RestServer) -> Iterator[Client]:
    made = Client(rest)
    yield made
    made.close()


def test_one_command(client: Client) -> None:
    """A driver that works here does not understand the first response of the real service."""
    answer = client.run("SET", "k", "é", "EX", 100)
    assert (answer.status, answer.json) == (200, {"result": "OK"})
    assert answer.headers["Content-Type"] == "application/json"
    assert client.run("GET", "k").json == {"result": "é"}
    assert client.run("GET", "none").json == {"result": None}
    assert client.run("TTL", "k").json["result"] in {99, 100}
    assert client.run("EVAL", "return {1, 'a', {false, 'b'}}", 0).json == {"result": [1, "a", [None, "b"]]}


@pytest.mark.parametrize(
    ("method", "path", "body", "result"),
    [
        ("GET", "/get/a%2Fb", None, "1"),
        ("POST", "/get/a%2Fb", None, "1"),
        ("GET", "/SET/k/v/EX/100", None, "OK"),
        ("POST", "/set/k?EX=100&NX", b"v", "OK"),
        ("PUT", "/set/k", b'{"a": 1}', "OK"),
    ],
)
def test_a_command_as_a_path(client: Client, method: str, path: str, body: bytes | None, result: str) -> None:
    """The documented curl readers run against something that does not exist."""
    client.run("SET", "a/b", "1")
    assert client.send(method, path, body).json == {"result": result}
    if body:
        assert client.run("GET", "k").json == {"result": body.decode()}


def test_a_pipeline_is_not_atomic(client: Client) -> None:
    """No test sees an HTTP 200 around a failed command."""
    answer = client.pipeline(["SET", "k", "x"], ["INCR", "k"], ["SET", "after", "1"], ["NOPE", "a"])
    assert answer.status == 200
    done, failed, after, unknown = answer.json
    assert (done, after) == ({"result": "OK"}, {"result": "OK"})
    assert failed == {"error": "ERR value is not an integer or out of range"}
    assert unknown["error"].startswith("ERR Command is not available: 'NOPE'. See ")


def test_a_transaction_is_atomic(client: Client) -> None:
    """A driver that relies on /multi-exec is tested against a pipeline."""
    answer = client.pipeline(["SET", "k", "x"], ["INCR", "k"], ["GET", "k"], path="/multi-exec")
    assert [list(item) for item in answer.json] == [["result"], ["error"], ["result"]]
    for broken in (["NOPE"], ["GET"]):
        discarded = client.pipeline(["SET", "k", "y"], broken, path="/multi-exec")
        assert discarded.status == 400
        assert discarded.json["error"].startswith("ERR ")
        assert client.run("GET", "k").json == {"result": "x"}, "none of it was carried out"


def test_a_failing_command_is_a_bad_request(client: Client) -> None:
    """The driver does not know the form of an error, or does not get its code."""
    for command, error in [
        (["GET"], "ERR wrong number of arguments for 'get' command"),
        (["EVALSHA", "0" * 40, "0"], "NOSCRIPT No matching script."),
        (["MULTI"], 'ERR Command "MULTI" is not allowed in REST or it has a special context path'),
    ]:
        answer = client.run(*command)
        assert (answer.status, answer.json) == (400, {"error": error})


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/", b"{", 400),
        ("/", b"[]", 400),
        ("/", b'["SET", "k", null]', 400),
        ("/", b'["SET", "k", "\\ud800"]', 400),
        ("/pipeline", b'["GET", "k"]', 400),
    ],
)
def test_an_invalid_command_is_refused(client: Client, path: str, body: bytes, status: int) -> None:
    """What production refuses is accepted here."""
    answer = client.send("POST", path, body)
    assert answer.status == status
    assert list(answer.json) == ["error"]
    assert client.send("DELETE", "/get/k").status == 405


def test_tokens(client: Client, rest: RestServer) -> None:
    """A wrong token looks like a dataset that does not exist."""
    client.run("SET", "k", "v")
    for wrong in ({}, {"Authorization": "Bearer no"}, {"Authorization": "Basic eDp5"}):
        client.headers = dict(wrong)
        answer = client.run("GET", "k")
        assert (answer.status, answer.json) == (401, {"error": "WRONGPASS invalid or missing auth token"})
    client.headers = {}
    assert client.send("GET", f"/get/k?_token={rest.token}").json == {"result": "v"}
    assert rest.token not in repr(rest.requests)


def test_the_read_only_token(client: Client, rest: RestServer) -> None:
    """A reader's token that can write, or cannot read, is found only in production."""
    client.run("SET", "k", "v")
    client.headers = {"Authorization": f"Bearer {rest.read_only_token}"}
    read = client.pipeline(["GET", "k"], ["PTTL", "k"], ["GETRANGE", "k", "0", "0"], ["SMEMBERS", "s"])
    assert [item["result"] for item in read.json] == ["v", -1, "v", []]
    for refused in (["SET", "k", "w"], ["EVAL", "return 1", "0"], ["SCAN", "0"], ["PUBLISH", "c", "m"]):
        answer = client.run(*refused)
        assert answer.status == 400
        name = refused[0].lower()
        assert answer.json["error"] == (
            f"NOPERM this user has no permissions to run the '{name}' command or its subcommand"
        )


def test_base64(client: Client, valkey: Server) -> None:
    """Binary payloads come back damaged, or an encoded one is taken for text."""
    with valkey.client() as direct:
        direct.set("k", BINARY)
        direct.set("ok", b"OK")
        direct.sadd("s", b"\xff")
    asked: list[list[str]] = [
        ["GET", "k"],
        ["SET", "n", "1"],
        ["GET", "ok"],
        ["INCR", "n"],
        ["SMEMBERS", "s"],
        ["EVAL", "return {redis.status_reply('OK'), {'x'}, 7}", "0"],
        ["PING"],
        ["GET", "none"],
        ["NOPE"],
    ]
    plain = client.pipeline(*asked).json
    assert plain[0]["result"] == BINARY.decode("utf-8", "replace")
    items = client.pipeline(*asked, Upstash_Encoding="base64").json
    assert base64.b64decode(items[0]["result"]) == BINARY
    assert [item.get("result") for item in items[1:8]] == [
        "OK",
        "T0s=",
        2,
        ["/w=="],
        ["T0s=", ["eA=="], 7],
        "UE9ORw==",
        None,
    ]
    assert items[8]["error"].startswith("ERR "), "errors are never encoded"


def test_connections_are_kept_and_closed(rest: RestServer, client: Client) -> None:
    """Every request pays for a new connection, or a test leaves threads behind."""
    for _ in range(3):
        client.run("PING")
    assert {each.connection for each in rest.requests} == {1}
    rest.close()
    assert not [
        each
        for each in threading.enumerate()
        if each.name.startswith(("rest", "Thread-")) and "process_request" in each.name
    ]
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        client.run("PING")


def test_requests_are_recorded(rest: RestServer, client: Client) -> None:
    """No test can count what the driver sends."""
    client.pipeline(["SET", "k", "v"], ["EVAL", "return 1", "0"], Upstash_Encoding="base64")
    (asked,) = rest.requests
    assert (asked.method, asked.path, asked.names) == ("POST", "/pipeline", ["SET", "EVAL"])
    assert asked.commands[0] == (b"SET", b"k", b"v")
    assert asked.headers["upstash-encoding"] == "base64"
    assert rest.count("eval") == 1
