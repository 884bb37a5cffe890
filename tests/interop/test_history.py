"""The readers of docs/how-to/read-history-from-typescript.md, on a real server with a real history."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore import Retention, Store
from tests.interop.conftest import PROGRAMS, run
from tests.support.rest import RestServer
from tests.support.times import at
from tests.support.valkey import Server

HOUR_MS = 3_600_000
IMPORTS = """
import { open } from "./dataset.ts";
import { readAsOf, readVersion } from "./find.ts";
import { run } from "./fetch.ts";
import { history } from "./history.ts";
import { readPayload } from "./payload.ts";
import { watch } from "./watch.ts";
const mena = open(run, "mena");
const shown = (found) => found && { version: found.row.version, payload: found.payload.toString("base64") };
const show = (it) => console.log(JSON.stringify(it));
const list = async (rows, limit = Infinity) => {
  const all = [];
  for await (const row of rows) if (all.push(row) >= limit) break;
  return all;
};
"""

Script = Callable[[str], Any]


@contextmanager
def running(name: str, project: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program in Node, with pipes; it is ended with the test."""
    env = {**os.environ, "PATH": PROGRAMS, **environment}
    pipe = subprocess.PIPE
    with subprocess.Popen(["node", name], cwd=project, env=env, stdin=pipe, stdout=pipe, text=True) as node:
        try:
            yield node
        finally:
            node.kill()


def line(node: subprocess.Popen[str]) -> str:
    """The next line that it prints; "" at the end."""
    assert node.stdout is not None
    return node.stdout.readline().strip()


@pytest.fixture
def script(project: Path, environment: dict[str, str]) -> Script:
    """Runs JavaScript that has the functions of the page, and ends by calling `show` with the result."""

    def call(text: str) -> Any:
        (project / "history.mjs").write_text(IMPORTS + text, "utf-8")
        done = run("node", "history.mjs", cwd=project, env=environment)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    return call


@pytest.fixture
def delta(valkey: Server) -> Iterator[Store]:
    """A producer of differences."""
    with swapstore.connect(valkey.url, compression="delta") as made:
        yield made


def price(number: int) -> dict[str, Any]:
    zones = [{"zone": base64.b64encode(bytes([zone] * 12)).decode()} for zone in range(40)]
    return {"run": number, "zones": zones, "kind": number // 100}


def published(store: Store, count: int) -> None:
    """Publish many versions, an hour apart; some are dated back, and some versions are missing."""
    for number in range(1, count + 1):
        hour = number - 30 if number % 41 == 0 else number
        labels = {"number": str(number)} if number % 3 == 0 else None
        key = f"run-{number}" if number % 5 == 0 else None
        ts = at(hour * HOUR_MS + 10**9)
        store.publish("mena", price(number), id=f"r{number}", ts=ts, labels=labels, dedupe_key=key)
        if number % 50 == 0:
            store.confirm("mena")


def known(store: Store) -> list[Any]:
    """The history that Python reads, as the page shows rows."""
    names = ("version", "id", "ts", "committed_at", "size", "sha256", "codec", "labels", "dedupe_key")
    rows = [{name: getattr(row, name) for name in names} for row in store.history("mena", limit=None)]
    usual: dict[str, Any] = {"codec": "json", "labels": {}, "dedupe_key": None}
    return [{n: v for n, v in row.items() if n not in usual or v != usual[n]} for row in rows]


def without_base(rows: list[Any]) -> list[Any]:
    return [{name: value for name, value in row.items() if name != "base"} for row in rows]


@pytest.mark.slow
def test_a_long_history(delta: Store, rest: RestServer, script: Script) -> None:
    """A table of the history lacks rows, shows hidden ones, or takes a request for each page."""
    published(delta, 600)
    delta.pin("mena", version=7)
    delta.prune("mena", retention=Retention(max_count=400))
    before = len(rest.requests)
    rows = script("show(await list(history(mena)));")
    assert without_base(rows) == known(delta)
    assert len(rows) == 400
    assert any("base" in row for row in rows)
    assert len(rest.requests) - before <= 14, "64 rows a request, and the levels of references"
    part = script("show(await list(history(mena, 300), 20));")
    assert without_base(part) == [row for row in known(delta) if row["version"] < 300][:20]


@pytest.mark.slow
def test_snapshots_of_a_time_and_of_a_version(delta: Store, script: Script) -> None:
    """A chart of the past shows another number than was current."""
    published(delta, 300)
    delta.pin("mena", version=3)
    delta.prune("mena", retention=Retention(max_count=200))
    times = [10**9 + hour * HOUR_MS for hour in (0, 3, 50, 98, 120, 121, 164, 216, 300, 900)]
    versions = [1, 3, 90, 101, 102, 103, 200, 257, 305, 306, 307]
    found = script(
        f"show([await Promise.all({times}.map((ts) => readAsOf(mena, ts).then(shown))),"
        f" await Promise.all({versions}.map((version) => readVersion(mena, version).then(shown)))]);"
    )
    expected = (
        [delta.read("mena", as_of=at(ts)) for ts in times],
        [delta.read("mena", version=v) for v in versions],
    )
    for got, snapshots in zip(found, expected, strict=True):
        assert got == [
            it and {"version": it.version, "payload": base64.b64encode(it.raw).decode()} for it in snapshots
        ]


def test_every_payload_of_a_history(delta: Store, rest: RestServer, script: Script) -> None:
    """Older versions, which have other bases, cannot be read, or take two requests each."""
    published(delta, 130)
    script("show(await list(history(mena)));")
    listing = len(rest.requests)
    read = script("""
        const all = [];
        for await (const row of history(mena)) all.push((await readPayload(mena, row)).toString("base64"));
        show(all);
    """)
    assert [json.loads(base64.b64decode(each)) for each in read] == [price(n) for n in range(130, 0, -1)]
    assert len(rest.requests) == listing + listing + 130


def test_the_example_of_the_page(delta: Store, project: Path, environment: dict[str, str]) -> None:
    """The first lines that somebody copies do not work."""
    published(delta, 3)
    done = run("node", "example.ts", cwd=project, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    assert [
        line.split()[:2] for line in done.stdout.decode().splitlines() if line.startswith(("1 r", "3 r"))
    ] == [
        ["3", "r3"],
        ["1", "r1"],
    ]
    assert done.stdout.decode().splitlines()[-1] == "r3 r1"


def test_retention_while_a_history_is_read(
    delta: Store, valkey: Server, project: Path, environment: dict[str, str]
) -> None:
    """A long listing fails because the oldest rows are removed under it."""
    published(delta, 100)
    text = """
        for await (const row of history(mena)) {
          show(row.version);
          if (row.version === 95) await new Promise((wake) => process.stdin.once("data", wake));
        }
        process.exit();
    """
    (project / "slow.mjs").write_text(IMPORTS + text, "utf-8")
    with running("slow.mjs", project, environment) as node:
        while line(node) != "95":
            assert node.poll() is None
        delta.prune("mena", retention=Retention(max_count=50))
        with valkey.client() as client:
            gone = [key for key in client.scan_iter("swapstore:page:*") if client.ttl(key) > 0]
            assert gone
            client.delete(*gone)
        assert node.stdin is not None
        node.stdin.write("go on\n")
        node.stdin.flush()
        rest = [int(each) for each in iter(lambda: line(node), "")]
    kept = [row.version for row in delta.history("mena", limit=None)]
    assert rest == [version for version in kept if version < 95]


def test_new_versions_are_noticed(
    delta: Store, rest: RestServer, project: Path, environment: dict[str, str]
) -> None:
    """A front end stays at an old version, shows one twice, or polls the whole manifest."""
    text = """
        for await (const { row, payload } of watch(mena, { interval: 5, onError: () => show("outage") })) {
          show([row.version, JSON.parse(payload.toString())]);
          if (row.version === 6) break;
        }
    """
    (project / "watching.mjs").write_text(IMPORTS + text, "utf-8")
    with running("watching.mjs", project, environment) as node:
        for number in (1, 2):
            delta.publish("mena", number)
            assert json.loads(line(node)) == [number, number]
        delta.confirm("mena")
        delta.pin("mena", version=1)
        assert json.loads(line(node)) == [1, 1]
        rest.switches.answer(503, '{"error":"no"}', {"Content-Type": "application/json"}, times=2)
        assert line(node) == line(node) == '"outage"'
        delta.unpin("mena")
        assert json.loads(line(node)) == [2, 2]
        delta.publish("mena", "last")
        assert json.loads(line(node)) == [6, "last"]
        assert line(node) == ""
    polls = [each.commands for each in rest.requests if each.commands[0][0] == b"GETRANGE"]
    assert [b"GETRANGE", b"swapstore:manifest:{mena}", b"0", b"127"] in [[*each[0]] for each in polls]
    assert not any(
        command[:2] == (b"GET", b"swapstore:manifest:{mena}") for each in polls for command in each
    )
