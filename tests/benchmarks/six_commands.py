"""What a user would otherwise write: the six commands of the usual layout, with redis-py."""

from __future__ import annotations

from typing import Any

import redis

BEGAN_MS = 1_790_000_000_000


def names(namespace: str, region: str, number: int) -> dict[str, str]:
    """Name the keys of one publish; the id is as long as one that swapstore generates."""
    name = f"018f2f7e-0000-7000-8000-{number:012x}"
    return {
        "id": name,
        "by ts": f"{namespace}:six:v1:{region}:{BEGAN_MS + number}",
        "by id": f"{namespace}:six-by-id:v1:{name}:{region}",
        "latest": f"{namespace}:six:v1:{region}:latest",
        "index": f"{namespace}:six-index:v1:{region}",
        "live": f"{namespace}:six:v1:{region}:live",
    }


class Six:
    """A producer and a reader of one region, on a client with default settings."""

    def __init__(self, client: Any, namespace: str, region: str = "mena", *, begin: int = 0) -> None:
        self._client = client
        self._namespace = namespace
        self._region = region
        self.number = begin

    def pipeline(self, payload: bytes | str, *, transaction: bool) -> Any:
        """Make a pipeline with the six commands of the next publish."""
        pipeline = self._client.pipeline(transaction=transaction)
        self.queue(pipeline, payload)
        return pipeline

    def queue(self, pipeline: Any, payload: bytes | str) -> None:
        """Queue the six commands of the next publish on a pipeline."""
        self.number += 1
        key = names(self._namespace, self._region, self.number)
        pipeline.set(key["by ts"], payload)
        pipeline.set(key["by id"], payload)
        pipeline.set(key["latest"], key["by id"])
        pipeline.zadd(key["index"], {key["id"]: BEGAN_MS + self.number})
        pipeline.zremrangebyscore(key["index"], "-inf", 0)
        pipeline.delete(key["live"])

    def publish(self, payload: bytes | str, *, transaction: bool) -> None:
        """Publish: batched, or in MULTI/EXEC."""
        self.pipeline(payload, transaction=transaction).execute()

    async def apublish(self, payload: bytes) -> None:
        """Publish in MULTI/EXEC, on an asyncio client."""
        await self.pipeline(payload, transaction=True).execute()

    def read(self) -> bytes | None:
        """Read in two steps: the pointer, then what it points at."""
        pointer = self._client.get(names(self._namespace, self._region, 0)["latest"])
        found: bytes | None = self._client.get(pointer)
        return found

    def read_number(self, number: int) -> bytes | None:
        """Read the payload of a publish whose key is known, in one step."""
        found: bytes | None = self._client.get(names(self._namespace, self._region, number)["by id"])
        return found

    async def aread(self) -> bytes | None:
        """Read in two steps, on an asyncio client."""
        pointer = await self._client.get(names(self._namespace, self._region, 0)["latest"])
        found: bytes | None = await self._client.get(pointer)
        return found


def fill_index(client: redis.Redis, namespace: str, region: str, count: int) -> None:
    """Give the index this many members, without the payloads."""
    key = names(namespace, region, 0)["index"]
    for begin in range(1, count + 1, 1000):
        numbers = range(begin, min(begin + 1000, count + 1))
        client.zadd(key, {names(namespace, region, n)["id"]: BEGAN_MS + n for n in numbers})
