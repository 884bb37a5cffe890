"""Other servers of the same protocol, where they are installed: a publish and a read, beside the six on each.

`dragonfly`, `redis-server` and `valkey-server` are looked for on PATH; two servers come with the development
environment.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack

import redis

import swapstore
from tests.benchmarks import payloads, publishing, reading
from tests.benchmarks.bench import Bench
from tests.benchmarks.ground import version_of
from tests.benchmarks.rounds import Way, measure
from tests.benchmarks.six_commands import Six
from tests.support.deployment import kinds
from tests.support.valkey import Server

SECTION = "servers"
SIZE = "10 KB"
ON_PATH = ("valkey-server", "redis-server", "dragonfly")


class Dragonfly(Server):
    """A Dragonfly, which has options of its own."""

    def command_line(self) -> list[str]:
        port, directory = f"--port={self.port}", f"--dir={self.directory}"
        return [self.binary, port, directory, "--bind=127.0.0.1", "--dbfilename=", "--logtostderr"]


def run(bench: Bench) -> None:
    """Measure each server that is installed, and name those that are not."""
    binaries = kinds() | {name: path for name in ON_PATH if (path := shutil.which(name))}
    for name in ON_PATH:
        if name not in binaries:
            bench.report.note(f"{name} was not measured: it is not on PATH")
    for name, binary in binaries.items():
        kind = Dragonfly if name == "dragonfly" else Server
        try:
            with kind(bench.ground.directory / SECTION / name, binary=binary) as server:
                on(bench, server)
        except (RuntimeError, redis.RedisError, swapstore.SwapstoreError) as error:
            bench.report.note(f"{name} was not measured: {type(error).__name__}: {error}")


def on(bench: Bench, server: Server) -> None:
    """Measure one server."""
    payload = payloads.payload(payloads.SIZES[SIZE])
    with ExitStack() as stack:
        client = stack.enter_context(redis.Redis.from_url(server.url))
        store, reader = (stack.enter_context(swapstore.connect(server.url)) for _ in range(2))
        six = Six(client, SECTION)
        ways = [
            Way(publishing.SIX, lambda: six.publish(payload, transaction=True)),
            Way(publishing.WARM, lambda: store.publish("mena", payload, codec="bytes")),
            Way(reading.TWO_STEP, six.read),
            Way(reading.WARM, lambda: reader.read_latest("still")),
        ]
        store.publish("still", payload, codec="bytes")
        samples = measure(ways, rounds=bench.rounds)
        title = f"publish and read {SIZE} on {version_of(client)}, {server.binary.rpartition('/')[2]}"
        bench.report.add_timed(SECTION, title, samples, publishing.SIX)
