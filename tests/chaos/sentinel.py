"""Three sentinels, a primary and two replicas."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Self, cast

import redis

from tests.chaos.fronts import CLIENT, REPLICA, SENTINEL, Fronts, Kind
from tests.chaos.servers import Fronted, Topology
from tests.support.deployment import until
from tests.support.sentinels import NAME, Sentinels

ATTEMPTS = 5


class Sentinel(Topology):
    """Sentinels decide who is the primary; an operator only asks them."""

    name = "sentinel"
    replicas = 2

    def __init__(self, directory: Path, fronts: Fronts) -> None:
        super().__init__(directory, fronts)
        self._set = Sentinels(directory, self.binary, make=partial(Fronted, fronts))
        self.url = self._set.url
        self.faults = {
            "kill": self.kill,
            "stop": self.stop,
            "stop a replica": self.stop_a_replica,
            "promote": self.promote,
            "restart": self.restart,
            "restart a replica": self.restart_a_replica,
            "cut off replicas": partial(self._cut_off, REPLICA),
            "cut off clients": partial(self._cut_off, CLIENT),
            "cut off replicas and sentinels": partial(self._cut_off, REPLICA, SENTINEL),
            "cut off the primary": self._cut_off,
        }

    @property
    def servers(self) -> list[Fronted]:
        return cast("list[Fronted]", self._set.servers)

    def __enter__(self) -> Self:
        self._set.__enter__()
        self.converge()
        return self

    def __exit__(self, *_: object) -> None:
        self._set.__exit__()

    def converge(self) -> None:
        """Sentinels that are in the middle of a failover take their time, and may choose another primary."""
        for _ in range(ATTEMPTS):
            with contextlib.suppress(RuntimeError):
                until(self._agree, "the sentinels do not agree")
                self._set.settle()
                break
        until(lambda: self._primary().do("WAIT", 2, 1000) == 2 and self.is_quiet(), "the replicas are behind")

    def _agree(self) -> bool:
        """Say whether all name one primary, which is one, and none of them is about to promote another."""
        named = {self._set.primary_of(n).port for n in range(3)}
        flags = []
        for sentinel in self._set.sentinels:
            with sentinel.client(decode_responses=True) as client:
                flags.append(client.sentinel_masters()[NAME]["flags"])
        is_primary = self._primary().replication()["role"] == "master"
        return len(named) == 1 and is_primary and flags == ["master"] * 3

    def _primary(self) -> Fronted:
        return cast("Fronted", self._set.primary)

    def _replica(self) -> Fronted:
        return cast("Fronted", self.rng.choice(self._set.replicas))

    # --- faults ------------------------------------------------------------------------------------

    def kill(self) -> None:
        primary = self._primary()
        primary.stop()
        self._set.await_other_than(primary)

    def stop(self) -> None:
        """A short one is not noticed. After a long one there are two primaries, until the old one is told."""
        primary = self._primary()
        if primary.is_up:
            primary.pause()
            self.last(0.2, 3)
            primary.resume()

    def stop_a_replica(self) -> None:
        replica = self._replica()
        if replica.is_up:
            replica.pause()
            self.last(0.3, 2)
            replica.resume()

    def promote(self) -> bool:
        before = self._primary()
        with contextlib.suppress(redis.ResponseError):  # no replica is good enough now
            self._set.ask("SENTINEL", "FAILOVER", NAME)
            self._set.await_other_than(before)
            return True
        return False

    def restart(self) -> None:
        self._primary().restart()

    def restart_a_replica(self) -> None:
        self._replica().restart()

    def _cut_off(self, *kinds: Kind) -> None:
        self._primary().front.cut(*kinds)
        self.last(0.3, 3)
        self.fronts.heal(reset=self.rng.random() < 0.5)
