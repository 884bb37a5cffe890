"""A primary and two replicas behind a stable address, and an operator who promotes by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from tests.chaos.fronts import REPLICA, Fronts
from tests.chaos.servers import Fronted, Topology
from tests.support.deployment import until
from tests.support.valkey import free_port


class Pair(Topology):
    """The operator promotes replicas that are connected to their primary then. But see one of the faults."""

    name = "pair"
    replicas = 2

    def __init__(self, directory: Path, fronts: Fronts) -> None:
        super().__init__(directory, fronts)
        self._servers = [Fronted(fronts, directory / f"server-{n}", binary=self.binary) for n in range(3)]
        self.primary = self._servers[0]
        self.address = fronts.before(self.primary.own_port, port=free_port())
        self.url = f"redis://127.0.0.1:{self.address.port}/0"
        self.faults = {
            "kill": self.kill,
            "stop": self.stop,
            "stop and promote": self.stop_and_promote,
            "stop a replica": self.stop_a_replica,
            "demote": self.demote,
            "promote": self.promote,
            "promote one behind": self.promote_one_behind,
            "restart": self.restart,
            "restart a replica": self.restart_a_replica,
            "cut off replicas": self.cut_off_replicas,
            "cut off clients": self.cut_off_clients,
        }

    @property
    def servers(self) -> list[Fronted]:
        return self._servers

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        self.converge()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.stop()

    def converge(self) -> None:
        for server in self.servers:
            if server is not self.primary:
                self._follow(server, self.primary)
        until(lambda: all(each.is_linked() for each in self._others()), "the replicas are not back")
        until(lambda: self.primary.do("WAIT", 2, 1000) == 2 and self.is_quiet(), "the replicas are behind")

    def _others(self) -> list[Fronted]:
        return [each for each in self.servers if each is not self.primary]

    @staticmethod
    def _follow(server: Fronted, primary: Fronted) -> None:
        server.do("REPLICAOF", "127.0.0.1", primary.port)
        server.do("CONFIG", "REWRITE")

    def _candidate(self) -> Fronted | None:
        linked = [each for each in self._others() if each.is_linked()]
        return self.rng.choice(linked) if linked else None

    def _promote(self, chosen: Fronted, *, tell: Fronted | None = None) -> None:
        """Promote a replica, let the address lead to it, and tell others whom to follow.

        `tell`: the old primary is told, too; None: it is not yet.
        """
        before = self.primary
        chosen.do("REPLICAOF", "NO", "ONE")
        chosen.do("CONFIG", "REWRITE")
        self.primary = chosen
        self.address.target = chosen.own_port
        for each in self._others():
            if each.is_up and (each is not before or tell is before):
                self._follow(each, chosen)

    # --- faults ------------------------------------------------------------------------------------

    def kill(self) -> bool:
        chosen = self._candidate()
        if chosen is None:
            return False
        self.primary.stop()
        self.last(0, 0.5)
        self._promote(chosen)
        return True

    def stop(self) -> None:
        self.primary.pause()
        self.last(0.2, 3)
        self.primary.resume()

    def stop_and_promote(self) -> bool:
        chosen, old = self._candidate(), self.primary
        if chosen is None:
            return False
        old.pause()
        self.last(0, 0.3)
        self._promote(chosen)
        self.last(0.2, 1.5)
        old.resume()  # it takes itself for the primary, until the end of the round
        return True

    def stop_a_replica(self) -> None:
        stopped = self.rng.choice(self._others())
        if stopped.is_up:
            stopped.pause()
            self.last(0.3, 2)
            stopped.resume()

    def demote(self) -> bool:
        chosen, old = self._candidate(), self.primary
        if chosen is None or not old.is_up:
            return False
        self._follow(old, chosen)
        self.last(0, 0.5)  # there is no primary
        self._promote(chosen, tell=old)
        return True

    def promote(self) -> bool:
        chosen, old = self._candidate(), self.primary
        if chosen is None:
            return False
        self._promote(chosen)
        self.last(0.1, 1.5)  # two servers accept writes
        if old.is_up:
            self._follow(old, chosen)
        return True

    def promote_one_behind(self) -> bool:
        """One replica is cut off, the other is not, and it is the one that is promoted."""
        behind, old = self._candidate(), self.primary
        if behind is None or not old.is_up:
            return False
        behind.do("REPLICAOF", "127.0.0.1", 1)
        self.last(0.3, 1.5)
        self._promote(behind, tell=old)
        return True

    def restart(self) -> None:
        self.primary.restart()

    def restart_a_replica(self) -> None:
        self.rng.choice(self._others()).restart()

    def cut_off_replicas(self) -> None:
        self.primary.front.cut(REPLICA)
        self.last(0.3, 2)
        self.fronts.heal(reset=self.rng.random() < 0.5)

    def cut_off_clients(self) -> None:
        self.address.cut()
        self.last(0.3, 3)
        self.fronts.heal(reset=self.rng.random() < 0.5)
