"""A REST server in front of a real Valkey, as Upstash documents its own; `with RestServer(valkey) as rest:`.

- `rest.url`, `rest.token`, `rest.read_only_token`: what a client is given.
- `rest.switches`: its faults; see rest_switches.py.
- `rest.lag`: what reads do not see yet; see rest_lag.py.
- `rest.requests`: the requests so far; `rest.count("EVAL")`: how many of them held that command.

The size limit (`switches.cap_bytes`, 10 MiB) applies to one command or its reply, as documented.
`switches.too_large` chooses what happens above it: "command" (an error replaces that command's result),
"request" (400 for the whole request, which is measured whole), "413" (for the whole request, from something
in front of the database), "reset" (the connection is reset while the body is being sent).
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.resp import Failure, Wire
from tests.support.rest_commands import Command, Ran, Rules, Runner, Session, shown, too_large
from tests.support.rest_lag import Lag
from tests.support.rest_request import Asked, Unusable, position_of, read_commands, sync_token
from tests.support.rest_switches import Plan, Switches
from tests.support.valkey import Server

TOKEN = "AXyzStandardTokenOfThePeer"  # noqa: S105 - it opens nothing
READ_ONLY_TOKEN = "AroReadOnlyTokenOfThePeer"  # noqa: S105
UNAUTHORIZED = "WRONGPASS invalid or missing auth token"
RESET = struct.pack("ii", 1, 0)  # linger for no time: closing sends RST
_rules: dict[str, Rules] = {}  # by the program of the server


class GoneError(ConnectionError):
    """The connection is closed on purpose."""


class RestServer:
    """The server. Every connection has a thread, and keeps it until either side closes."""

    def __init__(self, valkey: Server) -> None:
        self.switches = Switches()
        self.lag = Lag(valkey.port)
        self.requests: list[Asked] = []
        self.token, self.read_only_token = TOKEN, READ_ONLY_TOKEN
        self._valkey = valkey
        self._http: _Http | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        if self._http is None:
            raise RuntimeError("the server is not running")
        return f"http://127.0.0.1:{self._http.server_port}"

    def count(self, name: str) -> int:
        """Return how many requests held a command of this name."""
        return sum(name.upper() in each.names for each in self.requests)

    def start(self) -> Self:
        self._http = _Http(self, self._valkey.port, rules_of(self._valkey))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), name="rest")
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop, and wait for every thread. An error of the server itself is raised here."""
        if self._http is None or self._thread is None:
            return
        self._http.stop()
        self._thread.join()
        errors, self._http = self._http.errors, None
        if errors:
            raise RuntimeError("the REST peer itself failed") from errors[0]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def rules_of(server: Server) -> Rules:
    """What a server reports about its commands. Each program is asked once: that takes 20 ms."""
    if server.binary not in _rules:
        with contextlib.closing(Wire(server.port)) as wire:
            _rules[server.binary] = Rules.ask(wire)
    return _rules[server.binary]


class _Http(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 128

    def __init__(self, rest: RestServer, valkey_port: int, rules: Rules) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rest, self.valkey_port, self.rules = rest, valkey_port, rules
        self.stopping = threading.Event()
        self.errors: list[BaseException] = []
        self._open: set[socket.socket] = set()
        self._opened = 0
        self._lock = threading.Lock()

    def opened(self, connection: socket.socket) -> int:
        """Record a connection; return its number."""
        with self._lock:
            self._open.add(connection)
            self._opened += 1
            if self.stopping.is_set():
                connection.shutdown(socket.SHUT_RDWR)
            return self._opened

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)

    def stop(self) -> None:
        self.shutdown()
        self.stopping.set()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep the error that was raised, for close() to raise."""
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Upstash", ""
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer leaves in one piece
    server: _Http

    def setup(self) -> None:
        super().setup()
        self._number = self.server.opened(self.connection)
        self._session = Session(self.server.valkey_port)

    def finish(self) -> None:
        self._session.close()
        self.server.closed(self.connection)
        with contextlib.suppress(ConnectionError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Write nothing."""

    def handle_expect_100(self) -> bool:
        """Let curl send its large body at once, instead of after a second."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def handle_one_request(self) -> None:
        """End a connection that is closed on purpose without an error."""
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def serve(self) -> None:
        """Answer one request."""
        rest, switches = self.server.rest, self.server.rest.switches
        body = self._body(switches)
        try:
            commands = read_commands(self.command, self.path, body)
            unusable = None
        except Unusable as error:
            commands, unusable = (), error
        asked = Asked.of(
            self.command,
            self.path,
            self.headers,
            size_bytes=len(body),
            commands=commands,
            connection=self._number,
        )
        rest.requests.append(asked)
        plans = switches.take(asked.names)
        self._before(plans)
        answered = next((plan for plan in plans if plan.kind == "answer"), None)
        if answered is not None and not answered.applied:
            self._send(answered.status, answered.body, answered.headers)
            return
        status, reply, position = self._reply(asked, commands, unusable, plans, len(body))
        self._after(plans)
        if answered is not None:
            self._send(answered.status, answered.body, answered.headers)
            return
        headers = {"Content-Type": "application/json"}
        if status == 200:
            headers["Upstash-Sync-Token"] = sync_token(position)
        text = json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode()
        for plan in plans:
            text = plan.change(text) if plan.kind == "mangle" else text
        self._send(status, text, headers, cut=any(plan.kind == "cut" for plan in plans))

    def _body(self, switches: Switches) -> bytes:
        length = int(self.headers.get("Content-Length", 0))
        if switches.too_large == "reset" and length > switches.cap_bytes:
            self.rfile.read(switches.cap_bytes // 2)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.connection.close()
            raise GoneError
        return self.rfile.read(length)

    def _reply(
        self,
        asked: Asked,
        commands: tuple[Command, ...],
        unusable: Unusable | None,
        plans: list[Plan],
        size: int,
    ) -> tuple[int, Any, int]:
        """Return the status, the JSON and the position."""
        rest, switches = self.server.rest, self.server.rest.switches
        tokens = {rest.token: False, rest.read_only_token: True}
        if asked.token not in tokens:
            return 401, {"error": UNAUTHORIZED}, 0
        if unusable is not None:
            return unusable.status, {"error": str(unusable)}, 0
        if asked.headers.get("upstash-response-format", "json") != "json":
            return 400, {"error": "ERR this peer answers in JSON alone"}, 0
        large = too_large(size, switches.cap_bytes)
        if large is not None and switches.too_large == "request":
            return 400, {"error": large.text}, 0
        if large is not None and switches.too_large == "413":
            return 413, {"error": large.text}, 0
        known = position_of(asked.headers.get("upstash-sync-token", ""))
        failed = {plan.number - 1: plan.error for plan in plans if plan.kind == "fail"}
        runner = Runner(
            self._session, self.server.rules, switches, rest.lag, tokens[asked.token], known, failed
        )
        try:
            ran = runner.as_transaction(commands) if asked.atomic else runner.one_by_one(commands)
        except (OSError, ConnectionError):
            self._session.close()
            return 500, {"error": "ERR the database cannot be reached"}, 0
        return self._shown(asked, ran)

    def _shown(self, asked: Asked, ran: Ran) -> tuple[int, Any, int]:
        if isinstance(ran.replies, Failure):
            return 400, {"error": ran.replies.text}, ran.position
        encoded = asked.headers.get("upstash-encoding") == "base64"
        items = [
            shown(each, encoded=encoded, encodes_ok=self.server.rest.switches.encodes_ok and encoded)
            for each in ran.replies
        ]
        if asked.batch:
            return 200, items, ran.position
        return (400 if "error" in items[0] else 200), items[0], ran.position

    def _before(self, plans: list[Plan]) -> None:
        for plan in plans:
            if plan.kind == "delay_before":
                self.server.stopping.wait(plan.seconds)
        if any(plan.kind == "drop_before" for plan in plans):
            raise GoneError

    def _after(self, plans: list[Plan]) -> None:
        for plan in plans:
            if plan.kind == "delay_after":
                self.server.stopping.wait(plan.seconds)
        if any(plan.kind == "drop_after" for plan in plans):
            raise GoneError

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.wfile.flush()
        if cut:
            raise GoneError


for _method in ("GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS"):
    setattr(_Handler, f"do_{_method}", _Handler.serve)
