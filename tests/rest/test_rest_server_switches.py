"""The faults of the REST server of the tests: without them, tests of the driver's errors prove nothing."""

from __future__ import annotations

import http.client
import time

import pytest

from tests.rest.test_rest_server import Client, client
from tests.support.rest import RestServer
from tests.support.rest_switches import TooLarge

__all__ = ["client"]

GONE = (ConnectionError, http.client.HTTPException)


def test_fail_one_command(rest: RestServer, client: Client) -> None:
    """No test can refuse a payload while the pointer is written."""
    rest.switches.fail(1, "OOM command not allowed when used memory > 'maxmemory'.", when="EVAL", skip=1)
    commands = ["SET", "a", "1"], ["EVAL", "return 1", "0"]
    assert client.run("PING").status == 200, "it waits for a request with EVAL"
    assert client.pipeline(*commands).json[0] == {"result": "OK"}, "and lets one pass"
    client.run("DEL", "a")
    failed, done = client.pipeline(*commands).json
    assert failed["error"].startswith("OOM ")
    assert done == {"result": 1}
    assert client.run("GET", "a").json == {"result": None}, "it was not run"
    assert client.pipeline(*commands).json[0] == {"result": "OK"}, "once"


def test_fail_within_a_transaction(rest: RestServer, client: Client) -> None:
    """A driver passes that forgets that the neighbours of a failed command are carried out."""
    rest.switches.fail(2, "WRONGTYPE x")
    answer = client.pipeline(["SET", "a", "1"], ["SET", "b", "1"], ["SET", "c", "1"], path="/multi-exec")
    assert answer.json == [{"result": "OK"}, {"error": "WRONGTYPE x"}, {"result": "OK"}]


def test_permanent_refusals(rest: RestServer, client: Client) -> None:
    """A provider without scripts cannot be told from one that fails now and then."""
    rest.switches.denied = frozenset(["EVAL"])
    rest.switches.failing = {"GET": "ERR max daily request limit exceeded"}
    for _ in range(2):
        assert (
            client.run("EVAL", "return 1", 0).json["error"].startswith("ERR Command is not available: 'EVAL'")
        )
        assert client.run("GET", "k").json == {"error": "ERR max daily request limit exceeded"}
    assert client.pipeline(["SET", "k", "v"], ["EVAL", "return 1", "0"], path="/multi-exec").status == 400
    assert client.run("STRLEN", "k").json == {"result": 0}


@pytest.mark.parametrize(("switch", "applied"), [("drop_before", False), ("drop_after", True), ("cut", True)])
def test_drop(rest: RestServer, client: Client, switch: str, applied: bool) -> None:  # noqa: FBT001
    """A lost request and a lost reply are the same in the tests, but not for a producer."""
    getattr(rest.switches, switch)(when="SET")
    with pytest.raises(GONE):
        client.run("SET", "k", "v")
    client.close()
    assert client.run("EXISTS", "k").json == {"result": int(applied)}


def test_delay(rest: RestServer, client: Client) -> None:
    """No test can make a time-out happen before or after the commit."""
    other = Client(rest)
    for delay, applied in ((rest.switches.delay_before, 0), (rest.switches.delay_after, 1)):
        client.run("DEL", "k")
        delay(0.5, when="SET")
        asked, started = rest.count("SET"), time.monotonic()
        client._connection.request("POST", "/", b'["SET", "k", "v"]', client.headers)
        while rest.count("SET") == asked:
            time.sleep(0.001)
        time.sleep(0.02)
        assert other.run("EXISTS", "k").json == {"result": applied}
        client._connection.getresponse().read()
        assert time.monotonic() - started >= 0.5
        assert other.run("EXISTS", "k").json == {"result": 1}, "late, but done"
    other.close()


def test_a_server_with_slow_requests_stops_at_once(rest: RestServer, client: Client) -> None:
    """A test of time-outs takes as long as its longest delay."""
    rest.switches.delay_before(60)
    client._connection.request("POST", "/", b'["PING"]', client.headers)
    while not rest.requests:
        time.sleep(0.001)
    started = time.monotonic()
    rest.close()
    assert time.monotonic() - started < 5


def test_the_size_limit(rest: RestServer, client: Client) -> None:
    """No test can refuse a large payload and accept its small neighbours."""
    rest.switches.cap_bytes = 1000
    big = "x" * 2000
    batch = ["SET", "big", big], ["SET", "pointer", "big"]
    error = "ERR max request size exceeded. Limit: 1000 bytes, Actual: 2006 bytes"
    assert client.pipeline(*batch).json == [{"error": error}, {"result": "OK"}]
    client.run("DEL", "pointer")
    discarded = client.pipeline(*batch, path="/multi-exec")
    assert (discarded.status, discarded.json) == (400, {"error": error})
    kinds: list[tuple[TooLarge, int]] = [("request", 400), ("413", 413)]
    for kind, status in kinds:
        rest.switches.too_large = kind
        answer = client.pipeline(*batch)
        assert (answer.status, answer.json["error"][:30]) == (status, error[:30])
    assert client.run("EXISTS", "pointer").json == {"result": 0}


def test_the_size_limit_that_resets_the_connection(rest: RestServer, client: Client) -> None:
    """No test can have a gateway that resets the connection during a large body."""
    rest.switches.cap_bytes, rest.switches.too_large = 1000, "reset"
    with pytest.raises(GONE):
        client.run("SET", "big", "x" * 5_000_000)
    client.close()
    assert client.run("EXISTS", "big").json == {"result": 0}


def test_the_size_limit_applies_to_replies(rest: RestServer, client: Client) -> None:
    """No test can have a value that was written in parts, or under a larger plan, and cannot be read."""
    client.run("SET", "big", "x" * 2000)
    rest.switches.cap_bytes = 1000
    answer = client.run("GET", "big")
    assert answer.status == 400
    assert answer.json["error"] == "ERR max request size exceeded. Limit: 1000 bytes, Actual: 2000 bytes"
    assert client.run("GETRANGE", "big", 0, 9).json == {"result": "x" * 10}


def test_responses_of_something_else(rest: RestServer, client: Client) -> None:
    """Rate limits, gateways and login pages are not tested, and a driver may read them as data."""
    rest.switches.answer(429, '{"error":"slow down"}', {"Retry-After": "1"}, when="SET", times=2)
    rest.switches.answer(302, headers={"Location": "http://127.0.0.1:1/"}, applied=True, when="SET")
    for _ in range(2):
        answer = client.run("SET", "k", "v")
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
    assert client.run("EXISTS", "k").json == {"result": 0}
    answer = client.run("SET", "k", "v")
    assert (answer.status, answer.headers["Location"]) == (302, "http://127.0.0.1:1/")
    assert client.run("EXISTS", "k").json == {"result": 1}, "a gateway may fail after the fact"


def test_damaged_responses(rest: RestServer, client: Client) -> None:
    """A driver passes that takes the reply to one command for that to another."""
    rest.switches.mangle(lambda body: body[:-3])
    rest.switches.mangle(lambda body: b"[" + body.split(b",", 1)[1])
    assert client.pipeline(["PING"], ["GET", "k"]).body == b'[{"result":"PONG"},{"result":nul'
    assert client.pipeline(["PING"], ["GET", "k"]).json == [{"result": None}]


def test_a_replica_that_lags(rest: RestServer, client: Client) -> None:
    """Readers of a replica are tested with up-to-date data only."""
    client.run("SET", "k", "1", "EX", 100)
    rest.lag.start()
    client.pipeline(["SET", "k", "2"], ["SET", "new", "x"])
    seen = client.pipeline(
        ["GET", "k"], ["GETRANGE", "k", "0", "0"], ["EXISTS", "new"], ["SCAN", "0"], ["TTL", "k"]
    )
    assert [item["result"] for item in seen.json[:4]] == ["1", "1", 0, ["0", ["k"]]]
    assert seen.json[4]["result"] in {99, 100}
    assert client.run("EVAL", "return redis.call('GET', 'k')", 0).json == {"result": "2"}, "scripts write"
    rest.lag.catch_up("new")
    assert [item["result"] for item in client.pipeline(["GET", "k"], ["GET", "new"]).json] == ["1", "x"]
    rest.lag.catch_up()
    assert client.run("GET", "k").json == {"result": "2"}
    client.run("DEL", "k")
    assert client.run("EXISTS", "k").json == {"result": 1}
    rest.lag.stop()
    assert client.run("EXISTS", "k").json == {"result": 0}


def test_keys_lag_one_by_one(rest: RestServer, client: Client) -> None:
    """No test can show a manifest before its payload, which the bounded re-read is for."""
    client.run("MSET", "manifest", "1", "id:1", "one")
    rest.lag.only("id:*")
    client.pipeline(["SET", "id:2", "two"], ["SET", "manifest", "2"], ["DEL", "id:1"])
    seen = client.pipeline(["GET", "manifest"], ["GET", "id:2"], ["GET", "id:1"])
    assert [item["result"] for item in seen.json] == ["2", None, "one"]
    rest.lag.catch_up("id:2", "id:1")
    assert client.run("MGET", "id:1", "id:2").json == {"result": [None, "two"]}


def test_sync_tokens(rest: RestServer, client: Client) -> None:
    """A producer cannot read what it wrote, and it is noticed only in production."""
    client.run("SET", "k", "1")
    early = client.run("GET", "k").headers["Upstash-Sync-Token"]
    rest.lag.start()
    written = client.run("SET", "k", "2").headers["upstash-sync-token"]
    assert client.run("GET", "k", upstash_sync_token=early).json == {"result": "1"}
    assert client.run("GET", "k", upstash_sync_token="").json == {"result": "1"}
    assert client.run("GET", "k", upstash_sync_token=written).json == {"result": "2"}
    assert client.pipeline(["SET", "j", "1"], ["GET", "j"]).json[1] == {"result": "1"}, "its own write"
    rest.lag.honours_sync_token = False
    assert client.run("GET", "k", upstash_sync_token=written).json == {"result": "1"}
