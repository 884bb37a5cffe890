"""The apps of docs/how-to/serve-over-http.md, behind real servers on a free port."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import uvicorn
from werkzeug.serving import WSGIRequestHandler, make_server

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve-over-http.md"
START_S = 20


@attrs.frozen
class Answer:
    """The response of a server."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


@attrs.frozen
class Site:
    """A running app."""

    port: int

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send a request; `If_None_Match` is the header If-None-Match."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(
                method, path, headers={name.replace("_", "-"): text for name, text in headers.items()}
            )
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


Serving = Callable[[str], AbstractContextManager[Site]]


def documented(framework: str) -> dict[str, Any]:
    """Run the code block of the page that makes the app of this framework; return its names."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (code,) = [block for block in blocks if f"app = {framework}(" in block]
    names: dict[str, Any] = {"__name__": "documented"}
    exec(compile(code, PAGE, "exec"), names)  # noqa: S102 - it is our own page
    return names


class Quiet(WSGIRequestHandler):
    """Writes no access log."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Write nothing."""


@contextmanager
def _starlette(names: dict[str, Any]) -> Iterator[Site]:
    server = uvicorn.Server(uvicorn.Config(names["app"], lifespan="on", log_level="critical"))
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
def _flask(names: dict[str, Any]) -> Iterator[Site]:
    server = make_server("127.0.0.1", 0, names["app"], threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Site(server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        names["store"].close()


@pytest.fixture(params=["Starlette", "Flask"])
def serving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """Serves a store by its address, with the app of each framework."""

    def serve(url: str) -> AbstractContextManager[Site]:
        monkeypatch.setenv("SWAPSTORE_URL", url)
        names = documented(request.param)
        return _starlette(names) if request.param == "Starlette" else _flask(names)

    return serve
