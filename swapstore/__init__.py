"""swapstore: atomic, versioned snapshots on Redis, Valkey, Upstash or SQLite.

Readers get the new version or the previous one, never a mix.

    import swapstore

    store = swapstore.connect("redis://localhost:6379/0")
    store.publish("mena", {"regime": "calm"})
    store.read_latest("mena").value

The module-level functions use the default store: `$SWAPSTORE_URL`, or else `$UPSTASH_REDIS_REST_URL`, or
else an embedded SQLite file. `swapstore.aio` has the same calls for asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from swapstore.connect import connect, default_store
from swapstore.doctor.check import Check, Node, Verdict
from swapstore.errors import (
    AccessDenied,
    Conflict,
    Contended,
    Corrupt,
    Damaged,
    IdConflict,
    InvalidInput,
    LeaseLost,
    Misconfigured,
    NotFound,
    OutcomeUnknown,
    PayloadMissing,
    PayloadTooLarge,
    ReadOnly,
    Refused,
    Rejected,
    ReplyLost,
    SomeFailed,
    StoreClosed,
    StoreFull,
    SwapstoreError,
    Throttled,
    TooOld,
    Unavailable,
    UnderReplicated,
    Unscripted,
    Unsupported,
    UnsupportedFormat,
)
from swapstore.fsck.findings import Finding, Problem, Progress, Repair
from swapstore.migration.layout import Mirror
from swapstore.models import (
    Candidate,
    Commit,
    Dropped,
    Durability,
    Entry,
    Erased,
    Gap,
    LiveView,
    Outcomes,
    Pruned,
    Recompressed,
    Retention,
    Row,
    Snapshot,
    Status,
    Timeout,
)
from swapstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta

    from swapstore import aio as aio
    from swapstore.codecs import Codec

__version__ = "0.1.0"  # the only place that states it: pyproject.toml reads it here

__all__ = [
    "AccessDenied",
    "Candidate",
    "Check",
    "Commit",
    "Conflict",
    "Contended",
    "Corrupt",
    "Damaged",
    "Dropped",
    "Durability",
    "Entry",
    "Erased",
    "Finding",
    "Gap",
    "IdConflict",
    "InvalidInput",
    "LeaseLost",
    "LiveView",
    "Mirror",
    "Misconfigured",
    "Node",
    "NotFound",
    "OutcomeUnknown",
    "Outcomes",
    "PayloadMissing",
    "PayloadTooLarge",
    "Problem",
    "Progress",
    "Pruned",
    "ReadOnly",
    "Recompressed",
    "Refused",
    "Rejected",
    "Repair",
    "ReplyLost",
    "Retention",
    "Row",
    "Snapshot",
    "SomeFailed",
    "Status",
    "Store",
    "StoreClosed",
    "StoreFull",
    "SwapstoreError",
    "Throttled",
    "Timeout",
    "TooOld",
    "Unavailable",
    "UnderReplicated",
    "Unscripted",
    "Unsupported",
    "UnsupportedFormat",
    "Verdict",
    "connect",
    "publish",
    "read_latest",
]


def publish(
    dataset: str,
    value: Any,
    *,
    id: str | None = None,  # noqa: A002
    ts: int | datetime | None = None,
    labels: Mapping[str, str] | None = None,
    dedupe_key: str | None = None,
    expected_version: int | None = None,
    validate: Callable[[Candidate, Snapshot | None], str | None] | None = None,
    codec: Codec = "json",
    durability: Durability | None = None,
) -> Commit:
    """Publish to the default store; see `Store.publish`."""
    return default_store().publish(
        dataset,
        value,
        id=id,
        ts=ts,
        labels=labels,
        dedupe_key=dedupe_key,
        expected_version=expected_version,
        validate=validate,
        codec=codec,
        durability=durability,
    )


def read_latest(
    dataset: str, *, max_staleness: float | timedelta = 0.0, min_version: int = 0
) -> Snapshot | None:
    """Read the latest snapshot from the default store; see `Store.read_latest`."""
    return default_store().read_latest(dataset, max_staleness=max_staleness, min_version=min_version)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import `swapstore.aio` at first use: most programs do not need asyncio."""
        if name == "aio":
            return import_module("swapstore.aio")
        raise AttributeError(f"module 'swapstore' has no attribute {name!r}")
