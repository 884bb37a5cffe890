"""A parsed REST request: its commands, its token, and what is recorded of it for the test."""

from __future__ import annotations

import json
from email.message import Message
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

import attrs

Command = tuple[bytes, ...]
METHODS = frozenset(["GET", "HEAD", "POST", "PUT"])
BATCHES = frozenset(["/pipeline", "/multi-exec"])


class Unusable(Exception):  # noqa: N818 - it is an answer
    """A request without a command, and the status that it is answered with."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@attrs.frozen
class Asked:
    """One request."""

    method: str
    path: str  # without the query
    headers: dict[str, str]  # names in small letters; no token
    commands: tuple[Command, ...]
    size_bytes: int  # of the body
    connection: int  # the number of the connection it came on
    token: str = attrs.field(repr=False)

    @classmethod
    def of(
        cls,
        method: str,
        path: str,
        headers: Message,
        *,
        size_bytes: int,
        commands: tuple[Command, ...],
        connection: int,
    ) -> Asked:
        parts = urlsplit(path)
        kept = {name.lower(): text for name, text in headers.items()}
        scheme, _, token = kept.pop("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = dict(parse_qsl(parts.query)).get("_token", "")
        return cls(method, parts.path, kept, commands, size_bytes, connection, token)

    @property
    def names(self) -> list[str]:
        """The names of the commands, in capitals."""
        return [each[0].decode("utf-8", "replace").upper() for each in self.commands if each]

    @property
    def batch(self) -> bool:
        return self.path in BATCHES

    @property
    def atomic(self) -> bool:
        return self.path == "/multi-exec"


def read_commands(method: str, target: str, body: bytes) -> tuple[Command, ...]:
    """Return the commands of a request, or raise Unusable."""
    parts = urlsplit(target)
    if method not in METHODS or (parts.path in BATCHES and method in {"GET", "HEAD"}):
        raise Unusable("ERR method not allowed", 405)
    if parts.path in BATCHES:
        listed = _json(body)
        if not isinstance(listed, list) or not listed:
            raise Unusable("ERR expected an array of commands")
        return tuple(map(_command, listed))
    if parts.path in {"", "/"}:
        return (_command(_json(body)),)
    words = [unquote_to_bytes(each) for each in parts.path.strip("/").split("/")]
    if method in {"POST", "PUT"} and body:
        words.append(body)
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name != "_token":
            words += [name.encode(), *([text.encode()] if text else [])]
    return (tuple(words),)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body, parse_int=str, parse_float=str)
    except ValueError as error:
        raise Unusable("ERR failed to parse the body as JSON") from error


def _command(listed: Any) -> Command:
    if not isinstance(listed, list) or not listed:
        raise Unusable("ERR expected a command as an array")
    return tuple(map(_argument, listed))


def _argument(value: Any) -> bytes:
    """Numbers keep their digits: they arrive here as text."""
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if not isinstance(value, str):
        raise Unusable("ERR an argument is neither a string nor a number")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise Unusable("ERR an argument is not valid Unicode") from error


def sync_token(position: int) -> str:
    """Make a sync token, which is opaque to clients."""
    return f"primary:{position}"


def position_of(token: str) -> int:
    """Return how far the bearer has read; a token of another server says nothing."""
    _, _, digits = token.partition(":")
    return int(digits) if digits.isdecimal() else 0
