"""Fronts: an address before each server, through which everything goes that can be cut off.

A front knows what kind each connection is: of a client, of a replica, of a sentinel, of a cluster's bus. To
cut a kind holds back its bytes, in both directions, and new connections of the kind. When the network is
whole again, what was held back arrives late, as it does after a real partition; or the connections are reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Self

Kind = str
CLIENT, REPLICA, SENTINEL = "client", "replica", "sentinel"
FIRST_BYTES = 2048  # what a connection is shows in these
CHUNK_BYTES = 1 << 18


def kind_at_server(first: bytes) -> Kind:
    """What a connection to a server is, from its first bytes."""
    if b"REPLCONF" in first or b"PSYNC" in first:
        return REPLICA
    return SENTINEL if b"sentinel-" in first else CLIENT


def kind_at_bus(first: bytes) -> Kind:
    """Which node a connection to a cluster's bus comes from: its id stands in the header of each message."""
    return first[40:80].decode("latin-1") if len(first) >= 80 else ""


class Fronts:
    """All fronts, carried by one thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.all: list[Front] = []

    def before(
        self, target: int, kind_of: Callable[[bytes], Kind] = kind_at_server, *, port: int = 0
    ) -> Front:
        front = Front(self, target, kind_of)
        self.do(front.listen(port))
        self.all.append(front)
        return front

    def do(self, action: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(action, self.loop).result(10)

    def heal(self, *, reset: bool = False) -> None:
        """Let everything through again. `reset`: instead of what was held back, the connections end."""
        for front in self.all:
            front.heal(reset=reset)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _end(self) -> None:
        for front in self.all:
            front.close()
        await asyncio.sleep(0)  # a connection that was just accepted becomes a task in the next round
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)


class Front:
    """One address. `target` may change: open connections stay where they are, as behind a DNS name."""

    def __init__(self, fronts: Fronts, target: int, kind_of: Callable[[bytes], Kind]) -> None:
        self._fronts = fronts
        self.target = target
        self._kind_of = kind_of
        self._links: set[_Link] = set()
        self._cut: frozenset[Kind] = frozenset()
        self.port = 0

    async def listen(self, port: int) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self, *kinds: Kind) -> None:
        """Hold back these kinds of connection, all of them without one."""
        self._fronts.do(self._change(frozenset(kinds or ("*",)), reset=False))

    def heal(self, *, reset: bool = False) -> None:
        self._fronts.do(self._change(frozenset(), reset=reset))

    async def _change(self, cut: frozenset[Kind], *, reset: bool) -> None:
        held = [link for link in self._links if self.holds(link)]
        self._cut = cut
        for link in held if reset else ():
            link.abort()
        for link in self._links:
            link.look()

    def holds(self, link: _Link) -> bool:
        return "*" in self._cut or link.kind in self._cut

    def close(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self, writer)
        self._links.add(link)
        try:
            link.look()
            await link.is_open.wait()
            there = await asyncio.open_connection("127.0.0.1", self.target)
            link.writers.append(there[1])
            await asyncio.gather(link.carry(reader, there[1], learn=True), link.carry(there[0], writer))
        except (OSError, asyncio.CancelledError):
            pass  # the streams of Python 3.11 complain about a cancelled task
        finally:
            link.abort()
            self._links.discard(link)

    def learn(self, first: bytes) -> Kind:
        return self._kind_of(first)


class _Link:
    """A connection through a front."""

    def __init__(self, front: Front, writer: asyncio.StreamWriter) -> None:
        self._front = front
        self.writers = [writer]
        self.kind: Kind = front.learn(b"")
        self.is_open = asyncio.Event()

    def look(self) -> None:
        """Hold back what comes from now on, or let it through."""
        if self._front.holds(self):
            self.is_open.clear()
        else:
            self.is_open.set()

    def abort(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.is_open.set()

    async def carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, learn: bool = False
    ) -> None:
        first = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if learn and len(first) < FIRST_BYTES:
                    first += data
                    self.kind = self._front.learn(first)
                    self.look()
                await self.is_open.wait()
                writer.write(data)
                await writer.drain()
        await self.is_open.wait()
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()
