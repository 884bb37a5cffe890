"""A bound for a whole request: the client's own time-outs are between bytes, which may trickle for ever."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import attrs
import httpcore2

from swapstore.drivers.rest import errors
from swapstore.drivers.rest.conversation import Response, Session
from swapstore.errors import InvalidInput, ReplyLost, SwapstoreError, Unavailable
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator

    from swapstore.drivers.rest.address import Address
    from swapstore.drivers.rest.conversation import Request


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


# --- rest_transport ----------------------------------------------------------------------------
#
# What both REST drivers need of the HTTP client: bounds, a pool's options, the meaning of its failures.


MAX_CONNECTIONS = 50
IDLE_S = 30.0  # shorter than what gateways usually allow: who closes first loses no request


@attrs.frozen(kw_only=True)
class Times:
    """How long to wait, in seconds. `read_s` and `write_s` are between bytes, `total_s` is for a request."""

    connect_s: float = 5.0
    read_s: float = 10.0
    write_s: float = 10.0
    pool_s: float = 10.0
    total_s: float = 30.0


class RestDriver:
    """What both drivers know of an endpoint; each begins connections of its own kind, in a child anew."""

    kind = "upstash"
    binary_safe = False

    def __init__(self, address: Address, *, max_request: int, times: Times | None = None) -> None:
        self.where = address.where
        self._address = address
        self._times = times or Times()
        self._session = Session(address, max_request=max_request)
        self._url = httpcore2.URL(
            scheme=address.scheme, host=address.host, port=address.port, target=self._session.target
        )
        self._inherited: list[Any] = []  # what a parent opened: not to be closed here, nor collected
        self._begin()
        survive_forks(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.where}>"

    def _begin(self) -> None:
        raise NotImplementedError

    def after_fork(self) -> None:
        """Leave the parent's connections, and its event loop, alone."""
        self._inherited.append(vars(self).copy())
        self._begin()


def pool_options(address: Address) -> dict[str, Any]:
    """Return how a pool of connections is made. It never sends anything twice, and follows no redirection."""
    return {
        "ssl_context": httpcore2.default_ssl_context() if address.scheme == "https" else None,
        "proxy": _proxy(address),
        "max_connections": MAX_CONNECTIONS,
        "keepalive_expiry": IDLE_S,
        "retries": 0,
    }


def _proxy(address: Address) -> httpcore2.Proxy | None:
    """The proxy that the environment names for this endpoint. Nothing local is asked of one."""
    proxy = getproxies().get(address.scheme)
    if not proxy or address.is_local or proxy_bypass(address.host):
        return None
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidInput(
            f"the proxy that ${address.scheme.upper()}_PROXY names is of a kind that is not supported"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = f"{parts.scheme}://{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return httpcore2.Proxy(place, auth=login)


def arguments(request: Request, times: Times) -> dict[str, Any]:
    """Return what a pool is given to send a request."""
    timeout = {
        "connect": times.connect_s,
        "read": times.read_s,
        "write": times.write_s,
        "pool": times.pool_s,
    }
    return {
        "headers": list(request.headers),
        "content": request.body,
        "extensions": {"timeout": timeout},
    }


def response(answer: httpcore2.Response, body: bytes) -> Response:
    """Return what came, in our terms."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
    return Response(answer.status, headers, body)


def failure(error: Exception, where: str) -> SwapstoreError:
    """Turn what kept an answer away into this library's error: nothing was sent, or nobody knows."""
    said = str(error).rstrip(".") or type(error).__name__
    if isinstance(error, httpcore2.PoolTimeout):
        return exhausted(where)
    if isinstance(error, httpcore2.ProxyError):
        return errors.unsent(f"the proxy does not let us through to {where} ({said})")
    if isinstance(error, httpcore2.ConnectTimeout):
        return errors.unsent(f"{where} cannot be reached in time")
    if isinstance(error, httpcore2.ConnectError):
        return errors.unsent(f"cannot connect to {where}: {said}")
    if isinstance(error, httpcore2.TimeoutException | TimeoutError):
        doing = "take the request" if isinstance(error, httpcore2.WriteTimeout) else "answer"
        return ReplyLost(f"{where} did not {doing} in time. Is it overloaded, or the network slow?")
    return ReplyLost(
        f"the connection to {where} failed before the answer came: {said}. Is the endpoint healthy and the "
        "network stable?"
    )


def exhausted(where: str) -> Unavailable:
    """Build the error for having no connection left, for as long as one may be waited for."""
    return Unavailable(
        f"all {MAX_CONNECTIONS} connections to {where} are in use, and stayed so; do less at once"
    )


FAILURES = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    OSError,
)
