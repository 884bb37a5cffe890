"""What Redis and its relatives answer, made plain. Their answers differ in form, and lack what they like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Failed

if TYPE_CHECKING:
    from swapstore.commands import Failed


# Relatives of Redis say two versions: the one of Redis that they resemble, and their own.
_PRODUCTS = {
    "valkey_version": "Valkey",
    "dragonfly_version": "Dragonfly",
    "kvrocks_version": "Kvrocks",
    "garnet_version": "Garnet",
    "upstash_version": "Upstash",
    "redis_version": "Redis",
}


@attrs.frozen(kw_only=True)
class Answers:
    """The answers to one round of questions: what came as a reply, or `Failed`."""

    info: Any
    save: Any
    policy: Any
    commands: Any
    cluster: Any
    script: Any
    role: Any


@attrs.frozen
class Info:
    """The fields of an `INFO` text, or none of them when it was refused."""

    fields: dict[str, str]

    def text(self, name: str) -> str | None:
        """A field, None if the server does not have it."""
        return self.fields.get(name) or None

    def number(self, name: str) -> int | None:
        """A field that is a whole number, None if it is none."""
        text = self.fields.get(name, "")
        return int(text) if text.isascii() and text.isdigit() else None

    def product(self) -> str | None:
        """What the server calls itself: `Valkey 9.1.2` for example."""
        for field, name in _PRODUCTS.items():
            if self.text(field):
                return f"{name} {self.fields[field]}"
        return None

    def redis_major(self) -> int | None:
        """The major version of Redis that the server is, or resembles."""
        major = (self.text("redis_version") or "").partition(".")[0]
        return int(major) if major.isascii() and major.isdigit() else None


def parse(reply: Any) -> Info:
    """Read `INFO` and `CLUSTER INFO`: a line `name:value` each."""
    if isinstance(reply, Failed):
        return Info({})
    lines = text(reply).splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return Info({name.strip(): value.strip() for name, colon, value in pairs if colon})


def text(value: Any) -> str:
    """A value as text: clients differ in whether they decode."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def setting(reply: Any, name: str) -> str | None:
    """Read one setting of a `CONFIG GET`: a list of names and values, or in RESP3 a map. None: not told."""
    if isinstance(reply, dict):
        pairs = {text(key): text(value) for key, value in reply.items()}
    elif isinstance(reply, list | tuple):
        pairs = {text(key): text(value) for key, value in zip(reply[::2], reply[1::2], strict=False)}
    else:
        return None
    return pairs.get(name)


def moment(reply: Any) -> int | None:
    """Read `TIME`, seconds and microseconds, as milliseconds. None: not told."""
    try:
        seconds, micros = (int(part) for part in reply)
    except (TypeError, ValueError):
        return None
    return seconds * 1000 + micros // 1000
