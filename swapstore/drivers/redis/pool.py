"""A pool of blocking connections, faster than redis-py's own for idle connections.

It checks each connection before it lends it: a connection that the server has closed is found before anything
is sent, so no batch is lost. redis-py still connects, and waits for a free connection.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis

# What to pass to `get_connection`: before redis-py 5.3 it requires the name of a command, and ignores it.
FOR_ANY_COMMAND = ("any",) if redis.VERSION < (5, 3) else ()


class Pool(redis.BlockingConnectionPool):
    """A `redis.BlockingConnectionPool` with a short path for idle connections.

    redis-py's pool also counts connections by state, for its metrics, and dispatches an event at each
    release, for credentials that are renewed at run time. No URL can ask for either.
    """

    def __init__(self, **options: Any) -> None:
        self._idle: list[Any] = []  # beside redis-py's queue, whose locks and conditions cost more
        self._waiting: list[None] = []  # one item for each thread that waits on that queue
        make: Any = super().__init__
        make(**options)

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Lend an idle connection that is ready. Without one, redis-py connects, waits or raises."""
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
        """Let redis-py connect, or wait for a connection."""
        self._waiting.append(None)
        try:
            self._hand_over()  # a connection may have been released just before
            usual: Any = super().get_connection
            return usual(*FOR_ANY_COMMAND)
        finally:
            self._waiting.pop()

    def release(self, connection: Any) -> None:
        """Take a connection back. The last one released is lent first."""
        if getattr(connection, "should_reconnect", bool)():  # since redis-py 7
            connection.disconnect()
        self._idle.append(connection)
        if self._waiting:
            self._hand_over()

    def _hand_over(self) -> None:
        """Move an idle connection to redis-py's queue, on which the threads wait."""
        with suppress(IndexError):
            self.pool.put_nowait(self._idle.pop())


def _is_ready(connection: Any) -> bool:
    """Return whether a batch can be sent on this connection. Disconnects one that is open but unusable.

    Unread data is a reply to no command: each later reply would be taken for another command's.
    """
    # `can_read` would connect it, and if that failed, redis-py would connect a second time.
    if connection is None or not getattr(connection, "is_connected", True):
        return False
    try:
        if not connection.can_read():
            return True
    except (redis.RedisError, OSError):
        pass  # the server closed it
    connection.disconnect()
    return False
