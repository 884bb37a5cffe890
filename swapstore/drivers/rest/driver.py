"""The blocking driver for Redis over Upstash's REST API: one batch is one `POST /pipeline`.

`conversation.py` decides what to send and what an answer means; this module sends each request once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpcore2

from swapstore.drivers.rest import errors, transport
from swapstore.drivers.rest.conversation import Request, Response
from swapstore.drivers.rest.transport import Body, Deadline, DeadlineBackend, RestDriver, TooLong
from swapstore.errors import SwapstoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command


class UpstashDriver(RestDriver):
    """Carries out commands through a REST endpoint, over connections that it keeps open."""

    def _open(self) -> None:
        self._http = httpcore2.ConnectionPool(
            **transport.pool_options(self._address), network_backend=DeadlineBackend()
        )

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Post the commands; see `Driver.execute`."""
        exchange = self._conversation.exchange(commands)
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
        failure: SwapstoreError
        cause: Exception
        try:
            with (
                Deadline.within(self._times.total_s),
                self._http.stream("POST", self._url, **transport.arguments(request, self._times)) as answer,
            ):
                body = Body()
                for part in answer.iter_stream():
                    body.add(part)
                return transport.response(answer, body.whole())
        except TooLong as error:
            failure, cause = errors.lost(f"{self.where} gave {error}", request), error
        except transport.FAILURES as error:
            failure, cause = transport.failure(error, self.where), error
        raise failure from cause

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
