"""What the page says about the SDK is what the SDK does. Where that changes, the page is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swapstore import Store
from tests.interop.conftest import run
from tests.support.rest import RestServer
from tests.support.valkey import Server

Script = Callable[[str], Any]


@pytest.fixture
def script(project: Path, environment: dict[str, str]) -> Script:
    """Runs JavaScript that has `Redis`, and ends by calling `show` with the result."""

    def call(text: str) -> Any:
        top = (
            'import { Redis } from "@upstash/redis";\nconst show = (it) => console.log(JSON.stringify(it));\n'
        )
        (project / "script.mjs").write_text(top + text, "utf-8")
        done = run("node", "script.mjs", cwd=project, env=environment)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    return call


def test_it_parses_what_it_reads(script: Script, store: Store, valkey: Server) -> None:
    """The page is wrong: a reader without the option does not fail on empty payloads or round numbers."""
    store.publish("mena", b"", codec="bytes", id="x")
    with valkey.client() as client:
        client.set("plain", '{"n": 12345678901234567890}')
    kinds = script("""
        const [parsed, asIs] = [Redis.fromEnv(), Redis.fromEnv({ automaticDeserialization: false })];
        const key = "swapstore:id:{mena}:x";
        show([typeof (await parsed.get(key)), typeof (await asIs.get(key)), await parsed.get("plain"),
              await asIs.get("plain")]);
    """)
    assert kinds[:2] == ["object", "string"]
    assert str(kinds[2]["n"]) != "12345678901234567890"
    assert kinds[3] == '{"n": 12345678901234567890}'


@pytest.mark.parametrize("options", ["{}", "{ responseEncoding: false }"])
def test_it_turns_bytes_into_text(script: Script, valkey: Server, options: str) -> None:
    """The page sends people with binary payloads to a reader that cannot read them."""
    with valkey.client() as client:
        client.set("k", b"\xff\xfea")
    read = script(f'show(await Redis.fromEnv({options}).get("k"));')
    assert read == "\ufffd\ufffda"


@pytest.mark.parametrize(
    ("retry", "sent"), [("{ backoff: () => 1 }", 6), ("false", 2), ("{ retries: 0 }", 1)]
)
def test_it_retries_without_an_answer(script: Script, rest: RestServer, retry: str, sent: int) -> None:
    """The page is wrong: somebody who wants a command sent once has it sent twice."""
    rest.switches.drop_before(times=100)
    failed = script(f'await Redis.fromEnv({{ retry: {retry} }}).get("k").catch((error) => show(error.name));')
    assert failed == "TypeError", "what fetch throws"
    assert len(rest.requests) == sent


def test_it_does_not_retry_after_an_answer(script: Script, rest: RestServer) -> None:
    """A reader relies on the SDK to wait for the end of a rate limit, and it does not."""
    rest.switches.answer(429, '{"error":"slow down"}', {"Retry-After": "1"}, times=100)
    failed = script('await Redis.fromEnv().get("k").catch((error) => show([error.name, error.message]));')
    assert failed[0] == "UpstashError"
    assert "slow down" in failed[1]
    assert len(rest.requests) == 1


def test_it_passes_the_sync_token_on(script: Script, rest: RestServer) -> None:
    """The page is wrong about why a reader may not see another client's write."""
    script('const redis = Redis.fromEnv(); await redis.get("a"); await redis.get("b"); show(0);')
    first, second = [each.headers.get("upstash-sync-token") for each in rest.requests]
    assert not first
    assert second == "primary:0"


def test_it_is_not_cached(script: Script) -> None:
    """A page that is rendered by a framework shows the first snapshot permanently."""
    seen = script("""
        const send = globalThis.fetch;
        const seen = [];
        globalThis.fetch = (url, options) => (seen.push(options.cache), send(url, options));
        await Redis.fromEnv().get("k");
        show(seen);
    """)
    assert seen == ["no-store"]


def test_it_batches(script: Script, rest: RestServer) -> None:
    """The page gives another number of requests than the SDK sends."""
    script('const redis = Redis.fromEnv(); await Promise.all([redis.get("a"), redis.get("b")]); show(0);')
    assert [each.names for each in rest.requests] == [["GET", "GET"]]
