"""A REST proxy that knows little: the commands of a list, one after the other, in plain text.

It stands for a small self-hosted proxy in front of Redis or Valkey, which is not Upstash's server: it runs no
scripts and no transactions, ignores the headers `Upstash-Encoding` and `Upstash-Sync-Token`, and closes the
connection on a body of more than 1 MiB.

- `proxy.url`, `proxy.token`: what a client is given.
- `proxy.allowed`: the commands; `proxy.compares`: whether the server behind it knows `SET … IFEQ`.
- `proxy.requests`: the names of the commands of each request so far.
- `proxy.is_gone`: the server behind it is gone, and requests hang.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote

from tests.support.resp import Failure, Wire
from tests.support.valkey import Server

TOKEN = "AtokenOfTheSmallProxy"  # noqa: S105 - it opens nothing
BODY_BYTES = 1024 * 1024
_LIST = """
GET SET DEL MGET MSET SCAN TTL EXPIRE PEXPIRE EXISTS TYPE HGET HSET HDEL HGETALL HMGET HMSET HKEYS HVALS
HEXISTS HLEN LPUSH RPUSH LPOP RPOP LRANGE LLEN LTRIM LREM SADD SREM SMEMBERS SISMEMBER SCARD ZADD ZREM ZRANGE
ZRANGEBYSCORE ZREVRANGE ZSCORE ZCARD ZRANDMEMBER GEOADD GEOSEARCH GEOPOS GEODIST INCR DECR INCRBY DECRBY PING
ECHO INFO DBSIZE PUBLISH SUBSCRIBE SETNX SETEX PSETEX GETSET APPEND STRLEN
"""
ALLOWED = frozenset(_LIST.split())


class SmallProxy:
    """The proxy. Every connection has a thread."""

    def __init__(self, valkey: Server, *, compares: bool = True) -> None:
        self.token = TOKEN
        self.allowed = ALLOWED
        self.compares = compares
        self.is_gone = False
        self.requests: list[list[str]] = []
        self.port = valkey.port
        self.stopping = threading.Event()
        self._http = _Http(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), name="proxy")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._http.shutdown()
        self._http.end()
        self._http.server_close()
        self._thread.join()

    def answer(self, wire: Wire, command: list[Any]) -> dict[str, Any]:
        """Carry out one command."""
        words = [str(word).encode() for word in command]
        name = words[0].decode().upper()
        if name not in self.allowed:
            return {"error": f"Command not allowed: {name}"}
        if name == "SET" and not self.compares and b"IFEQ" in words:
            return {"error": "ERR syntax error"}
        reply = wire.ask(*words)
        return {"error": reply.text} if isinstance(reply, Failure) else {"result": _shown(reply)}


def _shown(reply: Any) -> Any:
    if isinstance(reply, list):
        return [_shown(each) for each in reply]
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply


class _Http(ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, proxy: SmallProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy
        self.open: set[socket.socket] = set()

    def end(self) -> None:
        """Close what clients keep open."""
        for each in list(self.open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """Write nothing about connections that are closed on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Http

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_: Any) -> None:
        """Write nothing."""

    def serve(self) -> None:
        """Answer one request."""
        proxy = self.server.proxy
        length = int(self.headers.get("Content-Length", 0))
        if length > BODY_BYTES:
            self.rfile.read(BODY_BYTES // 2)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = self.rfile.read(length)
        if self.headers.get("Authorization") != f"Bearer {proxy.token}":
            self._send(401, {"error": "Unauthorized"})
            return
        path = [unquote(part) for part in self.path.strip("/").split("/")]
        commands = json.loads(body) if path == ["pipeline"] else [json.loads(body) if body else path]
        proxy.requests.append([str(command[0]).upper() for command in commands])
        if path == ["multi-exec"]:
            self._send(500, {"error": "multi.sendCommand is not a function"})
            return
        if proxy.is_gone:
            proxy.stopping.wait(60)
            self.close_connection = True
            return
        wire = Wire(proxy.port)
        try:
            answers = [proxy.answer(wire, command) for command in commands]
        finally:
            wire.close()
        if path == ["pipeline"]:
            self._send(200, answers)
        else:
            self._send(500 if "error" in answers[0] else 200, answers[0])

    def _send(self, status: int, reply: Any) -> None:
        text = json.dumps(reply, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()


for _method in ("GET", "POST"):
    setattr(_Handler, f"do_{_method}", _Handler.serve)
