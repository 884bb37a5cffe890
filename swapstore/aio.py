"""swapstore for asyncio: the same calls, awaited.

    import swapstore.aio

    async with swapstore.aio.connect("redis://localhost:6379/0") as store:
        await store.publish("mena", {"regime": "calm"})
        (await store.read_latest("mena")).value

`connect` makes an `AsyncStore`, which has the methods of a `Store`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from swapstore.connect import (
    ASYNC,
    DEFAULT_CACHE_BYTES,
    DEFAULT_MAX_AHEAD,
    DEFAULT_MAX_BATCH,
    DEFAULT_MAX_PAYLOAD,
    DEFAULT_MAX_REQUEST,
    DEFAULT_NAMESPACE,
    DEFAULT_PATIENCE_S,
    prepare,
)
from swapstore.store import AsyncStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from swapstore.events import Event
    from swapstore.migration.layout import Mirror
    from swapstore.models import Compression, Durability, Retention, Timeout, Validator

__all__ = ["AsyncStore", "connect"]


def connect(
    target: Any = None,
    *,
    token: str | None = None,
    namespace: str = DEFAULT_NAMESPACE,
    max_payload: int = DEFAULT_MAX_PAYLOAD,
    max_batch: int = DEFAULT_MAX_BATCH,
    max_request: int = DEFAULT_MAX_REQUEST,
    allow_http: bool = False,
    single_writer: bool = False,
    timeout: float | Timeout | None = None,
    patience: float = DEFAULT_PATIENCE_S,
    read_from: Literal["primary", "replica"] = "primary",
    compression: Compression | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    stale_if_error: float | timedelta = 0.0,
    max_ahead: timedelta | None = DEFAULT_MAX_AHEAD,
    retention: Retention | None = None,
    durability: Durability | None = None,
    mirror: Mirror | None = None,
    validators: Sequence[Validator] = (),
    on_event: Callable[[Event], object] | None = None,
) -> AsyncStore:
    """Return an `AsyncStore`. It connects when it is first used.

    The arguments and errors are those of `swapstore.connect`, except that a client must be a
    `redis.asyncio.Redis`, which is borrowed and never closed, or a `redis.asyncio.RedisCluster`.

    A SQLite file is read and written in worker threads. On Redis and Valkey, and over REST, a store belongs
    to the event loop in which it is first used: in another one, calls raise `InvalidInput`.
    """
    driver, replicas, context = prepare(
        ASYNC,
        target,
        token=token,
        max_request=max_request,
        allow_http=allow_http,
        single_writer=single_writer,
        timeout=timeout,
        patience=patience,
        read_from=read_from,
        compression=compression,
        namespace=namespace,
        max_payload=max_payload,
        max_batch=max_batch,
        cache_bytes=cache_bytes,
        stale_if_error=stale_if_error,
        max_ahead=max_ahead,
        retention=retention,
        durability=durability,
        mirror=mirror,
        validators=validators,
        on_event=on_event,
    )
    return AsyncStore(driver, context, replicas)
