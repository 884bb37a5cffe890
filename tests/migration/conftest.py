"""A server with the six-command layout on it, written as its producers write: any command may fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

import swapstore as library
from swapstore import Store
from tests.cli.conftest import Swapstore
from tests.conftest import kinds
from tests.support.valkey import Server

START_MS = 1_700_000_000_000
ALL = frozenset({"by_ts", "by_id", "latest", "index"})


class Old:
    """A producer of the six-command layout."""

    def __init__(self, client: redis.Redis, prefix: str = "intel") -> None:
        self.client = client
        self.prefix = prefix

    def key(self, *parts: object) -> str:
        return ":".join(map(str, [self.prefix, *parts]))

    def by_id(self, name: str) -> str:
        return self.key("snapshot-by-id:v1", name)

    def by_ts(self, region: str, ts: int) -> str:
        return self.key("snapshot:v1", region, ts)

    def latest(self, region: str) -> str:
        return self.key("snapshot:v1", region, "latest")

    def index(self, region: str) -> str:
        return self.key("snapshot-index:v1", region)

    def publish(
        self,
        region: str,
        name: str,
        ts: int,
        payload: bytes | None = None,
        *,
        done: frozenset[str] | set[str] = ALL,
        score: float | None = None,
        member: str | None = None,
    ) -> bytes:
        """Publish with the six commands; `done` are those that succeed."""
        text = json.dumps({"n": name, "at": ts}).encode() if payload is None else payload
        if "by_ts" in done:
            self.client.set(self.by_ts(region, ts), text)
        if "by_id" in done:
            self.client.set(self.by_id(name), text)
        if "latest" in done:
            self.client.set(self.latest(region), name)
        if "index" in done:
            self.client.zadd(self.index(region), {member or name: ts if score is None else score})
        self.client.delete(self.key("snapshot:v1", region, "live"))
        return text

    def read(self, region: str) -> bytes | None:
        """Read in two steps. A pointer to nothing is an error."""
        name = self.client.get(self.latest(region))
        if name is None:
            return None
        payload = self.client.get(self.by_id(name.decode()))  # type: ignore[union-attr]
        assert payload is not None, f"latest dangles: {name!r}"
        return payload  # type: ignore[return-value]

    def everything(self) -> dict[bytes, Any]:
        """All that is stored, for a comparison."""
        return {key: self.client.dump(key) for key in self.client.scan_iter()}


@pytest.fixture
def server(valkey: Server) -> Server:
    """An empty real server."""
    return valkey


@pytest.fixture
def old(server: Server) -> Iterator[Old]:
    with server.client() as client:
        yield Old(client)


@pytest.fixture(params=kinds("sqlite", "valkey"))
def store(request: pytest.FixtureRequest, tmp_path: Path, server: Server) -> Iterator[Store]:
    """Where the snapshots are imported to: a file, or another database of the same server."""
    url = f"sqlite:///{tmp_path}/new.db" if request.param == "sqlite" else server.url[:-1] + "1"
    with library.connect(url) as made:
        yield made


@pytest.fixture
def swapstore(tmp_path: Path) -> Swapstore:
    return Swapstore(tmp_path)
