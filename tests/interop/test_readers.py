"""The documented readers in TypeScript and shell get what swapstore published, or say why not."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import msgspec
import pytest

import swapstore
from swapstore import Store
from swapstore.models import Compression
from tests.interop.conftest import Language, Read, Reader, blocks, reader_of, run
from tests.support.rest import RestServer
from tests.support.rest_proxy import SmallProxy
from tests.support.valkey import Server

TEXT = '{ "kept": 1.00, "big": 12345678901234567890, "text": "é\\n\\u0000 �" }\n'.encode()
BINARY = bytes(range(256)) * 40


def stored_as_base64(valkey: Server, dataset: str, row: swapstore.Row) -> None:
    """Store a record of text in the form that a publish over REST gives to other records."""
    key = f"swapstore:id:{{{dataset}}}:{row.id}"
    with valkey.client() as client:
        header, _, payload = client.get(key).partition(b"\n")
        entry = {**json.loads(header), "encoding": "base64"}
        client.set(key, json.dumps(entry).encode() + b"\n" + base64.b64encode(payload))


def complains(found: Read, language: Language, code: str) -> bool:
    """Whether a reader failed for this reason."""
    said = "missing or altered" if language == "curl" else f"code: '{code}'"
    return found.payload is None and said in found.complaint


def test_text_is_read_byte_for_byte(store: Store, reader: Reader) -> None:
    """A front end shows other numbers than the producer published, or fails on an umlaut."""
    store.publish("eu/prices", {"old": True})
    store.publish("eu/prices", msgspec.Raw(TEXT))
    assert reader("eu/prices").payload == TEXT


def test_nothing_published_is_not_an_error(store: Store, reader: Reader) -> None:
    """A dataset without a publish looks like an outage."""
    assert reader("mena").nothing


def test_a_pinned_snapshot_is_what_is_served(store: Store, reader: Reader) -> None:
    """After a pin the front end still shows the snapshot that the operator took away."""
    store.publish("mena", "good", id="good")
    store.publish("mena", "bad", id="bad/with@all:signs+1")
    assert reader("mena").payload == b'"bad"'
    store.pin("mena", id="good")
    assert reader("mena").payload == b'"good"'


def test_data_published_over_rest_is_read(rest_store: Store, valkey: Server, reader: Reader) -> None:
    """Only swapstore itself can read what a producer published over REST."""
    rest_store.publish("text", msgspec.Raw(TEXT))
    assert reader("text").payload == TEXT
    rest_store.publish("image", BINARY, codec="bytes", id="x")
    with valkey.client() as client:
        assert b'"encoding":"base64"' in client.get("swapstore:id:{image}:x")
    assert reader("image").payload == BINARY


@pytest.mark.parametrize("payload", [b"", b"line\nand line\n"])
def test_any_body_may_be_base64(store: Store, valkey: Server, reader: Reader, payload: bytes) -> None:
    """A reader that guesses the encoding from the content, not from the entry, fails on some payloads."""
    store.publish("mena", payload, codec="bytes")
    (row,) = store.history("mena")
    stored_as_base64(valkey, "mena", row)
    assert reader("mena").payload == payload


def test_binary_published_over_redis(store: Store, reader: Reader, language: Language) -> None:
    """Damaged bytes pass as the payload. The SDK cannot carry them, and its reader must say so."""
    store.publish("mena", BINARY, codec="bytes")
    found = reader("mena")
    if language == "sdk":
        assert found.payload is None
        assert complains(found, language, "corrupt")
    else:
        assert found.payload == BINARY


def test_an_empty_payload(store: Store, reader: Reader) -> None:
    """The header of a record without a body is taken for the value."""
    store.publish("mena", b"", codec="bytes")
    found = reader("mena")
    assert (found.payload, found.complaint) == (b"", "")


def test_a_record_that_a_replica_shows_late(
    rest: RestServer, store: Store, reader: Reader, language: Language
) -> None:
    """Readers fail after each publish on a replica that shows the manifest first."""
    store.publish("mena", {"a": 1})
    rest.switches.mangle(late, when="GET", skip=1 if language == "curl" else 0)
    assert reader("mena").payload == b'{"a":1}'
    asked = [command[1].split(b":")[1] for each in rest.requests for command in each.commands]
    assert asked == [b"manifest", b"id", b"manifest", b"id"]


def late(body: bytes) -> bytes:
    """The reply when there is no such key."""
    return b'[{"result":null}]' if body.startswith(b"[") else b'{"result":null}'


def test_a_record_that_is_missing(rest: RestServer, store: Store, reader: Reader, language: Language) -> None:
    """Lost data looks like "nothing published yet", as in the six-command layout."""
    store.publish("mena", {"a": 1})
    rest.lag.only("swapstore:id:*")
    store.publish("mena", {"a": 2})
    found = reader("mena")
    assert not found.nothing
    assert found.payload is None
    assert complains(found, language, "missing")
    assert found.code == (5 if language == "curl" else 1)


def test_an_altered_record(store: Store, valkey: Server, reader: Reader, language: Language) -> None:
    """A value that somebody wrote by hand is served as if it had been published."""
    store.publish("mena", {"a": 1}, id="x")
    key = "swapstore:id:{mena}:x"
    with valkey.client() as client:
        client.set(key, client.get(key).replace(b'{"a":1}', b'{"a":2}'))
    assert complains(reader("mena"), language, "corrupt")


@pytest.mark.parametrize("status", [401, 503])
def test_an_outage_is_an_error(
    rest: RestServer, store: Store, reader: Reader, language: Language, status: int
) -> None:
    """A wrong token or an outage looks like an empty dataset."""
    store.publish("mena", {"a": 1})
    rest.switches.answer(status, '{"error":"no"}', {"Content-Type": "application/json"}, times=100)
    found = reader("mena")
    assert not found.nothing
    assert found.payload is None
    assert found.complaint
    assert found.code == (4 if language == "curl" else 1)


def test_a_newer_format_is_refused(store: Store, valkey: Server, reader: Reader) -> None:
    """A reader that was never updated returns wrong data from a format that it does not know."""
    store.publish("mena", {"a": 1})
    key = "swapstore:manifest:{mena}"
    with valkey.client() as client:
        client.set(key, client.get(key).replace(b'"format":1', b'"format":2'))
    found = reader("mena")
    assert found.payload is None
    assert "format" in found.complaint


def test_the_readers_are_short() -> None:
    """The documented readers are too long to copy and understand."""
    shell = [block for block in blocks("sh") if block.startswith("#!")]
    for block in [*blocks("ts"), *shell]:
        assert block.count("\n") <= 60


def test_the_first_command_of_the_page(store: Store, environment: dict[str, str], tmp_path: Path) -> None:
    """The first command of the page does not work."""
    store.publish("mena", {"a": 1}, id="x")
    line = next(block for block in blocks("sh") if block.startswith("curl "))
    done = run("sh", "-c", line, cwd=tmp_path, env=environment)
    header, _, _ = json.loads(done.stdout)["result"].partition("\n")
    assert json.loads(header)["latest"]["id"] == "x"


@pytest.mark.parametrize("which", ["fetch", "curl"])
def test_an_endpoint_that_ignores_the_encoding(
    which: Language, valkey: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Behind a small proxy, published data looks as if nothing were published."""
    with SmallProxy(valkey) as proxy, swapstore.connect(proxy.url, token=proxy.token) as store:
        environment = {"UPSTASH_REDIS_REST_URL": proxy.url, "UPSTASH_REDIS_REST_TOKEN": proxy.token}
        read = reader_of(which, environment, tmp_path, request)
        assert read("eu/prices").nothing
        store.publish("eu/prices", msgspec.Raw(TEXT))
        store.publish("image", BINARY, codec="bytes")
        assert read("eu/prices").payload == TEXT
        assert read("image").payload == BINARY


def prices(number: int) -> dict[str, object]:
    """Data of which each number changes a little."""
    zones = {base64.b64encode(bytes([zone] * 9)).decode(): zone * number % 7 for zone in range(60)}
    return {"run": number, "régime": "calm", "zones": zones}


@pytest.mark.parametrize("compression", ["zstd", "delta"])
@pytest.mark.parametrize("over", ["redis", "rest"])
def test_what_is_compressed(  # noqa: PLR0917 - fixtures
    compression: Compression, over: str, valkey: Server, rest: RestServer, reader: Reader, language: Language
) -> None:
    """A front end fails as soon as the producer saves memory."""
    url, token = (valkey.url, None) if over == "redis" else (rest.url, rest.token)
    with swapstore.connect(url, token=token, compression=compression) as store:
        for number in range(3):
            store.publish("eu/prices", prices(number), id=f"x{number}")
    with valkey.client() as client:
        header = json.loads(client.get("swapstore:id:{eu/prices}:x2").partition(b"\n")[0])
    assert header["encoding"] == ("zstd" if over == "redis" else "zstd+base64")
    assert ("base" in header) == (compression == "delta")
    found = reader("eu/prices")
    if language == "sdk" and over == "redis":
        assert complains(found, language, "corrupt"), "the SDK turns bytes into text"
    else:
        assert found.payload is not None, found.complaint
        assert json.loads(found.payload) == prices(2)
        assert found.complaint == ""


def test_record_and_base_come_in_one_request(
    rest: RestServer, environment: dict[str, str], project: Path
) -> None:
    """A reader makes three round trips, or reads the whole manifest, or fetches the base for each version."""
    with swapstore.connect(rest.url, token=rest.token, compression="delta") as store:
        for number in range(2):
            store.publish("mena", prices(number))
        before = len(rest.requests)
        script = """
            import { open } from "./dataset.ts";
            import { readLatest } from "./read-latest.ts";
            import { run } from "./fetch.ts";
            const mena = open(run, "mena");
            await readLatest(mena);
            await readLatest(mena);
        """
        (project / "twice.mjs").write_text(script, "utf-8")
        done = run("node", "twice.mjs", cwd=project, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    asked = [[command[:2] for command in each.commands] for each in rest.requests[before:]]
    kinds = [[(name, key.split(b":")[1]) for name, key in each] for each in asked]
    head = [(b"GETRANGE", b"manifest")]
    assert kinds == [head, [(b"GET", b"id"), (b"GET", b"base")], head, [(b"GET", b"id")]]


@pytest.mark.parametrize(
    "older",
    [
        "delete zlib.zstdDecompressSync;",
        """const real = zlib.zstdDecompressSync;
        zlib.zstdDecompressSync = (frame, { dictionary, ...options }) => real(frame, options);""",
    ],
    ids=["without zstd", "without dictionaries"],
)
def test_a_runtime_that_is_too_old(
    older: str, rest: RestServer, environment: dict[str, str], project: Path
) -> None:
    """An older Node calls good data damaged, or fails before anything is compressed."""
    (project / "older.mjs").write_text(f'import zlib from "node:zlib";\n{older}\n', "utf-8")

    def read(dataset: str) -> str:
        done = run(
            "node", "--import", "./older.mjs", "run.mjs", "./fetch.ts", dataset, cwd=project, env=environment
        )
        return str((done.stdout if done.returncode == 0 else done.stderr).decode())

    with swapstore.connect(rest.url, token=rest.token) as store:
        store.publish("plain", prices(1))
    with swapstore.connect(rest.url, token=rest.token, compression="delta") as store:
        store.publish("delta", prices(1))
        store.publish("delta", prices(2))
    assert json.loads(read("plain"))["row"]["version"] == 1
    refused = read("delta")
    for part in ("no_zstd", "Node v", "22.19", 'compression="none"'):
        assert part in refused
