"""The blocking driver for Redis over Upstash's REST API: one batch is one `POST /pipeline`.

`conversation.py` decides what to send and what an answer means; this module sends each request once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import httpcore2

from swapstore.drivers.base import closed
from swapstore.drivers.rest import errors, transport
from swapstore.drivers.rest.conversation import Request, Response
from swapstore.drivers.rest.transport import Body, Deadline, DeadlineBackend, RestDriver, TooLong
from swapstore.errors import SwapstoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Command


class UpstashDriver(RestDriver):
    """Carries out commands through a REST endpoint, over connections that it keeps open.

    The last batch in progress closes them after `close`. httpcore2 would close them under the other threads,
    which then wait for an answer until their time-out, and connect anew.
    """

    def _open(self) -> None:
        self._lock = threading.RLock()
        self._inside = 0
        self._closed = False
        self._http = httpcore2.ConnectionPool(
            **transport.pool_options(self._address), network_backend=DeadlineBackend()
        )

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Post the commands; see `Driver.execute`."""
        with self._lock:
            if self._closed:
                raise closed()
            self._inside += 1
        try:
            return self._exchanged(commands)
        finally:
            with self._lock:
                self._inside -= 1
            self._close_if_unused()

    def _exchanged(self, commands: Sequence[Command[Any]]) -> list[Any]:
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
        """Close the connections, as soon as no batch is in progress. New batches raise `StoreClosed`."""
        with self._lock:
            self._closed = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        with self._lock:
            is_over = self._closed and not self._inside
        if is_over:
            self._http.close()
