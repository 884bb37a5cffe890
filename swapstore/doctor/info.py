"""Parses the answers of Redis and its relatives, which differ in form and may lack any part."""

from __future__ import annotations

from typing import Any

import attrs

from swapstore.commands import Failed

# Relatives of Redis state two versions: that of the Redis they resemble, and their own.
_PRODUCTS = {
    "valkey_version": "Valkey",
    "dragonfly_version": "Dragonfly",
    "kvrocks_version": "Kvrocks",
    "garnet_version": "Garnet",
    "upstash_version": "Upstash",
    "redis_version": "Redis",
}
_DIGITS = 20  # of a number that a server can count to


@attrs.frozen(kw_only=True)
class Answers:
    """The answers to one round of questions: for each the reply, or `Failed`."""

    info: Any
    save: Any
    policy: Any
    commands: Any = None
    cluster: Any = None
    script: Any = None
    role: Any = None
    fsync: Any = None
    min_replicas: Any = None
    wait: Any = None
    wait_for_disk: Any = None


@attrs.frozen
class Info:
    """The fields of an `INFO` text; no field if it was refused."""

    fields: dict[str, str]

    def text(self, name: str) -> str | None:
        """Return a field, None if the server does not have it."""
        return self.fields.get(name) or None

    def number(self, name: str) -> int | None:
        """Return a field as a whole number, None if it is not one."""
        return number(self.fields.get(name, ""))

    def product(self) -> str | None:
        """Return the product and its version, such as `Valkey 9.1.2`."""
        for field, name in _PRODUCTS.items():
            if self.text(field):
                return f"{name} {self.fields[field]}"
        return None

    def redis_major(self) -> int | None:
        """Return the major version of Redis that the server is, or resembles."""
        major = (self.text("redis_version") or "").partition(".")[0]
        return int(major) if major.isascii() and major.isdigit() else None


def number(text: str) -> int | None:
    """Return a text as a whole number, None if it is not one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < _DIGITS else None


def parse(reply: Any) -> Info:
    """Parse a reply to `INFO` or `CLUSTER INFO`: lines of the form `name:value`."""
    if isinstance(reply, Failed):
        return Info({})
    lines = text(reply).splitlines()
    pairs = (line.partition(":") for line in lines if not line.startswith("#"))
    return Info({name.strip(): value.strip() for name, colon, value in pairs if colon})


def text(value: Any) -> str:
    """Return a value as text: some clients decode values, others do not."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def pairs(reply: Any) -> Info:
    """Parse a reply of names and values: a list, or a map in RESP3. No field if it is neither."""
    if isinstance(reply, dict):
        return Info({text(key): text(value) for key, value in reply.items()})
    if isinstance(reply, list | tuple):
        return Info({text(key): text(value) for key, value in zip(reply[::2], reply[1::2], strict=False)})
    return Info({})


def setting(reply: Any, name: str) -> str | None:
    """Return a setting from the reply to `CONFIG GET`. None: not told."""
    return pairs(reply).fields.get(name)
