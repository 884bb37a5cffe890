"""A cluster of three primaries, each with a replica."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Self, cast

import redis

from tests.chaos.fronts import CLIENT, REPLICA, Fronts, Kind, kind_at_bus
from tests.chaos.servers import Fronted, Topology
from tests.support import cluster
from tests.support.cluster import slot_of
from tests.support.deployment import until
from tests.support.valkey import Server, free_port

NODE_TIMEOUT_MS = 1000


class Nodes(cluster.Cluster):
    """Nodes whose clients, replicas and buses go through fronts."""

    def __init__(self, directory: Path, binary: str, fronts: Fronts) -> None:
        self._fronts = fronts
        self.buses: dict[int, int] = {}  # the port of the bus's front, by that of the node
        super().__init__(directory, binary, primaries=3, replicas=3, timeout_ms=NODE_TIMEOUT_MS)

    def _server(self, name: str) -> Server:
        node = Fronted(self._fronts, self.directory / name, binary=self.binary)
        bus = self._fronts.before(free_port(), kind_at_bus, port=free_port())
        self.buses[node.port] = bus.port
        node.options = (
            *(*node.options, *self.options, "--cluster-port", str(bus.target)),
            *("--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", str(node.port)),
            *("--cluster-announce-bus-port", str(bus.port)),
        )
        return node

    def meet(self, node: Server) -> None:
        self.do(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, self.buses[node.port])

    def isolate(self, node: Fronted) -> None:
        """Hold back what goes over the bus to a node, and from it."""
        for front in self._fronts.all:
            if front.port == self.buses[node.port]:
                front.cut()
            elif front.port in self.buses.values():
                front.cut(self.ids[node.port])


class Cluster(Topology):
    """The nodes decide who is a primary; an operator asks them, and moves slots."""

    name = "cluster"
    replicas = 1

    def __init__(self, directory: Path, fronts: Fronts) -> None:
        super().__init__(directory, fronts)
        self._nodes = Nodes(directory, self.binary, fronts)
        self.url = self._nodes.url
        self.faults = {
            "kill": self.kill,
            "stop": self.stop,
            "stop a replica": self.stop_a_replica,
            "promote": self.promote,
            "promote by force": partial(self.promote, "FORCE"),
            "restart": self.restart,
            "restart a replica": self.restart_a_replica,
            "reshard by hand": self.reshard,
            "reshard atomically": self.reshard_atomically,
            "cut off replicas": partial(self._cut_off, REPLICA),
            "cut off clients": partial(self._cut_off, CLIENT),
            "cut off replicas and nodes": partial(self._cut_off, REPLICA, bus=True),
            "cut off a primary": partial(self._cut_off, bus=True),
        }

    @property
    def servers(self) -> list[Fronted]:
        return cast("list[Fronted]", self._nodes.nodes)

    def __enter__(self) -> Self:
        self._nodes.__enter__()
        self.converge()
        return self

    def __exit__(self, *_: object) -> None:
        self._nodes.__exit__()

    def converge(self) -> None:
        until(self._is_whole, "the cluster is not whole")

    def _is_whole(self) -> bool:
        self._look()
        return (
            all(self._nodes._is_whole(node) for node in self.servers)
            and all(node.is_linked() for node in self._replicas())
            and all(node.do("WAIT", 1, 1000) == 1 for node in self._primaries())
            and self.is_quiet()
        )

    def _primaries(self) -> list[Fronted]:
        return cast("list[Fronted]", self._nodes.primaries)

    def _replicas(self) -> list[Fronted]:
        return cast("list[Fronted]", self._nodes.replicas)

    def _look(self) -> None:
        """Learn who has become a primary."""
        for primary, replica in zip(self._primaries(), self._replicas(), strict=True):
            with contextlib.suppress(redis.RedisError):
                promoted = replica.is_up and replica.replication()["role"] == "master"
                if promoted and not (primary.is_up and primary.replication()["role"] == "master"):
                    self._nodes._exchange_roles(replica)

    def _shard(self) -> tuple[Fronted, Fronted] | None:
        """A primary that runs, and its replica that follows it."""
        self._look()
        shards = [
            (primary, replica)
            for primary, replica in zip(self._primaries(), self._replicas(), strict=True)
            if primary.is_up and replica.is_linked()
        ]
        return self.rng.choice(shards) if shards else None

    # --- faults ------------------------------------------------------------------------------------

    def kill(self) -> bool:
        shard = self._shard()
        if shard is not None:
            self._nodes.kill(shard[0])
        return shard is not None

    def stop(self) -> bool:
        """After a long one, its replica has taken over."""
        shard = self._shard()
        if shard is None:
            return False
        shard[0].pause()
        self.last(0.2, 3.5)
        shard[0].resume()
        return True

    def stop_a_replica(self) -> bool:
        shard = self._shard()
        if shard is None:
            return False
        shard[1].pause()
        self.last(0.3, 2)
        shard[1].resume()
        return True

    def promote(self, *how: str) -> bool:
        shard = self._shard()
        if shard is None:
            return False
        shard[1].do("CLUSTER", "FAILOVER", *how)
        with contextlib.suppress(RuntimeError):  # the cluster may not agree now
            until(lambda: shard[1].replication()["role"] == "master", "no failover")
        return True

    def restart(self) -> bool:
        shard = self._shard()
        if shard is not None:
            shard[0].restart()
        return shard is not None

    def restart_a_replica(self) -> bool:
        shard = self._shard()
        if shard is not None:
            shard[1].restart()
        return shard is not None

    def _move(self) -> tuple[int, Fronted] | None:
        """A slot with a dataset of this round, and a primary that may get it."""
        shard = self._shard()
        if shard is None:
            return None
        slot = slot_of(self.rng.choice(self.names))
        source = self._nodes.owner(slot)
        return None if source is shard[0] else (slot, shard[0])

    def reshard(self) -> bool:
        move = self._move()
        if move is not None:
            self._nodes.move_slot(*move)
        return move is not None

    def reshard_atomically(self) -> bool:
        move = self._move()
        if move is not None:
            self._nodes.move_atomically(move[0], *move)
        return move is not None

    def _cut_off(self, *kinds: Kind, bus: bool = False) -> bool:
        shard = self._shard()
        if shard is None:
            return False
        if bus:
            self._nodes.isolate(shard[0])
        shard[0].front.cut(*kinds)
        self.last(0.3, 3.5)
        self.fronts.heal(reset=self.rng.random() < 0.5)
        return True
