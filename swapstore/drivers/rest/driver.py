"""Redis over Upstash's REST API, and over what speaks it: one batch is one `POST /pipeline`.

The conversation is in `rest_session.py`; here requests are carried, each of them once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpcore2

from swapstore.drivers.limiter import Gate
from swapstore.drivers.rest import transport
from swapstore.drivers.rest.conversation import Request, Response
from swapstore.drivers.rest.transport import Deadline, DeadlineBackend, RestDriver, TidyBackend
from swapstore.errors import SwapstoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command


class UpstashDriver(RestDriver):
    """Carries out commands through a REST endpoint, over connections that it keeps."""

    def _begin(self) -> None:
        self._deadline = Deadline()
        self._http = httpcore2.ConnectionPool(
            **transport.pool_options(self._address), network_backend=DeadlineBackend(self._deadline)
        )

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Post the commands; see `Driver.execute`."""
        exchange = self._session.exchange(commands)
        try:
            request = next(exchange)
            while True:
                try:
                    response = self._post(request)
                except SwapstoreError as error:
                    request = exchange.throw(error)
                else:
                    request = exchange.send(response)
        except StopIteration as stop:
            replies: list[Any] = stop.value
            return replies

    def _post(self, request: Request) -> Response:
        try:
            with (
                self._deadline.within(self._times.total_s),
                self._http.stream("POST", self._url, **transport.arguments(request, self._times)) as answer,
            ):
                return transport.response(answer, answer.read())
        except transport.FAILURES as error:
            failure, cause = transport.failure(error, self.where), error
        raise failure from cause

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


# --- aioupstash --------------------------------------------------------------------------------
#
# Redis over Upstash's REST API for asyncio; see `upstash.py`.
#
# A request that is cancelled closes its connection: what was not sent yet is not sent, and no later
# request can
# read its answer.


class AsyncUpstashDriver(RestDriver):
    """Carries out commands through a REST endpoint, in one event loop."""

    def _begin(self) -> None:
        self._http = httpcore2.AsyncConnectionPool(
            **transport.pool_options(self._address), network_backend=TidyBackend()
        )
        self._gate = Gate(
            self.where,
            transport.MAX_CONNECTIONS,
            self._times.pool_s,
            exhausted=lambda: transport.exhausted(self.where),
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
        options = transport.arguments(request, self._times)
        try:
            async with asyncio.timeout(self._times.total_s):
                async with self._http.stream("POST", self._url, **options) as answer:
                    return transport.response(answer, await answer.aread())
        except transport.FAILURES as error:
            failure, cause = transport.failure(error, self.where), error
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
