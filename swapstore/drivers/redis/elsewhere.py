"""What `doctor` asks of others than the primary: the sentinels, and the replicas that they name.

`Ask(("sentinels",))` has the driver say what the sentinels call the primary, and their addresses. An `Ask`
with a `node` goes to that server alone, on a connection of its own that is closed afterwards. It is never
sent again or elsewhere: nobody else can answer for that server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from swapstore.commands import Ask, Command, Failed
from swapstore.drivers.redis.address import shown
from swapstore.drivers.redis.sentinel import plain
from swapstore.errors import Unsupported

ANSWER_S = 1.0  # how long one server may take to connect, and to answer

NAMES = ("sentinels",)
_OF_THE_POOL = {"sentinels", "connection_pool"}  # options of connections that lead to a primary only

Way = tuple[type[Any], dict[str, Any]]  # the class of a connection, and its options


@attrs.frozen
class Elsewhere:
    """What sentinels call the primary, the way to each of them, and to a server whose address is given."""

    name: str
    sentinels: dict[str, Way] = attrs.field(repr=False)
    server: Way = attrs.field(repr=False)

    def way(self, node: str) -> Way:
        """Return the way to a sentinel, or to the server at `host:port`."""
        kind, options = self.sentinels.get(node, self.server)
        if node not in self.sentinels:
            host, _, port = node.rpartition(":")
            options = {**options, "host": host.strip("[]"), "port": int(port)}
        return kind, {**options, "socket_timeout": ANSWER_S, "socket_connect_timeout": ANSWER_S}


def behind(pool: Any) -> Elsewhere | None:
    """Return the way to the servers behind the sentinels that a pool asks. None: it asks none."""
    options = pool.connection_kwargs
    kind = plain(pool.connection_class)
    server = (kind, {key: each for key, each in options.items() if key not in _OF_THE_POOL})
    asked, managed = options.get("sentinels"), options.get("connection_pool")
    if asked is not None:
        return Elsewhere(asked.name, {at: (kind, own) for at, own in asked.options.items()}, server)
    if managed is None:
        return None
    pools = [client.connection_pool for client in managed.sentinel_manager.sentinels]
    return Elsewhere(
        managed.service_name,
        {
            shown((each.connection_kwargs["host"], each.connection_kwargs["port"])): (
                each.connection_class,
                each.connection_kwargs,
            )
            for each in pools
        },
        server,
    )


def divided(commands: Sequence[Command[Any]]) -> dict[str, dict[int, Ask]]:
    """Return the questions for each node, by where they are in the batch."""
    found: dict[str, dict[int, Ask]] = {}
    for i, command in enumerate(commands):
        if type(command) is Ask and command.node:
            found.setdefault(command.node, {})[i] = Ask(command.words)
    return found


def begun(commands: Sequence[Command[Any]], others: Elsewhere | None) -> list[Any]:
    """Return the answers to a batch before any node was asked."""
    names = None if others is None else [others.name, *others.sentinels]
    nobody = Failed(Unsupported("only the servers behind sentinels can be asked one by one"))
    return [names if type(each) is Ask and each.words == NAMES else nobody for each in commands]


def final(reply: Any) -> Any:
    """Return a node's answer, as one that is not asked for again."""
    return Failed(reply.error) if type(reply) is Failed else reply
