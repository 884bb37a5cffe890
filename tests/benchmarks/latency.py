"""A proxy on loopback that delays data, each way, like a network: many bytes may be in flight.

It can also let through only so many bytes a second, each way and on each connection. A real network begins
slower than that, until the sender knows what it can carry.

`python -m tests.benchmarks.latency HOST PORT SECONDS BYTES` runs one until its input ends, and prints its
port: in its own process it does not compete with the client that is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

CHUNK = 1 << 16


class SlowNetwork:
    """Forwards connections to a port, by default of this machine; each byte arrives `delay_s` later.

    `bytes_per_s`: how many bytes it takes a second.
    """

    def __init__(
        self, port: int, delay_s: float, host: str = "127.0.0.1", *, bytes_per_s: float = math.inf
    ) -> None:
        self._target = (host, port)
        self._delay_s = delay_s
        self._bytes_per_s = bytes_per_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _do(self, coroutine: object) -> asyncio.Server:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)  # type: ignore[arg-type]

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(*self._target)
        for source, sink in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(self._forward(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        taken_at = 0.0  # when all bytes so far are on their way
        try:
            while data := await source.read(CHUNK):
                taken_at = max(taken_at, loop.time()) + len(data) / self._bytes_per_s
                loop.call_at(taken_at + self._delay_s, sink.write, data)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(max(0.0, taken_at - loop.time()) + self._delay_s)
            sink.close()


@contextlib.contextmanager
def slow_network(host: str, port: int, delay_s: float, bytes_per_s: float = math.inf) -> Iterator[int]:
    """Run one in its own process; yield the port to connect to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.latency", host, *map(str, (port, delay_s, bytes_per_s))],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is the bench's own; it ends when its input does
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def main(host: str, port: str, delay_s: str, bytes_per_s: str) -> None:
    """Forward until the input ends."""
    with SlowNetwork(int(port), float(delay_s), host, bytes_per_s=float(bytes_per_s)) as network:
        sys.stdout.write(f"{network.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
