"""The asyncio driver for Redis over a REST API; see `driver.py`.

A cancelled request closes its connection: what was not sent yet is not sent, and no later request can read
its answer. This needs a network backend of our own, because httpcore2's closes a connection that failed, but
not one that was cancelled: a cancelled TLS handshake would leave its socket to the garbage collector.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpcore2

from swapstore.drivers.limiter import Limiter
from swapstore.drivers.rest import errors, transport
from swapstore.drivers.rest.conversation import Request, Response
from swapstore.drivers.rest.transport import Body, Deadline, RestDriver, TooLong
from swapstore.errors import SwapstoreError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Sequence

    from swapstore.commands import Command


class AsyncUpstashDriver(RestDriver):
    """Carries out commands through a REST endpoint, in one event loop."""

    def _open(self) -> None:
        self._http = httpcore2.AsyncConnectionPool(
            **transport.pool_options(self._address), network_backend=ClosingBackend()
        )
        self._limiter = Limiter(
            self.where,
            transport.MAX_CONNECTIONS,
            self._times.pool_s,
            exhausted=lambda: transport.exhausted(self.where),
        )

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Post the commands; see `AsyncDriver.execute`."""
        exchange = self._conversation.exchange(commands)
        async with self._limiter:
            try:
                request = next(exchange)
                while True:
                    try:
                        response = await self._post(request)
                    except SwapstoreError as error:
                        request = exchange.throw(error)
                    else:
                        request = exchange.send(response)
            except StopIteration as stop:
                replies: list[Any] = stop.value
                return replies

    async def _post(self, request: Request) -> Response:
        options = transport.arguments(request, self._times)
        failure: SwapstoreError
        cause: Exception
        try:
            with Deadline.within(self._times.total_s):
                async with self._http.stream("POST", self._url, **options) as answer:
                    body = Body()
                    async for part in answer.aiter_stream():
                        body.add(part)
                    return transport.response(answer, body.whole())
        except TooLong as error:
            failure, cause = errors.lost(f"{self.where} gave {error}", request), error
        except transport.FAILURES as error:
            failure, cause = transport.failure(error, self.where), error
        raise failure from cause

    async def close(self) -> None:
        """Wait for the requests in progress, then close the connections."""
        if not self._limiter.loop_is_closed:
            self._limiter.require_own_loop()
        try:
            await self._limiter.close()
        finally:
            if not self._limiter.loop_is_closed:
                await self._http.aclose()


class ClosingBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections that close when their TLS handshake fails or is cancelled."""

    def __init__(self) -> None:
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface of the client
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to a host."""
        left = Deadline.left(timeout, httpcore2.ConnectTimeout)
        return _ClosingStream(await self._inner.connect_tcp(host, port, left, local_address, socket_options))


class _ClosingStream(httpcore2.AsyncNetworkStream):
    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        began = time.monotonic()
        data = await self._inner.read(max_bytes, Deadline.left(timeout, httpcore2.ReadTimeout))
        Deadline.moved(len(data), began)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        for start in range(0, len(buffer), transport.PIECE):
            piece, began = buffer[start : start + transport.PIECE], time.monotonic()
            await self._inner.write(piece, Deadline.left(timeout, httpcore2.WriteTimeout))
            Deadline.moved(len(piece), began)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore2.AsyncNetworkStream:
        try:
            left = Deadline.left(timeout, httpcore2.ConnectTimeout)
            return _ClosingStream(await self._inner.start_tls(ssl_context, server_hostname, left))
        except BaseException:
            await self._inner.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
