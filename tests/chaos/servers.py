"""Servers behind fronts, which keep their data and their role over a restart."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from tests.chaos.fronts import Fronts
from tests.support.cluster import SLOTS, slot_of
from tests.support.deployment import kinds
from tests.support.valkey import Server, free_port

OPTIONS = (
    *("--appendonly", "yes", "--appendfsync", "no", "--auto-aof-rewrite-percentage", "0"),
    *("--repl-backlog-size", "32mb"),
)


class Fronted(Server):
    """A server that is known by the address of its front. `client` goes around the front.

    It starts from a configuration file, so what an operator or a sentinel made of it holds over a restart.
    Its append-only file has all that it ever answered: it is written before each answer, and killing a
    process does not lose what it has written.
    """

    def __init__(self, fronts: Fronts, directory: Path, *options: str, binary: str) -> None:
        super().__init__(directory, *OPTIONS, *options, binary=binary)
        self.own_port = self.port
        self.front = fronts.before(self.own_port, port=free_port())
        self.port = self.front.port
        self.is_paused = False

    def command_line(self) -> list[str]:
        config = self.directory / "server.conf"
        if not config.exists():
            known = ("--replica-announce-ip", "127.0.0.1", "--replica-announce-port", str(self.port))
            words = [*super().command_line()[1:], *known]
            words[words.index("--port") + 1] = str(self.own_port)
            lines = "".join(
                f"\n{word[2:]}" if word.startswith("--") else f" {word or chr(34) * 2}" for word in words
            )
            config.write_text(lines + "\n")
        return [self.binary, str(config)]

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def client(self, **options: object) -> redis.Redis:
        options = {"socket_timeout": 5, "socket_connect_timeout": 2, **options}
        return redis.Redis(host="127.0.0.1", port=self.own_port, **options)  # type: ignore[arg-type]

    def do(self, *words: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*words)

    def replication(self) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.info("replication")
            return found

    def is_linked(self) -> bool:
        """Say whether it is a replica that has its primary's data and goes on to get it."""
        try:
            return self.is_up and self.replication().get("master_link_status") == "up"
        except redis.RedisError:
            return False

    @property
    def is_up(self) -> bool:
        return self.is_running and not self.is_paused

    def pause(self) -> None:
        """Stop the process as it is: connections stay open, and nothing answers (SIGSTOP)."""
        self._signal(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        if self.is_paused:
            self._signal(signal.SIGCONT)
        self.is_paused = False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def stop(self) -> None:
        super().stop()
        self.is_paused = False

    def restart(self) -> None:
        """Kill it, and start it again at once."""
        self.stop()
        self.start()


class Topology:
    """Servers, and what can happen to them. `replicas`: how many each primary has. `names`: the datasets.

    A fault returns when it is over or under way; False: it could not be had at that moment. `heal` ends what
    is under way, and `converge` waits until all is as in the beginning, whoever is the primary then.
    """

    name: str
    url: str
    replicas: int
    faults: dict[str, Callable[[], bool | None]]

    def __init__(self, directory: Path, fronts: Fronts) -> None:
        self.fronts = fronts
        self.rng = random.Random(0)  # of the round
        self.directory = directory
        self.binary = kinds()["valkey"]
        self.names: list[str] = []

    def last(self, shortest_s: float, longest_s: float) -> None:
        """Let a fault last."""
        time.sleep(self.rng.uniform(shortest_s, longest_s))

    @property
    def servers(self) -> list[Fronted]:
        raise NotImplementedError

    def heal(self) -> None:
        self.fronts.heal(reset=self.rng.random() < 0.5)
        for server in self.servers:
            server.resume()
            if not server.is_running:
                server.start()

    def converge(self) -> None:
        raise NotImplementedError

    def is_quiet(self) -> bool:
        """Say whether no server is loading or writing what a restart would need."""
        for server in self.servers:
            with server.client() as client:
                found = client.info("persistence")
            if found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"] or found["loading"]:
                return False
        return True


def names_for(number: int) -> list[str]:
    """Four datasets of a round, the last three in each third of the slots."""
    found = []
    for third in (number % 3, 0, 1, 2):
        low, high = SLOTS * third // 3, SLOTS * (third + 1) // 3
        taken = iter(f"round-{number}-{n}" for n in range(10_000))
        found.append(next(name for name in taken if low <= slot_of(name) < high and name not in found))
    return found
