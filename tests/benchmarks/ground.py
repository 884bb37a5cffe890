"""Where the benchmark runs: a server, a namespace that is removed at the end, and slow networks."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import attrs
import redis

import swapstore
from swapstore import Store
from tests.benchmarks.latency import slow_network
from tests.benchmarks.rounds import Wire
from tests.support.valkey import Server

NAMESPACE = "swapstore-bench"
BATCH = 500
DOZENS = 48  # clients that are made at a time


class Ground:
    """A server to measure on. `url` is never shown: it may contain a password."""

    def __init__(self, url: str, directory: Path, undo: ExitStack, server: Server | None) -> None:
        self.url = url
        self.directory = directory
        self.server = server  # None: the server was started by someone else
        self.namespace = f"{NAMESPACE}-{secrets.token_hex(4)}"
        self.client: Any = undo.enter_context(redis.Redis.from_url(url))
        self._undo = undo
        self._slow: dict[tuple[float, float], str] = {(0, math.inf): url}

    def behind(self, delay_ms: float, bytes_per_s: float = math.inf) -> str | None:
        """Return an address with this delay and rate, each way; None if no proxy can provide it.

        TLS checks the host's name, which a proxy does not have, and a socket file has no port.
        """
        parts = urlsplit(self.url)
        if parts.scheme != "redis" or not parts.hostname:
            return self._slow.get((delay_ms, bytes_per_s))
        if (delay_ms, bytes_per_s) not in self._slow:
            network = slow_network(parts.hostname, parts.port or 6379, delay_ms / 1000, bytes_per_s)
            port = self._undo.enter_context(network)
            user, at, _ = parts.netloc.rpartition("@")
            address = parts._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()
            self._slow[delay_ms, bytes_per_s] = address
        return self._slow[delay_ms, bytes_per_s]

    @property
    def wire(self) -> Wire | None:
        """A count of the bytes that the server receives and sends, without those of counting.

        None: others may use the server, too.
        """
        if self.server is None:
            return None
        (sent, received), then = self._traffic(), self._traffic()
        each, asked = (then[0] - sent, then[1] - received), 0

        def count() -> tuple[int, int]:
            nonlocal asked
            asked += 1
            now = self._traffic()
            return now[0] - each[0] * asked, now[1] - each[1] * asked

        return count

    def _traffic(self) -> tuple[int, int]:
        stats = self.client.info("stats")
        return int(stats["total_net_input_bytes"]), int(stats["total_net_output_bytes"])

    def store(self, url: str | None = None, **options: Any) -> Store:
        """Make a store in the namespace."""
        return swapstore.connect(url or self.url, namespace=self.namespace, **options)

    def clear(self) -> int:
        """Remove every key of the namespace; return how many there were."""
        removed = 0
        batch: list[bytes] = []
        for key in self.client.scan_iter(match=f"{self.namespace}:*", count=10_000):
            batch.append(key)
            if len(batch) == BATCH:
                removed += self.client.unlink(*batch)
                batch.clear()
        return removed + (self.client.unlink(*batch) if batch else 0)

    def about(self) -> dict[str, Any]:
        """Describe the server, but not its address. Some users may not ask it."""
        settings: dict[str, Any] = {}
        with suppress(redis.ResponseError):
            settings = {key: self.client.config_get(key).get(key) for key in ("appendonly", "save")}
        where = "the bench's own, on loopback" if self.server else "the one of --url"
        return {"server": version_of(self.client), "where": where, **settings}


def version_of(client: Any) -> str:
    """Name a server and its version."""
    info: dict[str, Any] = {}
    with suppress(redis.ResponseError):
        info = client.info("server")
    if "dragonfly_version" in info:
        return f"Dragonfly {info['dragonfly_version']}"
    kind = "Valkey" if "valkey_version" in info else "Redis"
    return f"{kind} {info.get('valkey_version') or info.get('redis_version')}"


@contextmanager
def ground(url: str | None) -> Iterator[Ground]:
    """Find or start the server; in any case, stop it or remove the namespace at the end."""
    with ExitStack() as undo:
        directory = Path(undo.enter_context(TemporaryDirectory(prefix="swapstore-bench-")))
        server = None if url else undo.enter_context(Server(directory / "server"))
        made = Ground(url or (server.url if server else ""), directory, undo, server)
        try:
            yield made
        finally:
            # Ctrl-C in a terminal also stops the benchmark's own server, and its keys are gone.
            with suppress(redis.ConnectionError) if made.server else ExitStack():
                made.clear()


def fresh(store: Store, target: Any, **options: Any) -> Store:
    """Make a client with an empty cache, on the connections of another one."""
    made = swapstore.connect(target, **options)
    return Store(store._driver, made._context)


@attrs.define
class Cold:
    """A new client for each round, made before the clock starts; its connection is open.

    Dozens are made at a time: a client made right before it is timed would clear the processor's caches, for
    this way alone.
    """

    store: Store
    target: Any
    namespace: str = "swapstore"
    now: Store = attrs.field(init=False)
    _made: list[Store] = attrs.field(init=False, factory=list)

    def renew(self) -> None:
        if not self._made:
            self._made = [fresh(self.store, self.target, namespace=self.namespace) for _ in range(DOZENS)]
        self.now = self._made.pop()

    def __attrs_post_init__(self) -> None:
        self.renew()


def filesystem(path: Path) -> str:
    """Name the kind of file system of a path: on tmpfs a sync costs nothing."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
    except OSError:
        return "unknown"
    over = [(len(place), kind) for place, kind in mounts if path.resolve().is_relative_to(place)]
    return max(over, default=(0, "unknown"))[1]
