"""Apps behind real servers on free ports, and requests to them."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import uvicorn
from werkzeug.serving import WSGIRequestHandler, make_server

START_S = 20


@attrs.frozen
class Answer:
    """The response of a server."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@attrs.frozen
class Site:
    """A running app."""

    port: int

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send a request; `If_None_Match` is the header If-None-Match."""
        return self.send(method, path, None, **headers)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send a request with a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            named = {name.replace("_", "-"): text for name, text in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


class Quiet(WSGIRequestHandler):
    """Writes no access log."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Write nothing."""


@contextmanager
def running_asgi(app: Any, lifespan: Any = "on", log_level: str = "critical") -> Iterator[Site]:
    server = uvicorn.Server(uvicorn.Config(app, lifespan=lifespan, log_level=log_level))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            deadline = time.monotonic() + START_S
            while not server.started:
                assert thread.is_alive(), "the server does not start"
                assert time.monotonic() < deadline, "the server does not start"
                time.sleep(0.005)
            yield Site(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def running_wsgi(app: Any) -> Iterator[Site]:
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Site(server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
