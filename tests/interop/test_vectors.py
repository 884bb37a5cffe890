"""The vectors of docs/reference/vectors: what the library stores, and what both readers answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from swapstore import Group, Row, Snapshot
from swapstore.errors import Corrupt, NotFound, PayloadMissing, SwapstoreError, UnsupportedFormat
from swapstore.testing.simulated import SimulatedStore, Value
from tests.interop.conftest import run
from tests.interop.vectors import DIRECTORY, comparable, vectors
from tests.support.times import at

FILES = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(DIRECTORY.glob("*.json"))}
ROW = ("version", "id", "ts", "committed_at", "size", "sha256", "codec", "labels", "dedupe_key")
KINDS: dict[type[SwapstoreError], str] = {
    Corrupt: "corrupt",
    PayloadMissing: "missing",
    UnsupportedFormat: "newer_format",
}
ASK = """
import { readFileSync } from "node:fs";
import { open } from "./dataset.ts";
import { readAsOf, readVersion } from "./find.ts";
import { readGroup } from "./group.ts";
import { history } from "./history.ts";
import { readLatest } from "./read-latest.ts";

const full = ({ base, ...row }) => ({ codec: "json", labels: {}, ...row });
const snapshot = ({ dedupe_key, ...row }) => full(row);
const listed = (row) => ({ dedupe_key: null, ...full(row) });
const shown = (found) => found && { row: snapshot(found.row), payload: found.payload.toString("base64") };
const or = async (asked) => asked.catch((error) => ({ error: error.code ?? error.stack }));
const list = async (rows) => {
  const all = [];
  for await (const row of rows) all.push(listed(row));
  return all;
};

const members = ({ members }) => Object.fromEntries(
  [...members].map(([name, payload]) => [name, payload.toString("base64")]));

async function answers({ dataset, keys, latest, as_of, versions, history: rows, group, members: asked }) {
  const run = async (commands) => commands.map(([name, key, from, to]) => {
    const stored = key in keys ? Buffer.from(keys[key], "base64") : null;
    return name === "GET" ? stored : (stored ?? Buffer.alloc(0)).subarray(Number(from), Number(to) + 1);
  });
  const open_ = () => open(run, dataset);
  const made = latest === undefined ? {} : { latest: await or(readLatest(open_()).then(shown)) };
  if (group !== undefined) made.group = await or(readGroup(open_()).then(members));
  if (asked !== undefined) made.members = await Promise.all(asked.map(async ({ names }) => (
    { names, answer: await or(readGroup(open_(), names).then(members)) })));
  if (rows !== undefined) made.history = await or(list(history(open_())));
  const ask = (all, name, read) => Promise.all((all ?? []).map(async (each) => (
    { [name]: each[name], answer: await or(read(open_(), each[name]).then(shown)) })));
  if (as_of) made.as_of = await ask(as_of, "ts", readAsOf);
  if (versions) made.versions = await ask(versions, "version", readVersion);
  return made;
}
const files = JSON.parse(readFileSync(process.argv[2], "utf8"));
const all = await Promise.all(Object.entries(files).map(async ([name, file]) => [name, await answers(file)]));
console.log(JSON.stringify(Object.fromEntries(all)));
"""


def questions(vector: Any) -> Any:
    """What a vector expects."""
    asked = ("latest", "history", "as_of", "versions", "group", "members")
    return {name: vector[name] for name in asked if name in vector}


def test_the_files_are_what_the_library_stores() -> None:
    """Somebody tests a reader with bytes that the library does not write any more."""
    made = vectors()
    assert sorted(FILES) == sorted(made), "run python -m tests.interop.vectors"
    for name, file in FILES.items():
        assert comparable(file) == comparable(made[name]), name


def python(vector: Any) -> Any:
    """What our own reader answers to the questions of a vector."""
    simulated = SimulatedStore()
    for key, value in vector["keys"].items():
        simulated.keyspace.values[key] = Value(base64.b64decode(value), None)
    store, dataset = simulated.connect(), vector["dataset"]

    def each(name: str, read: Callable[[int], Snapshot | None]) -> list[Any]:
        numbers = [ask[name] for ask in vector[question]]
        return [{name: number, "answer": answer(partial(read, number))} for number in numbers]

    made: dict[str, Any] = {}
    for question in questions(vector):
        match question:
            case "latest":
                made[question] = answer(lambda: store.read_latest(dataset))
            case "history":
                made[question] = answer(lambda: [*store.history(dataset, limit=None)])
            case "as_of":
                made[question] = each("ts", lambda ts: store.read(dataset, as_of=at(ts)))
            case "group":
                made[question] = members_of(lambda: store.read_group(dataset))
            case "members":
                each_asked = [ask["names"] for ask in vector[question]]
                reading = [partial(store.read_group, dataset, members=names) for names in each_asked]
                pairs = zip(each_asked, reading, strict=True)
                made[question] = [{"names": names, "answer": members_of(read)} for names, read in pairs]
            case "versions":
                made[question] = each("version", lambda version: store.read(dataset, version=version))
    return made


def answer(read: Callable[[], Snapshot | list[Row] | None]) -> Any:
    """What a read returned or raised, as the vectors have it."""
    try:
        found = read()
    except NotFound:
        return None
    except SwapstoreError as error:
        return {"error": KINDS[type(error)]}
    if isinstance(found, list):
        return [row_of(each) for each in found]
    return found and {"row": row_of(found), "payload": base64.b64encode(found.raw).decode()}


def members_of(read: Callable[[], Group | None]) -> Any:
    """The members that a read returned, or what it raised."""
    try:
        found = read()
    except NotFound:
        return {"error": "no_member"}
    except SwapstoreError as error:
        return {"error": KINDS[type(error)]}
    assert found is not None
    return {name: base64.b64encode(each.raw).decode() for name, each in found.members.items()}


def row_of(it: Row | Snapshot) -> Any:
    return {name: getattr(it, name) for name in ROW if hasattr(it, name)}


@pytest.mark.parametrize("name", FILES)
def test_our_reader(name: str) -> None:
    """Our reader answers otherwise than the page on the format says, or damage passes as data."""
    assert python(FILES[name]) == questions(FILES[name])


def test_the_readers_in_typescript(project: Path) -> None:
    """A copied reader answers otherwise than ours, or damage passes as data."""
    (project / "vectors.mjs").write_text(ASK, "utf-8")
    (project / "vectors.json").write_text(json.dumps(FILES), "utf-8")
    done = run("node", "vectors.mjs", "vectors.json", cwd=project)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == {name: questions(file) for name, file in FILES.items()}


def test_a_bomb_takes_little_memory(project: Path) -> None:
    """A record of some kilobytes takes all memory of a front end."""
    script = """
        import { decode } from "./decode.ts";
        const window = 7 << 3; // 128 KiB, so that the window alone does not give it away
        const block = (last) => [((128 << 10) << 3 | 2 | last) & 255, 0, 16, 65]; // 128 KiB of one letter
        const head = [0x28, 0xb5, 0x2f, 0xfd, 0, window];
        const frame = Buffer.from([...head, ...Array(8191).fill(block(0)).flat(), ...block(1)]); // 1 GiB
        const before = process.resourceUsage().maxRSS;
        let code;
        try { decode("key", frame, "zstd", 1000); } catch (error) { code = error.code; }
        console.log(JSON.stringify([code, process.resourceUsage().maxRSS - before]));
    """
    (project / "bomb.mjs").write_text(script, "utf-8")
    done = run("node", "bomb.mjs", cwd=project)
    assert done.returncode == 0, done.stderr.decode()
    code, kilobytes = json.loads(done.stdout)
    assert code == "corrupt"
    assert kilobytes < 64 * 1024
