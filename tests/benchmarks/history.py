"""What many versions of one document take: memory and bytes on the wire beside the six, a file beside git.

Everything is counted. The servers are the benchmark's own, one for each way, so that `used_memory` says what
the way takes.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import attrs
import msgspec
import redis

import swapstore
from swapstore.models import Compression
from tests.benchmarks import payloads, sequences, signals
from tests.benchmarks.bench import LARGE_BYTES, Bench
from tests.benchmarks.ground import fresh
from tests.benchmarks.memory import stable_memory
from tests.benchmarks.report import Row, Sheet
from tests.benchmarks.six_commands import Six
from tests.support.meter import Tally
from tests.support.proxy import Proxy
from tests.support.valkey import Server

SECTION = "history"
SIX = "the six"
WAYS: tuple[Compression, ...] = ("none", "zstd", "delta")
SMALL = "1 KB"
QUICK_VERSIONS = 24
COLD_EVERY = 8  # a read by a client that has seen nothing, each time one page of rows is full
NAMESPACE = "history"
DATASET = "document"


@attrs.define
class Counts:
    """What one way takes: bytes sent by a publish, bytes received by a read, and the server's memory."""

    published: list[float] = attrs.field(factory=list)
    new_version: list[float] = attrs.field(factory=list)
    cold: list[float] = attrs.field(factory=list)
    memory_usage: float = 0
    used_memory: float = 0

    def means(self) -> dict[str, float]:
        """Return the mean of each, a publish, a read or a snapshot."""
        count = len(self.published)
        return {
            "publish, sent": fmean(self.published[1:]),  # the first has no manifest to build on
            "a new version, received": fmean(self.new_version[1:]),
            "cold read, received": fmean(self.cold),
            "MEMORY USAGE of all keys": self.memory_usage / count,
            "used_memory": self.used_memory / count,
        }


def run(bench: Bench) -> None:
    """Count each sequence on servers, then in files."""
    found: dict[str, dict[str, Any]] = {}
    for name, versions in chosen(bench).items():
        on_server = {way: count(bench, way, versions).means() for way in (SIX, *WAYS)}
        found[name] = {"versions": len(versions), "size": fmean(map(len, versions)), "server": on_server}
        show(bench, name, found[name])
        if name != SMALL:
            found[name]["files"] = files(bench, versions)
    rows = [row for name, each in found.items() if (row := filed(name, each)) is not None]
    bench.report.facts[SECTION] = found
    bench.report.add(Sheet(SECTION, "files with all versions, compression=delta, beside git, packed", rows))


def chosen(bench: Bench) -> dict[str, list[bytes]]:
    """Return what is counted: generated sequences, and real ones where they are."""
    versions = QUICK_VERSIONS if bench.quick else sequences.VERSIONS
    small = [payloads.payload(payloads.SIZES[SMALL], seed) for seed in range(versions)]
    made = {size: sequences.generated(size, versions) for size in ("15 KB", "100 KB")}
    real = {} if bench.quick else sequences.real(bench.sequences, versions)
    if not real:
        bench.report.note("no real sequences were found, or looked for: generated ones only")
    return {SMALL: small} | {f"generated, {size}": each for size, each in made.items()} | real


def is_large(found: dict[str, Any]) -> bool:
    """Whether the targets for documents of 100 KB and more apply."""
    return float(found["size"]) >= LARGE_BYTES


# --- on a server -----------------------------------------------------------------------------------


def count(bench: Bench, way: str, versions: Sequence[bytes]) -> Counts:
    """Publish all versions in one way, each followed by reads of clients on other connections."""
    counts = Counts()
    with ExitStack() as stack:
        server = stack.enter_context(Server(bench.ground.directory / SECTION))
        client: Any = stack.enter_context(server.client())
        writing, reading = (stack.enter_context(Proxy(server.port)) for _ in range(2))
        urls = writing.url, reading.url
        made = _six(stack, *urls) if way == SIX else _swapstore(stack, way, *urls)
        made.connect()
        client.delete(*client.keys("*"))
        before = stable_memory(client)
        for number, payload in enumerate(versions):
            signals.check()
            counts.published.append(_wire(writing, partial(made.publish, payload)).sent)
            counts.new_version.append(_wire(reading, made.read, payload).received)
            if number % COLD_EVERY == COLD_EVERY - 1:
                counts.cold.append(_wire(reading, made.read_cold, payload).received)
        counts.used_memory = stable_memory(client) - before
        keys = client.scan_iter(match=f"{NAMESPACE}:*", count=1000)
        counts.memory_usage = sum(client.memory_usage(key, samples=0) or 0 for key in keys)
    return counts


@attrs.frozen
class Clients:
    """A producer and two readers. `connect` opens the connections, and leaves what can be deleted."""

    connect: Callable[[], object]
    publish: Callable[[bytes], object]
    read: Callable[[], bytes | None]
    read_cold: Callable[[], bytes | None]


def _six(stack: ExitStack, writing: str, reading: str) -> Clients:
    """Read a new version with a `GET` of the payload whose key is known; cold, in two steps."""
    producer, reader = (
        Six(stack.enter_context(redis.Redis.from_url(url)), NAMESPACE) for url in (writing, reading)
    )

    def connect() -> None:
        producer.publish(b"{}", transaction=True)
        reader.read()

    return Clients(
        connect,
        partial(producer.publish, transaction=True),
        lambda: reader.read_number(producer.number),
        reader.read,
    )


def _swapstore(stack: ExitStack, way: Any, writing: str, reading: str) -> Clients:
    producer, reader = (
        stack.enter_context(swapstore.connect(url, namespace=NAMESPACE, compression=way))
        for url in (writing, reading)
    )

    def connect() -> None:
        producer.publish("first", {})
        fresh(reader, reading, namespace=NAMESPACE).read_latest("first")
        reader.read_latest("first")

    return Clients(
        connect,
        lambda payload: producer.publish(DATASET, msgspec.Raw(payload)),
        lambda: _latest(reader),
        lambda: _latest(fresh(reader, reading, namespace=NAMESPACE)),
    )


def _latest(store: swapstore.Store) -> bytes | None:
    found = store.read_latest(DATASET)
    return found.raw if found else None


def _wire(proxy: Proxy, act: Callable[[], object], expected: bytes | None = None) -> Tally:
    """Count the bytes of a publish, or of a read that finds what is expected."""
    before = proxy.sent, proxy.received
    result = act()
    assert expected is None or result == expected
    proxy.requests.clear()
    return Tally(sent=proxy.sent - before[0], received=proxy.received - before[1])


# --- in files --------------------------------------------------------------------------------------


def files(bench: Bench, versions: Sequence[bytes]) -> dict[str, int]:
    """Return the bytes of all files: a store in SQLite, and a git repository, packed, if there is git."""
    directory = bench.ground.directory / f"{SECTION}-files"
    directory.mkdir()
    try:
        found = {"SQLite": _in_sqlite(directory, versions)}
        if shutil.which("git"):
            found["git"] = _in_git(directory / "repository", versions)
        else:
            bench.report.note("there is no git to compare files with")
        return found
    finally:
        shutil.rmtree(directory)


def _in_sqlite(directory: Path, versions: Sequence[bytes]) -> int:
    with swapstore.connect(f"sqlite:///{directory}/store.db", compression="delta") as store:
        for payload in versions:
            signals.check()
            store.publish(DATASET, msgspec.Raw(payload))
    return sum(path.stat().st_size for path in directory.glob("store.db*"))


def _in_git(repository: Path, versions: Sequence[bytes]) -> int:
    """Commit each version, then pack as `git gc` does: all deltas anew, without what only speeds it up."""
    git = ["git", "-C", str(repository), "-c", "repack.writeBitmaps=false", "-c", "pack.threads=1"]
    repository.mkdir()
    subprocess.run([*git, "init", "--quiet", "--bare", "--template="], check=True)
    stream = b"".join(_commit(number, payload) for number, payload in enumerate(versions))
    subprocess.run([*git, "fast-import", "--quiet"], input=stream, check=True)
    subprocess.run([*git, "repack", "-a", "-d", "-f", "-q"], check=True)
    return sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())


def _commit(number: int, payload: bytes) -> bytes:
    who = f"bench <bench@localhost> {1_790_000_000 + 600 * number} +0000"
    begin = f"commit refs/heads/main\ncommitter {who}\ndata 0\nM 100644 inline document.json\n"
    return b"%bdata %d\n%b\n" % (begin.encode(), len(payload), payload)


# --- showing ---------------------------------------------------------------------------------------

# Each figure, and what it is compared with.
BESIDE = {
    "MEMORY USAGE of all keys": "the six",
    "used_memory": "the six",
    "publish, sent": "the six",
    "a new version, received": "GET of the payload",
    "cold read, received": "the two-step read",
}


def show(bench: Bench, name: str, found: dict[str, Any]) -> None:
    """Show one sequence on servers."""
    six = found["server"][SIX]
    rows: list[Row] = [
        {
            "figure": figure,
            **{way: found["server"][way][figure] / six[figure] for way in WAYS},
            **{f"{way}, bytes": round(found["server"][way][figure]) for way in WAYS},
            "bytes beside": round(six[figure]),
            "beside": other,
        }
        for figure, other in BESIDE.items()
    ]
    title = f"{found['versions']} versions of {name} ({found['size']:,.0f} bytes on average)"
    sheet = Sheet(SECTION, title, rows, ["bytes: means a snapshot, a publish or a read"])
    bench.report.add(sheet)


def filed(name: str, found: dict[str, Any]) -> Row | None:
    """Return the row of a sequence in files."""
    taken = found.get("files", {})
    if "git" not in taken:
        return None
    return {
        "figure": name,
        "ratio": taken["SQLite"] / taken["git"],
        "SQLite, bytes": taken["SQLite"],
        "git, bytes": taken["git"],
        "payloads, bytes": round(found["versions"] * found["size"]),
    }
