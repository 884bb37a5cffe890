"""Changes without the library, on a real server and on a SQLite file alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swapstore import Store
from tests.support.drivers import sqlite_connection
from tests.support.valkey import client_of


class Damage:
    """What an operator, an eviction or another program may do to the keys of a store."""

    def __init__(self, store: Store) -> None:
        self._driver: Any = store._driver
        while hasattr(self._driver, "_driver"):
            self._driver = self._driver._driver
        self.has_types = hasattr(self._driver, "_pool")

    @property
    def client(self) -> Any:
        """A plain client of the server."""
        return client_of(self._driver)

    def _sql(self, statement: str, *values: Any) -> list[Any]:
        with sqlite_connection(self._driver) as connection:
            found: list[Any] = connection.execute(statement, values).fetchall()
            return found

    def get(self, key: str) -> bytes:
        if self.has_types:
            value: bytes = self.client.get(key)
            return value
        return bytes(self._sql("SELECT value FROM records WHERE key = ?", key)[0][0])

    def delete(self, *keys: str) -> None:
        for key in keys:
            if self.has_types:
                assert self.client.delete(key)
            else:
                self._sql("DELETE FROM records WHERE key = ?", key)

    def put(self, key: str, value: bytes) -> None:
        """Write a value without a TTL."""
        if self.has_types:
            self.client.set(key, value)
        else:
            self._sql("INSERT OR REPLACE INTO records (key, value) VALUES (?, ?)", key, value)

    def alter(self, key: str, change: Callable[[bytes], bytes]) -> None:
        """Change a value and keep its TTL."""
        value = change(self.get(key))
        if self.has_types:
            self.client.set(key, value, keepttl=True)
        else:
            self._sql("UPDATE records SET value = ? WHERE key = ?", value, key)

    def expire(self, key: str, ms: int = 600_000) -> None:
        """Give a TTL to a key that should have none."""
        if self.has_types:
            assert self.client.pexpire(key, ms)
        else:
            self._sql("UPDATE records SET expires_at = ? WHERE key = ?", self._driver._now_ms() + ms, key)

    def make_permanent(self, key: str) -> None:
        if self.has_types:
            assert self.client.persist(key)
        else:
            self._sql("UPDATE records SET expires_at = NULL WHERE key = ?", key)

    def unlist(self, namespace: str = "swapstore") -> None:
        """Delete the list of names."""
        if self.has_types:
            self.client.delete(f"{namespace}:datasets")
        else:
            self._sql("DELETE FROM members")

    def flush(self) -> None:
        if self.has_types:
            self.client.flushdb()
        else:
            self._sql("DELETE FROM records")
            self._sql("DELETE FROM members")
