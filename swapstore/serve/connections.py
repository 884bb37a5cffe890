"""Connections: what one client may hold, so that no number of slow or idle ones locks others out.

uvicorn bounds the time between two requests, and the size of a request's head. It does not bound how long a
head takes, nor how long a client may leave a response unread, nor how many connections there are.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import attrs
from uvicorn.protocols.http.h11_impl import H11Protocol


@attrs.frozen(kw_only=True)
class Limits:
    """What clients may hold. `head_s` is from the connect, or the last response, to the end of a head."""

    connections: int = 10_000
    head_s: float = 10.0
    head_bytes: int = 32 * 1024
    keep_alive_s: int = 5
    unread_s: float = 20.0  # how long a client may read nothing of a response
    shutdown_s: float = 5.0  # how long requests that are under way may take when the server stops


class Connections:
    """The connections of a server, the oldest first: those that are idle, and those with a request."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.idle: dict[Connection, None] = {}
        self.busy: dict[Connection, None] = {}

    def enter(self, connection: Connection) -> None:
        """Take a new connection. If there are too many, close the oldest idle one, or else the oldest.

        So a new client is always taken: one that holds as many as it can loses its own.
        """
        if len(self.idle) + len(self.busy) >= self.most:
            oldest = next(iter(self.idle or self.busy))
            self.leave(oldest)
            oldest.transport.abort()
        self.idle[connection] = None

    def leave(self, connection: Connection) -> None:
        """Forget a connection."""
        self.idle.pop(connection, None)
        self.busy.pop(connection, None)

    def move(self, connection: Connection, *, to_idle: bool) -> None:
        """Note that a request begins or ends. One that was closed to make room does not come back."""
        source, target = (self.busy, self.idle) if to_idle else (self.idle, self.busy)
        if connection in source:
            del source[connection]
            target[connection] = None


class Connection(H11Protocol):
    """One connection."""

    def __init__(self, connections: Connections, limits: Limits, **options: Any) -> None:
        super().__init__(**options)
        self._connections = connections
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self._connections.enter(self)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._connections.leave(self)
        for timer in (self._head_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    # --- what is received ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._watching(lambda: super(Connection, self).data_received(data))

    def on_response_complete(self) -> None:
        """Wait for the next request, which may have come already."""
        self._connections.move(self, to_idle=True)
        self._expect_head()
        self._watching(super().on_response_complete)
        self._watch_unread()

    def _watching(self, act: Callable[[], None]) -> None:
        """Do something that may begin a request, and note if it does."""
        before = self.cycle
        act()
        if self.cycle is not before and not self.cycle.response_complete:
            self._connections.move(self, to_idle=False)
            if self._head_timer is not None:
                self._head_timer.cancel()

    def _expect_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self.loop.call_later(self._limits.head_s, self._close)

    def _close(self) -> None:
        self.transport.close()  # what it has not read yet is sent first
        self._watch_unread()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection without requests."""
        super().timeout_keep_alive_handler()
        self._watch_unread()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what is not HTTP, or a head that is too large, and close."""
        if self.cycle is not None and not self.cycle.response_complete:  # the body of a request is broken
            self.transport.abort()
            return
        status = HTTPStatus(getattr(sys.exception(), "error_status_hint", HTTPStatus.BAD_REQUEST))
        text = f"{status.phrase}\n".encode()
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: text/plain\r\n"
        self.transport.write(
            head.encode() + f"content-length: {len(text)}\r\nconnection: close\r\n\r\n".encode() + text
        )
        self._close()

    # --- what is sent --------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Let the response wait until the client has read some of it."""
        super().pause_writing()
        self._watch_unread()

    def _watch_unread(self) -> None:
        if self._unread_timer is None and self.transport.get_write_buffer_size():
            self._look_again()

    def _look_again(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._unread_timer = self.loop.call_later(self._limits.unread_s, self._look_at_unread, left)

    def _look_at_unread(self, before: int) -> None:
        """Close the connection of a client that has read nothing of what it is sent."""
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self.transport.abort()
        elif left:
            self._look_again()
        else:
            self._unread_timer = None
