"""Pools of blocking connections: our own, and a caller's.

A pool decides which connection may carry a batch. It lends one only if nothing shows that the server has
closed it, or that a reply is left unread on it. After a failure or a failover, `retire` closes every idle
connection, and each lent one as soon as it comes back: what happened to one may have happened to all.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis

from swapstore.drivers.base import closed
from swapstore.errors import SwapstoreError

if TYPE_CHECKING:
    from collections.abc import Callable

# What to pass to redis-py's `get_connection`: before 5.3 it requires the name of a command, and ignores it.
FOR_ANY_COMMAND = ("any",) if redis.VERSION < (5, 3) else ()
SLICE_S = 0.05  # how soon a waiting thread finds a place that an interrupt has freed


class Exhausted(redis.ConnectionError):
    """No connection became free in time."""


class NoPrimary(redis.ConnectionError):
    """No connection leads to the primary, or to a replica: `failure` says why."""

    def __init__(self, failure: SwapstoreError) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Pool:
    """Our own connections, at most so many, each used from when it is made until it fails.

    A lent connection is known by a weak reference only. Where an exception out of nowhere (Ctrl-C, a soft
    time limit) makes a thread drop its connection, the connection closes and its place is free again.
    """

    def __init__(self, kind: type[Any], options: dict[str, Any], *, size: int, wait_s: float) -> None:
        self.connection_class = kind
        self.connection_kwargs = options
        self.max_connections = size
        self.closed = False
        self.timeout = wait_s
        self._idle: list[Any] = []  # the last one returned is lent first
        self._handed: queue.SimpleQueue[Any] = queue.SimpleQueue()  # to threads that wait
        self._waiting: set[int] = set()  # their numbers
        self._made: weakref.WeakKeyDictionary[Any, None] = weakref.WeakKeyDictionary()
        self._retired: set[Any] = set()  # weak references to connections that are closed when they come back

    def get_connection(self) -> Any:
        """Lend a connection that is ready. Raises what redis-py raises, `Exhausted`, or `StoreClosed`."""
        while not self.closed:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if self._is_ready(connection):
                return connection
        return self._get_slowly()

    def _get_slowly(self) -> Any:
        """Connect if there is room for one more, or else wait for a connection."""
        deadline = time.monotonic() + self.timeout
        self._waiting.add(threading.get_ident())
        try:
            while not self.closed:
                connection = self._returned(0.0)  # perhaps just before this thread began to wait
                if connection is None:
                    made = self._grown()
                    if made is not None:
                        return self._connected(made)
                    left = deadline - time.monotonic()
                    connection = self._returned(min(SLICE_S, max(left, 0.0)))
                    if connection is None and left <= 0:
                        raise Exhausted
                if connection is not None and self._is_ready(connection):
                    return connection
        finally:
            self._waiting.discard(threading.get_ident())
        raise closed()

    def _returned(self, wait_s: float) -> Any:
        """Wait for a connection that another thread returns. None: there was none in time."""
        try:
            if self._idle:
                return self._idle.pop()
            return self._handed.get(timeout=wait_s) if wait_s else self._handed.get_nowait()
        except (IndexError, queue.Empty):
            return None

    def _grown(self) -> Any:
        """Make a connection, which is not connected yet. None: there are as many as there may be.

        No lock is held: one that an interrupt leaves locked would stop every thread.
        """
        if len(self._made) >= self.max_connections:
            return None
        made = self.connection_class(**self.connection_kwargs)
        self._made[made] = None
        if len(self._made) > self.max_connections:  # another thread was quicker
            del self._made[made]
            return None
        return made

    def _connected(self, connection: Any) -> Any:
        try:
            connection.connect()
        except BaseException:
            self.discard(connection)
            raise
        if self.closed:
            self.discard(connection)
            raise closed()
        return connection

    def _is_ready(self, connection: Any) -> bool:
        """Say whether a batch can be sent on an idle connection; discard it if not.

        Unread data is a reply to no command: each later reply would be taken for another command's.
        """
        if _must_reconnect(connection) or not is_quiet(connection):
            self.discard(connection)
            return False
        try:
            connection.check_health()  # a PING after `health_check_interval`, if the URL has that option
        except (redis.RedisError, OSError):
            self.discard(connection)
            self.retire()
            return False
        return True

    def release(self, connection: Any) -> None:
        """Take a connection back. Nothing may be left to be read on it."""
        if (
            _must_reconnect(connection)
            or self.closed
            or (self._retired and weakref.ref(connection) in self._retired)
        ):
            self.discard(connection)
        elif self._waiting:
            self._handed.put(connection)
        else:
            self._idle.append(connection)

    def discard(self, connection: Any) -> None:
        """Close a connection, and free its place."""
        self._made.pop(connection, None)
        connection.disconnect()

    def retire(self) -> None:
        """Close all idle connections now, and the lent ones when they come back."""
        self._retired = set(self._made.keyrefs())
        while (connection := self._returned(0.0)) is not None:
            self.discard(connection)

    def close(self) -> None:
        """Close all connections, those that are lent included. None is lent any more."""
        self.closed = True
        self.retire()
        for connection in [ref() for ref in self._made.keyrefs()]:
            if connection is not None:
                _hang_up(connection)


def _hang_up(connection: Any) -> None:
    """End a connection that another thread uses, which then finds its end and closes it.

    A socket that is closed while a thread begins to wait for it can get the thread to wait for another one:
    that which is opened next has its number.
    """
    sock = connection._sock  # noqa: SLF001 - there is no public way that leaves it open
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


class BorrowedPool:
    """A caller's connection pool, of whatever class. It is never closed."""

    closed = False

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._pool: Any = pool
        self._lent: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._generation = 0

    @property
    def connection_class(self) -> Callable[..., Any]:
        """The class of the connections."""
        kind: Callable[..., Any] = self._pool.connection_class
        return kind

    @property
    def connection_kwargs(self) -> dict[str, Any]:
        """What they are made with."""
        options: dict[str, Any] = self._pool.connection_kwargs
        return options

    @property
    def max_connections(self) -> int:
        """How many there may be."""
        size: int = self._pool.max_connections
        return size

    def get_connection(self) -> Any:
        """Lend a connection that is ready. Raises what redis-py raises."""
        generation = self._generation  # before: another thread may retire this connection as it is lent
        connection = self._pool.get_connection(*FOR_ANY_COMMAND)
        self._lent[connection] = generation
        try:
            connection.check_health()
        except (redis.RedisError, OSError):
            self.retire()
            self._reconnect(connection)
        except BaseException:
            self.discard(connection)
            raise
        return connection

    def _reconnect(self, connection: Any) -> None:
        generation = self._generation
        try:
            connection.disconnect()
            connection.connect()
        except BaseException:
            self.discard(connection)
            raise
        self._lent[connection] = generation

    def release(self, connection: Any) -> None:
        """Give a connection back. Nothing may be left to be read on it."""
        if self._lent.pop(connection, None) != self._generation:
            connection.disconnect()
        self._pool.release(connection)

    def discard(self, connection: Any) -> None:
        """Give a connection back, closed."""
        try:
            connection.disconnect()
        finally:
            self._pool.release(connection)

    def retire(self) -> None:
        """Close all idle connections now, and those that are lent to this driver when they come back."""
        self._generation += 1
        if isinstance(self._pool, redis.BlockingConnectionPool):
            _close_queued(self._pool.pool)  # its `disconnect` knows no idle connections before redis-py 7
        else:
            self._pool.disconnect(inuse_connections=False)

    def close(self) -> None:
        """Leave it as it is: it is the caller's."""


def _close_queued(idle: queue.Queue[Any]) -> None:
    """Close the idle connections of a `BlockingConnectionPool`. No other thread gets one while it closes."""
    taken = []
    try:
        while True:
            taken.append(idle.get_nowait())
    except queue.Empty:
        pass
    for connection in reversed(taken):
        if connection is not None:
            connection.disconnect()
        idle.put_nowait(connection)


def _must_reconnect(connection: Any) -> bool:
    """Say whether the server is about to move, as redis-py heard, or the primary is another one."""
    return bool(getattr(connection, "should_reconnect", bool)())


def is_quiet(connection: Any) -> bool:
    """Say whether nothing can be read on an idle connection: no data, and not its end."""
    try:
        return not connection.can_read()
    except (redis.RedisError, OSError, ValueError):  # ValueError: its descriptor is too high for select
        return False
