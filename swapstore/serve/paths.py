"""Paths: a name of a dataset, which may hold slashes, is one segment of a path.

Servers decode a path before they hand it on, so that `a%2Fb` and `a/b` look alike. Here, routes match the
path as the client sent it, and a segment is decoded when its route is found.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote, unquote

from starlette.convertors import Convertor, register_url_convertor

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Segment(Convertor[str]):
    """One segment of a path, percent-encoded: `{name:segment}` in a route."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        """Return the text that the segment stands for."""
        return unquote(value)

    def to_string(self, value: str) -> str:
        """Return the segment for a text."""
        return quote(value, safe="")


register_url_convertor("segment", Segment())

DATASET = "/datasets/{name:segment}"


class PathsAsSent:
    """Middleware that gives the routes the path as the client sent it."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            raw = scope.get("raw_path")
            path = quote(scope["path"]) if raw is None else raw.decode("latin-1").partition("?")[0]
            scope = {**scope, "path": path, "root_path": quote(scope.get("root_path", ""))}
        await self._app(scope, receive, send)
