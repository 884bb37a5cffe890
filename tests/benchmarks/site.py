"""`swapstore serve`: reads beside a server of files, a publish beside the REST endpoint, and many followers.

`python -m tests.benchmarks.site DIRECTORY` is that server of files: uvicorn, and Starlette's StaticFiles.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import resource
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import uvicorn
from starlette.staticfiles import StaticFiles

from swapstore.serve import server
from tests.benchmarks import payloads, rest
from tests.benchmarks.bench import Bench, titled
from tests.benchmarks.rounds import Act, Way, measure
from tests.support.valkey import free_port

SECTION = "serve"
SIZES = ("1 KB", "100 KB", "1 MB")
CLIENTS, COMMITS = 1000, 30
START_S, WAIT_S = 20, 60
OURS, UVICORN, NGINX = "swapstore serve", "uvicorn, a file", "nginx, a file"
PUT, REST = "PUT to swapstore serve", "publish over REST"
NGINX_CONF = """{user} daemon off; pid {directory}/nginx.pid; error_log stderr; events {{}}
http {{ access_log off; server {{ listen 127.0.0.1:{port}; root {directory}; }} }}
"""


def run(bench: Bench) -> None:
    """Measure reads, publishes, and how soon all clients of a dataset have an event."""
    token = secrets.token_hex(16)
    with ExitStack() as stack:
        ours = stack.enter_context(_serving(bench, token))
        directory = bench.ground.directory / "files"
        directory.mkdir(exist_ok=True)
        others = {UVICORN: stack.enter_context(_process(sys.executable, "-m", __spec__.name, str(directory)))}
        if shutil.which("nginx"):
            others[NGINX] = stack.enter_context(_nginx(directory))
        else:
            bench.report.note("no nginx on PATH: files are served by uvicorn alone")
        for size in SIZES[:1] if bench.quick else SIZES:
            _reads(bench, size, ours, others, directory)
        _publishes(bench, ours, token)
        asyncio.run(_followers(bench, ours, CLIENTS // 10 if bench.quick else CLIENTS))
    bench.ground.clear()


# --- servers -------------------------------------------------------------------------------------------


@attrs.frozen
class Served:
    """A server that runs. `pid` is that of its process."""

    port: int
    pid: int

    def memory_bytes(self) -> int:
        """Return the resident memory of the process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1])
        return pages * resource.getpagesize()


@contextmanager
def _process(*command: str, env: dict[str, str] | None = None) -> Iterator[Served]:
    """Run a server that prints its port, or its address, when it listens."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **(env or {})}) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            port = int(said["url"].rpartition(":")[2]) if isinstance(said, dict) else said
            yield Served(port, process.pid)
        finally:
            process.terminate()


@contextmanager
def _serving(bench: Bench, token: str) -> Iterator[Served]:
    env = {"SWAPSTORE_URL": bench.ground.url, "SWAPSTORE_TOKEN": token}
    options = ("serve", "--port", "0", "--namespace", bench.ground.namespace, "--allow-writes")
    with _process(sys.executable, "-m", "swapstore.cli", *options, env=env) as made:
        yield made


@contextmanager
def _nginx(directory: Path) -> Iterator[Served]:
    port = free_port()
    conf = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers may not read the directory
    conf.write_text(NGINX_CONF.format(directory=directory, port=port, user=user), "utf-8")
    with subprocess.Popen(["nginx", "-p", str(directory), "-c", str(conf)]) as process:
        try:
            deadline = time.monotonic() + START_S
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        raise
                    time.sleep(0.05)
            yield Served(port, process.pid)
        finally:
            process.terminate()


# --- requests ------------------------------------------------------------------------------------------


class Client:
    """One connection that is kept."""

    def __init__(self, served: Served) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=WAIT_S)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __call__(
        self, method: str, path: str, expected: int, body: bytes | None = None, **headers: str
    ) -> str | None:
        """Send a request, and return the ETag of the response."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self._connection.request(method, path, body, named)
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != expected:
            raise RuntimeError(f"{method} {path} was answered with {answer.status}, not {expected}")
        return answer.headers["ETag"]


def _reads(bench: Bench, size: str, ours: Served, others: dict[str, Served], directory: Path) -> None:
    """Measure GET, with and without If-None-Match."""
    payload = payloads.payload(payloads.SIZES[size])
    (directory / "mena").write_bytes(payload)
    with bench.ground.store() as store:
        store.publish("mena", payload, codec="bytes")
    ways = []
    for name, served in {OURS: ours, **others}.items():
        client, path = Client(served), "/api/datasets/mena/latest" if served is ours else "/mena"
        etag = client("GET", path, 200) or ""
        ways += [Way(name, _get(client, path)), Way(f"{name}, 304", _get(client, path, etag))]
    samples = measure(ways, rounds=bench.rounds_for(0, len(payload)))
    bench.report.add_timed(SECTION, titled(SECTION, size, 0), samples, UVICORN)


def _get(client: Client, path: str, etag: str | None = None) -> Act:
    if etag is None:
        return lambda: client("GET", path, 200)
    return lambda: client("GET", path, 304, If_None_Match=etag)


def _publishes(bench: Bench, ours: Served, token: str) -> None:
    """Measure a publish by PUT, beside the same over the REST endpoint of the tests."""
    client, count = Client(ours), iter(range(1_000_000))
    payload = payloads.payload(payloads.SIZES["10 KB"]).rstrip()

    def another() -> bytes:
        return payload[:-1] + b', "n": %d}' % next(count)

    headers = {"Authorization": f"Bearer {token}", "Content_Type": "application/json"}

    def put() -> None:
        client("PUT", "/api/datasets/put", 201, another(), **headers)

    with rest.store(bench) as (over_rest, why):
        if over_rest is None:
            bench.report.note(f"no publish over REST: {why}")
            return
        try:
            put()
        except RuntimeError as error:
            bench.report.note(f"no publish by PUT: {error}")
            return
        publish = over_rest.publish
        ways = [Way(PUT, put), Way(REST, lambda: publish("rest", another(), codec="bytes"))]
        samples = measure(ways, rounds=bench.rounds_for(0, len(payload)))
        bench.report.add_timed(SECTION, titled(SECTION, "10 KB published", 0), samples, REST, rest.NOTE)


# --- followers -----------------------------------------------------------------------------------------


async def _followers(bench: Bench, ours: Served, count: int) -> None:
    """Measure the memory that so many event streams take, and when the last one has an event."""
    _allow_files(count)
    with bench.ground.store() as store:
        store.publish("followed", 0)
        before = ours.memory_bytes()
        seen: dict[int, list[float]] = {}
        streams = [await _follow(ours.port, seen) for _ in range(count)]
        await _until_all(seen, 1, count)
        each_kb = (ours.memory_bytes() - before) / count / 1024
        late_ms = []
        for number in range(COMMITS):
            commit = await asyncio.to_thread(store.publish, "followed", number)
            began = time.perf_counter()
            await _until_all(seen, commit.version, count)
            late_ms.append((seen[commit.version][-1] - began) * 1000)
        for task in streams:
            task.cancel()
        await asyncio.wait(streams)
    late_ms.sort()
    bench.report.note(
        f"{count:,} event streams in one process: {each_kb:.0f} KB each; from the return of a publish to the "
        f"last client (all clients in one process, too): median {late_ms[len(late_ms) // 2]:.0f} ms, slowest "
        f"{late_ms[-1]:.0f} ms"
    )


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 256
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


async def _follow(port: int, seen: dict[int, list[float]]) -> asyncio.Task[Any]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /api/datasets/followed/events HTTP/1.1\r\nHost: localhost\r\n\r\n")

    async def follow() -> None:
        try:
            while line := await reader.readline():
                if line.startswith(b"id: "):
                    seen.setdefault(int(line[4:].partition(b"-")[0]), []).append(time.perf_counter())
        finally:
            writer.close()

    return asyncio.create_task(follow())


async def _until_all(seen: dict[int, list[float]], version: int, count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while len(seen.get(version, ())) < count:  # noqa: ASYNC110 - nothing would set an event
            await asyncio.sleep(0.001)


def serve_files(directory: str) -> None:
    """Serve the files of a directory, on a port that is printed."""
    with server.listen("127.0.0.1", 0) as listening:
        print(listening.getsockname()[1], flush=True)  # noqa: T201 - for who started it
        config = uvicorn.Config(
            StaticFiles(directory=directory), log_level="error", lifespan="off", http="h11"
        )
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    serve_files(sys.argv[1])
