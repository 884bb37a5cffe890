"""A pool of blocking connections that lends one in less time than redis-py's own.

What is lent has been looked at all the same: a connection that the server has closed meanwhile is found
before anything is sent on it, so the batch is not lost. To connect, and to wait, is left to redis-py.
"""

from __future__ import annotations

from queue import Empty
from typing import Any

import redis


class Pool(redis.BlockingConnectionPool):
    """A `redis.BlockingConnectionPool` whose idle connections come and go by the shortest way.

    redis-py's also counts them, by state, for its own metrics, and dispatches an event each time that one is
    released, for credentials that are renewed while it runs. No URL asks for either, and together they take
    as long as the wire does for a small value.
    """

    def get_connection(self, *_: Any, **__: Any) -> Any:
        """Lend an idle connection that is ready, or else what redis-py lends: a new one, or an error."""
        usual: Any = super().get_connection
        try:
            connection = self.pool.get(block=False)
        except Empty:
            return usual()  # it waits for one
        try:
            if _is_ready(connection):
                return connection
        except BaseException:
            self.pool.put_nowait(connection)
            raise
        self.pool.put_nowait(connection)
        return usual()

    def release(self, connection: Any) -> None:
        """Take a connection back; the last to come is the first to go."""
        if getattr(connection, "should_reconnect", bool)():  # redis-py has it since version 7
            connection.disconnect()
        self.pool.put_nowait(connection)


def _is_ready(connection: Any) -> bool:
    """Say whether a batch can be sent on a connection; disconnect one that is open and not fit for it.

    What it holds nobody asked for. redis-py lends it all the same, for it may be the notice of a maintenance.
    If it is a stray reply, each later one would be taken for that of another command.
    """
    # One that is not connected would connect now, and once more in redis-py's way if that fails.
    if connection is None or not getattr(connection, "is_connected", True):
        return False
    try:
        if not connection.can_read():
            return True
    except (redis.RedisError, OSError):
        pass  # the server closed it
    connection.disconnect()
    return False
