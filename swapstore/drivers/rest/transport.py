"""What both REST drivers share: limits, the options of the HTTP client, and the meaning of its failures.

The client's time-outs bound the wait for the next bytes, and bytes may trickle without an end. So a whole
request has a bound of its own: `asyncio.timeout` in the asyncio driver, `DeadlineBackend` in the blocking
one.
"""

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
from swapstore.drivers.rest.conversation import Conversation, Response
from swapstore.errors import InvalidInput, ReplyLost, SwapstoreError, Unavailable
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator

    from swapstore.drivers.rest.address import Address
    from swapstore.drivers.rest.conversation import Request
    from swapstore.models import Timeout

MAX_CONNECTIONS = 50
IDLE_S = 30.0  # shorter than gateways usually allow: a request on a connection that they close is lost
PIECE = 64 * 1024  # bytes per write; the deadline is checked before each

FAILURES = (
    httpcore2.TimeoutException,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    OSError,
)


@attrs.frozen(kw_only=True)
class Times:
    """Time-outs, in seconds: `read_s` and `write_s` for the next bytes, `total_s` for a whole request."""

    connect_s: float = 5.0
    read_s: float = 10.0
    write_s: float = 10.0
    pool_s: float = 10.0
    total_s: float = 30.0

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
        "ssl_context": httpcore2.default_ssl_context() if address.scheme == "https" else None,
        "proxy": _proxy(address),
        "max_connections": MAX_CONNECTIONS,
        "keepalive_expiry": IDLE_S,
        "retries": 0,
    }


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
    return ReplyLost(
        f"the connection to {where} failed before the answer came: {text}. Is the endpoint healthy and the "
        "network stable?"
    )


def exhausted(where: str) -> Unavailable:
    """Build the error for a pool in which no connection became free in time."""
    return Unavailable(
        f"all {MAX_CONNECTIONS} connections to {where} are in use, and none became free in time; "
        "do less at once"
    )


# --- the bound for a whole request -----------------------------------------------------------------


class Deadline(threading.local):
    """The time by which this thread's request must end."""

    def __init__(self) -> None:
        self._at = float("inf")

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Bound what this thread does inside the block."""
        self._at = time.monotonic() + seconds
        try:
            yield
        finally:
            self._at = float("inf")

    def left(self, wanted_s: float | None, late: type[Exception]) -> float | None:
        """Return how long a step may wait: `wanted_s`, or the time that is left. Raises `late` if none is."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise late("the time for the whole request has passed")
        return min(left, float("inf") if wanted_s is None else wanted_s) if left < float("inf") else wanted_s


class DeadlineBackend(httpcore2.NetworkBackend):
    """Opens connections on which no wait exceeds the deadline of the waiting thread."""

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
        """Connect to a host."""
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
            self._inner.close()  # nothing else refers to this connection yet
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
