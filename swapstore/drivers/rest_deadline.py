"""A bound for a whole request: the client's own time-outs are between bytes, which may trickle for ever."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpcore2

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator

PIECE = 64 * 1024  # bytes that are written at once; the clock is looked at between them


class Deadline(threading.local):
    """When the request of this thread must be over."""

    def __init__(self) -> None:
        self._at = float("inf")

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """What this thread does inside takes so long at most."""
        self._at = time.monotonic() + seconds
        try:
            yield
        finally:
            self._at = float("inf")

    def left(self, wanted_s: float | None, late: type[Exception]) -> float | None:
        """Return how long to wait at most. Raises `late` if no time is left."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise late("the time for the whole request is over")
        return min(left, float("inf") if wanted_s is None else wanted_s) if left < float("inf") else wanted_s


class DeadlineBackend(httpcore2.NetworkBackend):
    """Connections on which no wait goes past the deadline of the thread that waits."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect."""
        left = self._deadline.left(timeout, httpcore2.ConnectTimeout)
        return _Stream(
            self._inner.connect_tcp(host, port, left, local_address, socket_options), self._deadline
        )


class _Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), PIECE):
            left = self._deadline.left(timeout, httpcore2.WriteTimeout)
            self._inner.write(buffer[start : start + PIECE], left)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        try:
            left = self._deadline.left(timeout, httpcore2.ConnectTimeout)
            return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._deadline)
        except BaseException:
            self._inner.close()  # nobody else knows this connection yet
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
