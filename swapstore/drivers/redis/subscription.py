"""Subscriptions to hints on Redis and Valkey, blocking and for asyncio.

A subscription lasts as long as its follower or view, and has a connection of its own, for any number of
channels: on the pool's connections, followers could exhaust the pool and stop the store. Nobody depends on
hints, so a failure costs hints only and is not raised. A failed connection is replaced at the next wait, or
at once if it had lasted for some time.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


SLICE_S = 0.1  # how long a wait may take to notice `close`
CONFIRM_S = 5.0  # how long the server may take to confirm a subscription
SILENCE_S = 15.0  # after so long without a message, send PING; after as long again, the connection is dead
MOST_HINTS = 1000  # that one wait reads: hints that never end must not keep it from its return
LASTED_S = 1.0  # a subscription that lasted this long is renewed at once when it fails


class RedisListener:
    """Listens to some channels; see `Listener`."""

    def __init__(self, connect: Callable[[], Any], channels: Sequence[str], pattern: str = "") -> None:
        self._connect = connect
        self._wanted = _requests(channels, pattern)
        self._connection: Any = None
        self._inherited: list[Any] = []
        self._pid = 0
        self._began = self._silent_s = 0.0
        self._pinged = False
        self._in_use = threading.Lock()
        self._closed = threading.Event()

    def wait(self, seconds: float) -> list[str]:
        """Wait for a hint; see `Listener.wait`."""
        until = time.monotonic() + seconds
        with self._in_use:
            try:
                hinted = self._wait(until)
            except BaseException:
                self._disconnect()
                raise
        self._disconnect_if_closed()
        return hinted

    def _wait(self, until: float) -> list[str]:
        self._leave_inherited()
        if self._connection is None:
            if not self._subscribe():
                self._pause(until)
            return []
        try:
            return self._hear(max(0.0, until - time.monotonic()))
        except (redis.RedisError, OSError):
            lasted = time.monotonic() - self._began >= LASTED_S
            self._disconnect()
            if not (lasted and self._subscribe()):
                self._pause(until)
        return []

    def _pause(self, until: float) -> None:
        self._closed.wait(max(0.0, until - time.monotonic()))

    def _subscribe(self) -> bool:
        """Subscribe. No hint is missed once the server has confirmed."""
        connection = None
        try:
            connection = self._connect()
            connection.connect()
            awaited = 0
            for request in self._wanted:
                connection.send_command(*request, check_health=False)
                awaited += len(request) - 1
            left = CONFIRM_S
            while awaited:
                if connection.can_read(timeout=SLICE_S):
                    message = connection.read_response(disable_decoding=True, push_request=True)
                    awaited -= _hint(message) is None
                    continue
                left -= SLICE_S
                if self._closed.is_set() or left <= 0:
                    raise redis.TimeoutError("the subscription was not confirmed")  # noqa: TRY301
        except (redis.RedisError, OSError):
            if connection is not None:
                connection.disconnect()
            return False
        except BaseException:
            if connection is not None:
                connection.disconnect()
            raise
        self._connection, self._pid, self._pinged = connection, os.getpid(), False
        self._began, self._silent_s = time.monotonic(), 0.0
        return True

    def _hear(self, seconds: float) -> list[str]:
        """Read until a hint comes, then what else has come: one look answers all of it.

        The waits are added up, because a test may have frozen the clock.
        """
        hinted: dict[str, None] = {}
        left = MOST_HINTS
        while left and not self._closed.is_set():
            slice_s = min(SLICE_S, seconds)
            if self._connection.can_read(timeout=slice_s):
                message = self._connection.read_response(disable_decoding=True, push_request=True)
                self._silent_s, self._pinged = 0.0, False
                channel = _hint(message)
                if channel is not None:
                    hinted[channel], seconds = None, 0.0
                    left -= 1
            elif hinted or seconds <= slice_s:
                break
            else:
                seconds -= slice_s
                self._silent_s += slice_s
                self._ping_after_silence()
        return list(hinted)

    def _ping_after_silence(self) -> None:
        """Send PING after a silence: a network that drops packets reports no error."""
        if self._silent_s < SILENCE_S:
            return
        if self._pinged:
            raise redis.ConnectionError("the server does not reply any more")
        self._connection.send_command("PING", check_health=False)
        self._silent_s, self._pinged = 0.0, True

    def close(self) -> None:
        """Stop listening; see `Listener.close`."""
        self._closed.set()
        self._disconnect_if_closed()

    def _disconnect_if_closed(self) -> None:
        """Disconnect if the listener is closed. A wait in progress does it itself when it ends."""
        if self._closed.is_set() and self._in_use.acquire(blocking=False):
            try:
                self._leave_inherited()
                self._disconnect()
            finally:
                self._in_use.release()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(redis.RedisError, OSError):
                connection.disconnect()

    def _leave_inherited(self) -> None:
        """After a fork, stop using the parent's connection. Closing it here would break it for the parent."""
        if self._connection is not None and self._pid != os.getpid():
            self._inherited.append(self._connection)
            self._connection = None


class AsyncRedisListener:
    """Listens to some channels, in one event loop; see `AsyncListener`."""

    def __init__(self, connect: Callable[[], Any], channels: Sequence[str], pattern: str = "") -> None:
        self._connect = connect
        self._wanted = _requests(channels, pattern)
        self._connection: Any = None
        self._began = 0.0

    async def wait(self, seconds: float) -> list[str]:
        """Wait for a hint; see `AsyncListener.wait`."""
        until = _now() + seconds
        lasted = True
        if self._connection is not None:
            try:
                return await self._hear(until)
            except (redis.RedisError, OSError):
                lasted = _now() - self._began >= LASTED_S
                self.drop()
            except BaseException:
                self.drop()
                raise
        if not (lasted and await self._subscribe()):
            await asyncio.sleep(max(0.0, until - _now()))
        return []

    async def _subscribe(self) -> bool:
        """Subscribe. No hint is missed once the server has confirmed."""
        connection = self._connect()
        self._connection = connection
        confirmed = False
        try:
            await connection.connect()
            confirmed = await self._confirm(connection)
        except (redis.RedisError, OSError):
            pass
        except BaseException:
            self.drop()
            raise
        if not confirmed:
            self.drop()
            return False
        self._began = _now()
        return True

    async def _confirm(self, connection: Any) -> bool:
        """Send the requests, and say whether the server has confirmed each of them."""
        awaited = 0
        for request in self._wanted:
            await connection.send_command(*request, check_health=False)
            awaited += len(request) - 1
        while awaited:
            message = await self._read(CONFIRM_S)
            if message is None:
                return False
            awaited -= _hint(message) is None
        return True

    async def _hear(self, until: float) -> list[str]:
        """Read until a hint comes, then what else has come: one look answers all of it."""
        pinged = False
        hinted: dict[str, None] = {}
        left = MOST_HINTS
        while left:
            seconds = max(0.001, until - _now())
            message = await self._read(0.001 if hinted else min(SILENCE_S, seconds))
            if message is not None:
                pinged = False
                channel = _hint(message)
                if channel is not None:
                    hinted[channel] = None
                    left -= 1
            elif hinted or _now() >= until:
                return list(hinted)
            elif pinged:
                raise redis.ConnectionError("the server does not reply any more")
            else:
                await self._connection.send_command("PING", check_health=False)
                pinged = True
        return list(hinted)

    async def _read(self, seconds: float) -> Any:
        return await self._connection.read_response(disable_decoding=True, timeout=seconds, push_request=True)

    def drop(self) -> None:
        """Close the connection, without waiting for anything."""
        connection, self._connection = self._connection, None
        writer = getattr(connection, "_writer", None)
        if writer is not None:
            connection._writer = connection._reader = None  # noqa: SLF001 - there is no public way but to await
            writer.close()


def _requests(channels: Sequence[str], pattern: str) -> list[tuple[str, ...]]:
    """Return the commands that subscribe to these channels, and to those that the pattern matches."""
    found: list[tuple[str, ...]] = [("SUBSCRIBE", *channels)] if channels else []
    return [*found, ("PSUBSCRIBE", pattern)] if pattern else found


def _hint(message: Any) -> str | None:
    """Return the channel that a hint came on. None: the message is no hint."""
    match message:
        case [b"message" | "message", channel, _] | [b"pmessage" | "pmessage", _, channel, _]:
            return channel.decode("utf-8", "replace") if isinstance(channel, bytes) else str(channel)
    return None


def _now() -> float:
    return asyncio.get_running_loop().time()
