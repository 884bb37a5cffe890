"""A subscription to hints on Redis and Valkey for asyncio, on a connection of its own.

As in `redis_listener.py`, a failure costs hints only and is not raised. A connection that fails is replaced
at the next wait, or at once if it had lasted for some time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import redis

from swapstore.drivers.redis_listener import CONFIRM_S, LASTED_S, SILENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable


class AsyncRedisListener:
    """Listens to one channel, in one event loop; see `AsyncListener`."""

    def __init__(self, connect: Callable[[], Any], channel: str) -> None:
        self._make = connect
        self._channel = channel
        self._connection: Any = None
        self._began = 0.0

    async def wait(self, seconds: float) -> None:
        """Wait for a hint; see `AsyncListener.wait`."""
        until = _now() + seconds
        lasted = True
        if self._connection is not None:
            try:
                await self._hear(until)
            except (redis.RedisError, OSError):
                lasted = _now() - self._began >= LASTED_S
                self.drop()
            except BaseException:
                self.drop()
                raise
            else:
                return
        if not (lasted and await self._subscribe()):
            await asyncio.sleep(max(0.0, until - _now()))

    async def _subscribe(self) -> bool:
        """Subscribe. No hint is missed once the server has confirmed."""
        connection = self._make()
        self._connection = connection
        try:
            await connection.connect()
            await connection.send_command("SUBSCRIBE", self._channel, check_health=False)
            confirmed = await self._read(CONFIRM_S)
        except (redis.RedisError, OSError):
            confirmed = None
        except BaseException:
            self.drop()
            raise
        if confirmed is None:
            self.drop()
            return False
        self._began = _now()
        return True

    async def _hear(self, until: float) -> None:
        """Read until a hint has come, and all that came with it: the follower reads once for all of them."""
        asked = hinted = False
        while True:
            left = until - _now()
            said = await self._read(0.001 if hinted else min(SILENCE_S, max(0.001, left)))
            if said is not None:
                asked = False
                hinted = hinted or (isinstance(said, list) and said[0] in {b"message", "message"})
            elif hinted or _now() >= until:
                return
            elif asked:
                raise redis.ConnectionError("the server has fallen silent")
            else:
                await self._connection.send_command("PING", check_health=False)
                asked = True

    async def _read(self, seconds: float) -> Any:
        return await self._connection.read_response(disable_decoding=True, timeout=seconds, push_request=True)

    def drop(self) -> None:
        """Close the connection without waiting."""
        connection, self._connection = self._connection, None
        writer = getattr(connection, "_writer", None)
        if writer is not None:
            connection._writer = connection._reader = None  # noqa: SLF001 - there is no public way but to await
            writer.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
