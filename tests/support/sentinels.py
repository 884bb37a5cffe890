"""Three sentinels, a primary and two replicas, on loopback."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.support.deployment import Sentinel, until
from tests.support.valkey import Server, free_port

NAME = "mymaster"
VOTES_S = 60.0  # a vote that is split is held again after six seconds, and several may be in a row
DOWN_AFTER_MS = 700


class Sentinels:
    """The servers, and the sentinels that watch them. `options` are those of each server.

    `password` and `sentinel_password`: required by the servers and by the sentinels, for the default user.
    `make`: what makes a server.
    """

    def __init__(
        self,
        directory: Path,
        binary: str,
        *options: str,
        password: str = "",
        sentinel_password: str = "",
        make: Callable[..., Server] = Server,
    ) -> None:
        self._password, self._sentinel_password = password, sentinel_password
        if password:
            options = (*options, "--requirepass", password, "--masterauth", password)
        first = make(directory / "server-0", *options, binary=binary)
        of_first = ("--replicaof", f"127.0.0.1 {first.port}")
        self.servers = [
            first,
            *(make(directory / f"server-{n}", *options, *of_first, binary=binary) for n in (1, 2)),
        ]
        self.sentinels = [self._sentinel(directory / f"sentinel-{n}", binary) for n in range(3)]

    def _sentinel(self, directory: Path, binary: str) -> Sentinel:
        directory.mkdir(parents=True, exist_ok=True)
        config, port = directory / "sentinel.conf", free_port()
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {directory}",
            "protected-mode no",
            f"sentinel monitor {NAME} 127.0.0.1 {self.servers[0].port} 2",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {NAME} 3000",
        ]
        if self._password:
            lines.append(f"sentinel auth-pass {NAME} {self._password}")
        if self._sentinel_password:
            lines += [
                f"requirepass {self._sentinel_password}",
                f"sentinel sentinel-pass {self._sentinel_password}",
            ]
        config.write_text("\n".join(lines) + "\n")
        return Sentinel(directory, config, binary=binary, port=port)

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)

    @property
    def url(self) -> str:
        access = f":{self._password}@" if self._password else ""
        query = f"?sentinel_password={self._sentinel_password}" if self._sentinel_password else ""
        return f"redis+sentinel://{access}{self.hosts}/{NAME}/0{query}"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            for watching in self.sentinels:
                stack.callback(watching.stop)
                watching.start(wait=not self._sentinel_password)
            self._stack = stack.pop_all()
        until(self.is_settled, "the sentinels do not know each other")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def client(self, server: Server) -> Any:
        return server.client(password=self._password or None)

    def ask(self, *words: str, of: int = 0) -> Any:
        options = {"password": self._sentinel_password or None, "decode_responses": True}
        with self.sentinels[of].client(**options) as client:
            return client.execute_command(*words)

    def primary_of(self, sentinel: int = 0) -> Server:
        """The primary that a sentinel names."""
        _, port = self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME, of=sentinel)
        return next(each for each in self.servers if each.port == int(port))

    @property
    def primary(self) -> Server:
        return self.primary_of(0)

    @property
    def replicas(self) -> list[Server]:
        return [each for each in self.servers if each is not self.primary]

    def is_settled(self) -> bool:
        """Say whether the sentinels agree and know each other, and two replicas follow the primary."""
        primary = self.primary
        return (
            all(self.primary_of(n) is primary and self._knows_all(n) for n in range(3))
            and self._role(primary) == ("master", "")
            and all(self._role(each) == ("slave", "up") for each in self.servers if each is not primary)
        )

    def _knows_all(self, sentinel: int) -> bool:
        options = {"password": self._sentinel_password or None, "decode_responses": True}
        with self.sentinels[sentinel].client(**options) as client:
            known: Any = client.sentinel_masters()
            return bool(
                known[NAME]["num-other-sentinels"] == 2
                and known[NAME]["flags"] == "master"
                and sum(not each["is_sdown"] for each in client.sentinel_slaves(NAME)) == 2
            )

    def _hurry(self) -> None:
        """Tell each server whom to follow. The sentinels do so, too, but look only every ten seconds."""
        primary = self.primary
        for server in self.servers:
            if server is not primary:
                with self.client(server) as client:
                    client.replicaof("127.0.0.1", primary.port)

    def role(self, server: Server) -> str:
        """What a server says that it is: `master` or `slave`."""
        return self._role(server)[0]

    def _role(self, server: Server) -> tuple[str, str]:
        with self.client(server) as client:
            found = client.info("replication")
        return found["role"], found.get("master_link_status", "")

    def begin_failover(self) -> None:
        """Ask the first sentinel to promote a replica."""
        until(lambda: self.ask("SENTINEL", "FAILOVER", NAME) in ("OK", True), "no failover began")

    def fail_over(self) -> Server:
        """Ask a sentinel to promote a replica. Returns the server that was demoted."""
        before = self.primary
        self.begin_failover()
        until(lambda: all(self.primary_of(n) is not before for n in range(3)), "no failover")
        return before

    def is_failing_over(self, sentinel: int) -> bool:
        """Say whether a sentinel leads a failover that is not over."""
        state = self.ask("SENTINEL MASTER", NAME, of=sentinel)  # one word: redis-py 5.0 parses it so
        return "failover_in_progress" in state["flags"]

    def kill_primary(self) -> Server:
        """Kill the primary and wait until another one is named. Returns the dead server.

        A sentinel whose failover is not over when the new primary dies names that one for ever.
        """
        until(lambda: not any(map(self.is_failing_over, range(3))), "a failover does not end")
        dead = self.primary
        dead.stop()
        self.await_other_than(dead)
        return dead

    def await_other_than(self, server: Server) -> None:
        """Wait until all sentinels name another primary than this."""
        try:
            until(lambda: all(self.primary_of(n) is not server for n in range(3)), "no failover", VOTES_S)
        except RuntimeError as error:
            for each in self.sentinels:
                error.add_note((each.directory / "server.log").read_text("utf-8")[-4000:])
            raise

    def settle(self) -> None:
        """Start the servers that are down, and wait until all is as in the beginning."""
        for server in self.servers:
            if not server.is_running:
                server.start()
        self._hurry()
        until(self.is_settled, "the sentinels do not agree, or a replica is missing")
