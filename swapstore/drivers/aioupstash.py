"""Redis over Upstash's REST API for asyncio; see `upstash.py`.

A request that is cancelled closes its connection: what was not sent yet is not sent, and no later request can
read its answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpcore2

from swapstore.drivers import rest_transport
from swapstore.drivers.gate import Gate
from swapstore.drivers.rest_handshake import TidyBackend
from swapstore.drivers.rest_session import Request, Response, Session
from swapstore.drivers.rest_transport import Times
from swapstore.errors import SwapstoreError
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command
    from swapstore.drivers.rest_address import Address


class AsyncUpstashDriver:
    """Carries out commands through a REST endpoint, in one event loop."""

    kind = "upstash"
    binary_safe = False

    def __init__(self, address: Address, *, max_request: int, times: Times | None = None) -> None:
        self.where = address.where
        self._address = address
        self._times = times or Times()
        self._session = Session(address, max_request=max_request)
        self._url = rest_transport.url_of(address, self._session)
        self._inherited: list[Any] = []
        self._begin()
        survive_forks(self)

    def _begin(self) -> None:
        self._http = httpcore2.AsyncConnectionPool(
            **rest_transport.pool_options(self._address), network_backend=TidyBackend()
        )
        self._gate = Gate(
            self.where,
            rest_transport.MAX_CONNECTIONS,
            self._times.pool_s,
            exhausted=lambda: rest_transport.exhausted(self.where),
        )

    def after_fork(self) -> None:
        """Leave the parent's connections, and its event loop, alone."""
        self._inherited.append((self._http, self._gate))
        self._begin()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.where}>"

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Post the commands; see `AsyncDriver.execute`."""
        exchange = self._session.exchange(commands)
        async with self._gate:
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
        options = rest_transport.arguments(request, self._times)
        try:
            async with asyncio.timeout(self._times.total_s):
                async with self._http.stream("POST", self._url, **options) as answer:
                    return rest_transport.response(answer, await answer.aread())
        except rest_transport.FAILURES as error:
            failure, cause = rest_transport.failure(error, self.where), error
        raise failure from cause

    async def close(self) -> None:
        """Wait for the requests on their way, and close the connections."""
        if not self._gate.is_deserted:
            self._gate.come_home()
        try:
            await self._gate.close()
        finally:
            if not self._gate.is_deserted:
                await self._http.aclose()
