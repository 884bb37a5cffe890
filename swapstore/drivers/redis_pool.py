"""A pool of blocking connections that lends one in less time than redis-py's own.

What is lent has been looked at all the same: a connection that the server has closed meanwhile is found
before anything is sent on it, so the batch is not lost. To connect, and to wait, is left to redis-py.
"""

from __future__ import annotations

import select
import threading
from contextlib import suppress
from typing import Any

import redis

from swapstore.drivers.redis_common import PROTOCOL
from swapstore.drivers.redis_link import Link


class Pool(redis.BlockingConnectionPool):
    """A `redis.BlockingConnectionPool` whose idle connections come and go by the shortest way.

    redis-py's also counts them, by state, for its own metrics, and dispatches an event each time that one is
    released, for credentials that are renewed while it runs. No URL asks for either, and together they take
    as long as the wire does for a small value.
    """

    def __init__(self, *, connection_class: Any = redis.Connection, **options: Any) -> None:
        if str(options.get("protocol")) == str(PROTOCOL) and hasattr(select, "poll"):  # not on Windows
            connection_class = _LINKED.get(connection_class, connection_class)
        self._idle: list[Any] = []  # beside redis-py's queue: to take from it, and to put, wakes nobody up
        self._waiting = 0
        self._changing = threading.Lock()
        make: Any = super().__init__
        make(connection_class=connection_class, **options)

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Lend an idle connection that is ready, or else what redis-py lends: a new one, or an error."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._get_slowly()
        try:
            if _is_ready(connection):
                return connection
        except BaseException:
            self.release(connection)
            raise
        self.pool.put_nowait(connection)
        return self._get_slowly()

    def _get_slowly(self) -> Any:
        """Connect, or wait for a connection."""
        with self._changing:
            self._waiting += 1
        try:
            self._hand_over()  # what came back before it was known that somebody waits
            usual: Any = super().get_connection
            return usual()
        finally:
            with self._changing:
                self._waiting -= 1

    def release(self, connection: Any) -> None:
        """Take a connection back; the last to come is the first to go."""
        link = getattr(connection, "link", None)
        is_behind = link is not None and link.holds_more
        if is_behind or getattr(connection, "should_reconnect", bool)():  # redis-py has it since version 7
            connection.disconnect()
        self._idle.append(connection)
        if self._waiting:
            self._hand_over()

    def _hand_over(self) -> None:
        """Put an idle connection where redis-py's threads wait."""
        with suppress(IndexError):
            self.pool.put_nowait(self._idle.pop())


def _is_ready(connection: Any) -> bool:
    """Say whether a batch can be sent on a connection; disconnect one that is open and not fit for it.

    What it holds nobody asked for. redis-py lends it all the same, for it may be the notice of a maintenance.
    If it is a stray reply, each later one would be taken for that of another command.
    """
    # One that is not connected would connect now, and once more in redis-py's way if that fails.
    if connection is None or not getattr(connection, "is_connected", True):
        return False
    link = getattr(connection, "link", None)
    try:
        if link.is_quiet() if link is not None else not connection.can_read():
            return True
    except (redis.RedisError, OSError):
        pass  # the server closed it
    connection.disconnect()
    return False


class _Linked(redis.connection.AbstractConnection):
    """A connection whose socket is at hand, as a link, for as long as it is open."""

    link: Link | None = None

    def _connect(self) -> Any:
        opened = super()._connect()  # type: ignore[safe-super,no-untyped-call]
        self.link = Link(opened)
        return opened

    def disconnect(self, *args: Any, **options: Any) -> None:
        self.link = None
        super().disconnect(*args, **options)  # type: ignore[no-untyped-call]


class _Tcp(_Linked, redis.Connection):
    pass


class _Unix(_Linked, redis.UnixDomainSocketConnection):
    pass


class _Tls(_Linked, redis.SSLConnection):
    pass


_LINKED = {redis.Connection: _Tcp, redis.UnixDomainSocketConnection: _Unix, redis.SSLConnection: _Tls}
