"""A real cluster: its nodes as processes on loopback, and what an operator does to them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path
from typing import Any, Self

import redis
from redis.crc import key_slot

from tests.support.deployment import until
from tests.support.valkey import Server, free_port

SLOTS = 16_384


class Cluster:
    """Primaries that share the slots, and a replica for each of the first ones.

    `timeout_ms`: how soon a node that does not answer is taken for dead. `options` are those of each server.
    """

    def __init__(
        self,
        directory: Path,
        binary: str,
        *options: str,
        primaries: int = 3,
        replicas: int = 0,
        timeout_ms: int = 1000,
    ) -> None:
        self.directory = directory
        self.binary = binary
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
        self.has_bus_port = "Redis server v=6" not in said
        self.options = (
            *("--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout_ms)),
            *("--cluster-replica-validity-factor", "0", "--cluster-allow-replica-migration", "no"),
            *options,
        )
        self.primaries = [self._server(f"primary-{i}") for i in range(primaries)]
        self.replicas = [self._server(f"replica-{i}") for i in range(replicas)]
        self.ids: dict[int, str] = {}  # by port

    def _server(self, name: str) -> Server:
        server = Server(self.directory / name, binary=self.binary)
        if self.has_bus_port:
            server.options = (*self.options, "--cluster-port", str(free_port()))
            return server
        while not is_free(server.port + 10_000):  # where Redis 6.2 has its bus
            server.port = free_port()
        server.options = self.options
        return server

    @property
    def nodes(self) -> list[Server]:
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for epoch, node in enumerate(self.nodes, start=1):
                stack.callback(node.stop)
                self._start(node)
                self.do(node, "CLUSTER", "SET-CONFIG-EPOCH", epoch)
            bounds = [SLOTS * i // len(self.primaries) for i in range(len(self.primaries) + 1)]
            for node, first, end in zip(self.primaries, bounds, bounds[1:], strict=False):
                self.do(node, "CLUSTER", "ADDSLOTS", *range(first, end))
            for node in self.nodes[1:]:
                self.meet(node)
            self.agree()
            for primary, replica in zip(self.primaries, self.replicas, strict=False):
                self.replicate(replica, primary)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, node: Server) -> None:
        node.start()
        self.ids[node.port] = str(self.do(node, "CLUSTER", "MYID").decode())

    def do(self, node: Server, *words: Any) -> Any:
        """Send one command to a node, and return its reply as it is."""
        with node.client() as client:
            client.response_callbacks.clear()
            return client.execute_command(" ".join(map(str, words[:2])), *words[2:])

    def meet(self, node: Server) -> None:
        bus = [node.options[-1]] if self.has_bus_port else []
        self.do(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, *bus)

    def replicate(self, replica: Server, primary: Server) -> None:
        until(lambda: self.do(replica, "CLUSTER", "REPLICATE", self.ids[primary.port]), "no replica")
        until(lambda: b"master_link_status:up" in self.do(replica, "INFO", "replication"), "no replication")
        until(lambda: self._lists(replica, primary), "the replica is not known")

    def _lists(self, replica: Server, primary: Server) -> bool:
        entries = self.do(self.primaries[0], "CLUSTER", "SLOTS")
        return any(replica.port in {each[1] for each in entry[3:]} for entry in entries if entry[2][1])

    def agree(self) -> None:
        """Wait until every node knows all others, and sees all slots served."""
        for node in self.nodes:
            until(lambda node=node: self._is_whole(node), "no cluster")

    def _is_whole(self, node: Server) -> bool:
        said = self.do(node, "CLUSTER", "INFO")
        known = f"cluster_known_nodes:{len(self.nodes)}\r".encode()
        return b"cluster_state:ok" in said and known in said

    # --- who has what ------------------------------------------------------------------------------

    def owner(self, slot: int) -> Server:
        """The primary that serves a slot, as the nodes that run say."""
        for node in self.nodes:
            with contextlib.suppress(redis.RedisError, OSError):
                for first, last, primary, *_ in self.do(node, "CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return self.node(primary[1])
        raise AssertionError(f"no node serves slot {slot}")

    def node(self, port: int) -> Server:
        return next(node for node in self.nodes if node.port == port)

    def other(self, *not_these: Server) -> Server:
        """A primary that is none of these."""
        return next(node for node in self.primaries if node not in not_these)

    def names(self, count: int, *, of: Server | None = None, namespace: str = "set") -> list[str]:
        """Names of datasets whose slot a node serves."""
        found = []
        entries = self.do(self.primaries[0], "CLUSTER", "SLOTS")
        for number in range(100_000):
            name = f"{namespace}-{number}"
            slot = slot_of(name)
            port = next(entry[2][1] for entry in entries if entry[0] <= slot <= entry[1])
            if of is None or port == of.port:
                found.append(name)
            if len(found) == count:
                break
        return found

    # --- what an operator does ---------------------------------------------------------------------

    def open_slot(self, slot: int, source: Server, target: Server) -> None:
        """Begin to move a slot by hand: from now on its keys can be on both nodes."""
        self.do(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source.port])
        self.do(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[target.port])

    def move_keys(self, slot: int, source: Server, target: Server, *, most: int = 1_000_000) -> int:
        """Move keys of an open slot, at most so many. Returns how many."""
        moved = 0
        while moved < most:
            keys = self.do(source, "CLUSTER", "GETKEYSINSLOT", slot, min(10, most - moved))
            if not keys:
                break
            self.do(source, "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            moved += len(keys)
        return moved

    def close_slot(self, slot: int, owner: Server) -> None:
        """End a move: the slot belongs to a node that has all its keys."""
        for node in [owner, *(each for each in self.primaries if each is not owner)]:
            with contextlib.suppress(redis.ConnectionError):
                self.do(node, "CLUSTER", "SETSLOT", slot, "NODE", self.ids[owner.port])

    def move_slot(self, slot: int, target: Server) -> None:
        """Move a slot by hand, as `valkey-cli --cluster reshard` does."""
        source = self.owner(slot)
        if source is target:
            return
        self.open_slot(slot, source, target)
        self.move_keys(slot, source, target)
        self.close_slot(slot, target)

    def empty(self, source: Server, target: Server) -> None:
        """Move every slot of a node, those with keys key by key."""
        slots = [
            slot
            for first, last, primary, *_ in self.do(source, "CLUSTER", "SLOTS")
            if primary[1] == source.port
            for slot in range(first, last + 1)
        ]
        with source.client() as client, client.pipeline(transaction=False) as pipe:
            for slot in slots:
                pipe.execute_command("CLUSTER COUNTKEYSINSLOT", slot)
            counts = dict(zip(slots, pipe.execute(), strict=True))
        for slot in slots:
            if counts[slot]:
                self.move_slot(slot, target)
        for node in (target, *(each for each in self.nodes if each is not target)):
            with node.client() as client, client.pipeline(transaction=False) as pipe:
                for slot in slots:
                    if not counts[slot]:
                        pipe.execute_command("CLUSTER SETSLOT", slot, "NODE", self.ids[target.port])
                pipe.execute(raise_on_error=False)

    def move_atomically(self, first: int, last: int, target: Server) -> None:
        """Move slots of one node in one step (Valkey 9)."""
        source = self.owner(first)
        self.do(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", self.ids[target.port])
        until(lambda: self.owner(first) is target and self.owner(last) is target, "the slots do not move")

    def fail_over(self, replica: Server, *, force: bool = False) -> None:
        """Promote a replica, as its primary agrees; `force`: without its primary."""
        self.do(replica, "CLUSTER", "FAILOVER", *(["FORCE"] if force else []))
        until(lambda: b"role:master" in self.do(replica, "INFO", "replication"), "no failover")
        self._exchange_roles(replica)

    def kill(self, primary: Server) -> Server:
        """Kill a primary, and wait until a replica has taken over. Returns that replica."""
        primary.stop()
        replica = self.replicas[self.primaries.index(primary)]
        until(lambda: b"role:master" in self.do(replica, "INFO", "replication"), "no failover")
        self._exchange_roles(replica)
        return replica

    def _exchange_roles(self, replica: Server) -> None:
        i = self.replicas.index(replica)
        self.primaries[i], self.replicas[i] = self.replicas[i], self.primaries[i]

    def restart(self, node: Server) -> None:
        """Start a node again; one that was a primary becomes a replica of what took over."""
        node.start()
        until(lambda: b"cluster_state:ok" in self.do(node, "CLUSTER", "INFO"), "the node is not back")

    def add(self) -> Server:
        """Add an empty primary."""
        node = self._server(f"primary-{len(self.ids)}")
        self._stack.callback(node.stop)
        self._start(node)
        self.primaries.append(node)
        self.meet(node)
        self.agree()
        return node

    def remove(self, node: Server) -> None:
        """Remove a node that serves no slot, and stop it."""
        self.primaries.remove(node)
        for each in self.nodes:
            with contextlib.suppress(redis.ResponseError):
                self.do(each, "CLUSTER", "FORGET", self.ids[node.port])
        node.stop()

    def flush(self) -> None:
        for node in self.primaries:
            self.do(node, "FLUSHALL")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def slot_of_key(key: str) -> int:
    """The slot of a key."""
    return key_slot(key.encode())


def slot_of(dataset: str) -> int:
    """The slot of a dataset's keys."""
    return slot_of_key(f"{{{dataset}}}")
