"""What both REST drivers do over HTTP: connections, time-outs, bounds, proxies, and what a failure means.

The client's time-outs bound the wait for the next bytes, and bytes may trickle without an end. So a request
has a bound of its own, `Deadline`: the time that it waits in all. Time in which bytes flow does not count,
however large the request or the answer is.
"""

from __future__ import annotations

import ssl
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import attrs
import httpcore2

from swapstore.drivers.base import LEFT_S
from swapstore.drivers.rest import errors
from swapstore.drivers.rest.conversation import Conversation, Response
from swapstore.errors import InvalidInput, ReplyLost, SwapstoreError, Unavailable
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from swapstore.drivers.rest.address import Address
    from swapstore.drivers.rest.conversation import Request
    from swapstore.models import Timeout

MAX_CONNECTIONS = 50
IDLE_S = 30.0  # shorter than gateways usually allow: a request on a connection that they close is lost
PIECE = 64 * 1024  # bytes per write; the deadline is checked before each
SLOWEST = 16 * 1024  # bytes per second: what flows more slowly than this counts as a wait
BODY_BYTES = 256 * 1024 * 1024  # the largest answer that is read

FAILURES = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    OSError,
)


@attrs.frozen(kw_only=True)
class Times:
    """Time-outs, in seconds: `read_s` and `write_s` for the next bytes, `total_s` for all waits together."""

    connect_s: float = 5.0
    read_s: float = 10.0
    write_s: float = 10.0
    pool_s: float = 10.0
    total_s: float = 10.0

    @classmethod
    def of(cls, timeout: Timeout | None) -> Times:
        """Return the times of a `Timeout`; the defaults for what it does not set."""
        given = timeout and {
            "connect_s": timeout.connect,
            "read_s": timeout.reply,
            "write_s": timeout.reply,
            "pool_s": timeout.connect,
            "total_s": timeout.total,
        }
        return cls(**{name: value for name, value in (given or {}).items() if value is not None})


class RestDriver:
    """The base of both drivers. Each opens its own kind of connections, and new ones in a child process."""

    kind = "upstash"
    binary_safe = False

    def __init__(self, address: Address, *, max_request: int, timeout: Timeout | None = None) -> None:
        self.where = address.where
        self._address = address
        self._times = Times.of(timeout)
        self._conversation = Conversation(address, max_request=max_request)
        self._url = httpcore2.URL(
            scheme=address.scheme, host=address.host, port=address.port, target=self._conversation.target
        )
        self._inherited: list[Any] = []  # what a parent opened: never closed here, nor collected
        self._open()
        survive_forks(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.where}>"

    def _open(self) -> None:
        raise NotImplementedError

    def after_fork(self) -> None:
        """Replace the parent's connections, unused: they belong to the parent and its event loop."""
        self._inherited.append(vars(self).copy())
        self._open()


def pool_options(address: Address) -> dict[str, Any]:
    """Return the options of a pool of connections. It never resends a request, and follows no redirects."""
    return {
        "ssl_context": _ssl_context() if address.scheme == "https" else None,
        "proxy": _proxy(address),
        "max_connections": MAX_CONNECTIONS,
        "keepalive_expiry": IDLE_S,
        "retries": 0,
    }


def _ssl_context() -> ssl.SSLContext:
    context = httpcore2.default_ssl_context()
    context.sslsocket_class = _ClosingSocket
    return context


class _ClosingSocket(ssl.SSLSocket):
    """A socket that closes when its handshake is interrupted. It alone has the connection then."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the interface
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _proxy(address: Address) -> httpcore2.Proxy | None:
    """Return the proxy that the environment names for this endpoint. A local endpoint needs none."""
    proxy = getproxies().get(address.scheme)
    if not proxy or address.is_local or proxy_bypass(address.host):
        return None
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidInput(
            f"the proxy in ${address.scheme.upper()}_PROXY is of an unsupported kind: use http:// or https://"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    place = f"{parts.scheme}://{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return httpcore2.Proxy(place, auth=login)


def arguments(request: Request, times: Times) -> dict[str, Any]:
    """Return the arguments with which a pool sends a request."""
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
    """Turn the client's response into ours."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
    return Response(answer.status, headers, body)


def failure(error: Exception, where: str) -> SwapstoreError:
    """Turn a failure of the client into this library's error: nothing was sent, or the outcome is unknown."""
    text = str(error).rstrip(".") or type(error).__name__
    if isinstance(error, httpcore2.PoolTimeout):
        return exhausted(where)
    if isinstance(error, httpcore2.ProxyError):
        return errors.unsent(f"the proxy does not let us through to {where} ({text})")
    if isinstance(error, httpcore2.ConnectTimeout):
        return errors.unsent(f"{where} could not be reached in time")
    if isinstance(error, httpcore2.ConnectError):
        return errors.unsent(f"cannot connect to {where}: {text}")
    if isinstance(error, httpcore2.TimeoutException | TimeoutError):
        doing = "take the request" if isinstance(error, httpcore2.WriteTimeout) else "answer"
        return ReplyLost(f"{where} did not {doing} in time. Is it overloaded, or the network slow?")
    plain = " Is it a Redis server? Then the URL is redis://…" if where.startswith("http:") else ""
    return ReplyLost(
        f"the connection to {where} failed before the answer came: {text}. Is the endpoint healthy and the "
        f"network stable?{plain}"
    )


def exhausted(where: str) -> Unavailable:
    """Build the error for a pool in which no connection became free in time."""
    return Unavailable(
        f"all {MAX_CONNECTIONS} connections to {where} are in use, and none became free in time; "
        "do less at once"
    )


# --- the bound for a whole request -----------------------------------------------------------------


class Deadline:
    """The time by which the request of this thread or task must end, if it only waits from now on."""

    _current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)

    def __init__(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds

    @classmethod
    @contextmanager
    def within(cls, seconds: float) -> Iterator[None]:
        """Bound what is done inside the block: by so many seconds, or by what the whole call has left."""
        token = cls._current.set(cls(min(seconds, LEFT_S.get())))
        try:
            yield
        finally:
            cls._current.reset(token)

    @classmethod
    def left(cls, wanted_s: float | None, late: type[Exception]) -> float | None:
        """Return how long a step may wait: `wanted_s`, or the time that is left. Raises `late` if none is."""
        current = cls._current.get()
        if current is None:
            return wanted_s
        left = current.at - time.monotonic()
        if left <= 0:
            raise late("the time for the whole request has passed")
        return left if wanted_s is None else min(left, wanted_s)

    @classmethod
    def moved(cls, size: int, began: float) -> None:
        """Do not count the time since `began`, in which so many bytes were moved."""
        current = cls._current.get()
        if current is not None:
            current.at += min(time.monotonic() - began, size / SLOWEST)


class Body:
    """The body of an answer, in parts. Raises `TooLong` when it exceeds the bound."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        """Add a part."""
        self._size += len(part)
        if self._size > BODY_BYTES:
            raise TooLong(f"an answer of more than {BODY_BYTES:,} bytes")
        self._parts.append(part)

    def whole(self) -> bytes:
        """Return all of it."""
        return b"".join(self._parts)


class TooLong(Exception):  # noqa: N818
    """An answer is larger than any that swapstore asks for."""


class DeadlineBackend(httpcore2.NetworkBackend):
    """Opens connections on which no wait exceeds the deadline of the waiting thread."""

    def __init__(self) -> None:
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect to a host."""
        left = Deadline.left(timeout, httpcore2.ConnectTimeout)
        return _Stream(self._inner.connect_tcp(host, port, left, local_address, socket_options))


class _Stream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        began = time.monotonic()
        data = self._inner.read(max_bytes, Deadline.left(timeout, httpcore2.ReadTimeout))
        Deadline.moved(len(data), began)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), PIECE):
            piece, began = buffer[start : start + PIECE], time.monotonic()
            self._inner.write(piece, Deadline.left(timeout, httpcore2.WriteTimeout))
            Deadline.moved(len(piece), began)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        try:
            left = Deadline.left(timeout, httpcore2.ConnectTimeout)
            return _Stream(self._inner.start_tls(ssl_context, server_hostname, left))
        except BaseException:
            self._inner.close()  # nothing else refers to this connection yet
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
