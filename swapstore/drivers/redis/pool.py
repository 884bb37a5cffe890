"""A pool of blocking connections that lends one faster than redis-py's own.

It still checks each connection before it lends it: a connection that the server has closed is found before
anything is sent, so no batch is lost. Connecting and waiting for a free connection are left to redis-py.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis


class Pool(redis.BlockingConnectionPool):
    """A `redis.BlockingConnectionPool` with a short path for idle connections.

    redis-py's pool also counts connections by state, for its metrics, and dispatches an event for each
    release, for credentials that are renewed at run time. No URL asks for either.
    """

    def __init__(self, **options: Any) -> None:
        self._idle: list[Any] = []  # beside redis-py's queue, whose locks and conditions cost more
        self._waiting: list[None] = []  # one for each thread that waits on that queue
        make: Any = super().__init__
        make(**options)

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Lend an idle connection that is ready. Without one: redis-py connects, waits or raises."""
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
        self._waiting.append(None)
        try:
            self._hand_over()  # a connection may have come back just before that
            usual: Any = super().get_connection
            return usual()
        finally:
            self._waiting.pop()

    def release(self, connection: Any) -> None:
        """Take a connection back. The last one released is lent first."""
        if getattr(connection, "should_reconnect", bool)():  # redis-py has it since version 7
            connection.disconnect()
        self._idle.append(connection)
        if self._waiting:
            self._hand_over()

    def _hand_over(self) -> None:
        """Move an idle connection to the queue that redis-py's threads wait on."""
        with suppress(IndexError):
            self.pool.put_nowait(self._idle.pop())


def _is_ready(connection: Any) -> bool:
    """Whether a batch can be sent on this connection. Disconnects one that is open but not fit for it.

    Unread data is a reply that nobody asked for: each later reply would be taken for another command's.
    """
    # `can_read` connects what is not connected; then redis-py would connect a second time if that fails.
    if connection is None or not getattr(connection, "is_connected", True):
        return False
    try:
        if not connection.can_read():
            return True
    except (redis.RedisError, OSError):
        pass  # the server closed it
    connection.disconnect()
    return False
