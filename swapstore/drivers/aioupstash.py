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
from swapstore.drivers.rest_session import Request, Response
from swapstore.drivers.rest_transport import RestDriver
from swapstore.errors import SwapstoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command


class AsyncUpstashDriver(RestDriver):
    """Carries out commands through a REST endpoint, in one event loop."""

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
