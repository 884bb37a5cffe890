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
from typing import TYPE_CHECKING, Any, overload

from swapstore.connect import connect, default_store
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
    TooStale,
    TypeMismatch,
    Unavailable,
    UnderReplicated,
    Unscripted,
    Unsupported,
    UnsupportedFormat,
)
from swapstore.models import (
    Candidate,
    Commit,
    Durability,
    Entry,
    Gap,
    Group,
    Item,
    LiveView,
    Member,
    Outcomes,
    Retention,
    Row,
    Snapshot,
    Status,
    Timeout,
)
from swapstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from typing import Literal

    from typing_extensions import TypeForm, TypeVar

    from swapstore import aio as aio
    from swapstore import events as events
    from swapstore import http as http
    from swapstore.changes import Change as Change
    from swapstore.changes import Diff as Diff
    from swapstore.changes import diff as diff
    from swapstore.codecs import Codec
    from swapstore.doctor.check import Check as Check
    from swapstore.doctor.check import Node as Node
    from swapstore.doctor.check import Verdict as Verdict
    from swapstore.fsck.findings import Finding as Finding
    from swapstore.fsck.findings import Problem as Problem
    from swapstore.fsck.findings import Progress as Progress
    from swapstore.fsck.findings import Repair as Repair
    from swapstore.health import Bound as Bound
    from swapstore.health import DatasetHealth as DatasetHealth
    from swapstore.health import Health as Health
    from swapstore.migration.layout import Mirror as Mirror
    from swapstore.reports import Copied as Copied
    from swapstore.reports import CopyStep as CopyStep
    from swapstore.reports import Dropped as Dropped
    from swapstore.reports import Erased as Erased
    from swapstore.reports import Pruned as Pruned
    from swapstore.reports import Recompressed as Recompressed
    from swapstore.views import View as View
    from swapstore.views import ViewedDataset as ViewedDataset
    from swapstore.views import ViewHealth as ViewHealth

    T = TypeVar("T", default=Any)

__version__ = "0.1.0"  # the only place that states it: pyproject.toml reads it here

__all__ = [
    "AccessDenied",
    "Bound",
    "Candidate",
    "Change",
    "Check",
    "Commit",
    "Conflict",
    "Contended",
    "Copied",
    "CopyStep",
    "Corrupt",
    "Damaged",
    "DatasetHealth",
    "Diff",
    "Dropped",
    "Durability",
    "Entry",
    "Erased",
    "Finding",
    "Gap",
    "Group",
    "Health",
    "IdConflict",
    "InvalidInput",
    "Item",
    "LeaseLost",
    "LiveView",
    "Member",
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
    "TooStale",
    "TypeMismatch",
    "Unavailable",
    "UnderReplicated",
    "Unscripted",
    "Unsupported",
    "UnsupportedFormat",
    "Verdict",
    "View",
    "ViewHealth",
    "ViewedDataset",
    "connect",
    "copy",
    "diff",
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
    count: int | None = None,
    dedupe_key: str | None = None,
    expected_version: int | None = None,
    validate: Callable[[Candidate, Snapshot | None], str | None] | None = None,
    codec: Codec = "json",
    default: Callable[[Any], Any] | None = None,
    durability: Durability | None = None,
) -> Commit:
    """Publish to the default store; see `Store.publish`."""
    return default_store().publish(
        dataset,
        value,
        id=id,
        ts=ts,
        labels=labels,
        count=count,
        dedupe_key=dedupe_key,
        expected_version=expected_version,
        validate=validate,
        codec=codec,
        default=default,
        durability=durability,
    )


@overload
def read_latest(
    dataset: str,
    *,
    type: None = ...,
    max_staleness: float | timedelta = ...,
    min_version: int = ...,
    stale_if_error: float | timedelta | None = ...,
    max_age: float | timedelta | None = ...,
) -> Snapshot | None: ...
@overload
def read_latest(
    dataset: str,
    *,
    type: TypeForm[T],
    max_staleness: float | timedelta = ...,
    min_version: int = ...,
    stale_if_error: float | timedelta | None = ...,
    max_age: float | timedelta | None = ...,
) -> Snapshot[T] | None: ...
def read_latest(
    dataset: str,
    *,
    type: Any = None,  # noqa: A002
    max_staleness: float | timedelta = 0.0,
    min_version: int = 0,
    stale_if_error: float | timedelta | None = None,
    max_age: float | timedelta | None = None,
) -> Snapshot | None:
    """Read the latest snapshot from the default store; see `Store.read_latest`."""
    return default_store().read_latest(
        dataset,
        type=type,
        max_staleness=max_staleness,
        min_version=min_version,
        stale_if_error=stale_if_error,
        max_age=max_age,
    )


def copy(
    source: Store,
    target: Store,
    datasets: Iterable[str] | str | None = None,
    *,
    history: Literal["all", "latest"] | int = "all",
    on_progress: Callable[[CopyStep], object] | None = None,
    follow: bool = False,
    poll: float | timedelta = 2.0,
) -> list[Copied]:
    """Copy datasets from one store to another, of whatever kinds: each snapshot as it is, in their order.

    Ids, `ts`, labels, payloads, dedupe keys, members of groups and the times of commits are kept. Versions
    are those of the target. Its compression, retention, validators and other options apply. Every payload is
    checked against its digest. Rollbacks, confirmations and live views are not copied.

    A pin is copied with a dataset that the target has not yet: the pinned snapshot comes first, and its
    commit pins it. So a restored store never serves what was pinned away. The pin of a target that has the
    dataset stays as it is, and so does that of one that the copy has pinned, whatever is pinned or unpinned
    in the source later. With `history="latest"`, and if the target has validators, no pin is copied.

    A call copies what the target has not yet. So it can be cut short anywhere and run again, and producers
    can publish to the source at the same time. What is published after the call begins is left to the next.

    - `datasets`: names, or one name. Default: all.
    - `history`: `"all"`; the number of newest commits, and what is latest and pinned; or `"latest"`: the
      snapshot that the source serves. If retention of the target keeps fewer commits, only these are copied.
    - `on_progress`: called with a `CopyStep` after each snapshot.
    - `follow`: go on with what is published, in new datasets too, until another thread closes one of the
      stores. `history` bounds what is there at first, not what comes later. An outage of either one is waited
      for; one warning for each is logged to the logger `swapstore`. Nothing is removed from the target that
      is unlinked from the source later.
    - `poll`: when following, the time between two looks at the source, in seconds or a timedelta.

    Returns a `Copied` for each dataset: look at its `failures`. A snapshot that cannot be copied does not
    stop the others. An id that the target has with other content ends the copy of that dataset.

    Raises `NotFound` if nothing is published in the source, or not in a dataset that is named, and
    `Unavailable`, `Misconfigured` and their subclasses if one of the stores cannot serve. What was copied
    stays then.
    """
    from swapstore import copying  # noqa: PLC0415 - few programs need it

    return copying.copy(
        source, target, datasets, history=history, on_progress=on_progress, follow=follow, poll=poll
    )


if not TYPE_CHECKING:
    _LATER = {
        "changes": {"Change", "Diff", "diff"},
        "doctor.check": {"Check", "Node", "Verdict"},
        "fsck.findings": {"Finding", "Problem", "Progress", "Repair"},
        "health": {"Bound", "DatasetHealth", "Health"},
        "migration.layout": {"Mirror"},
        "reports": {"Copied", "CopyStep", "Dropped", "Erased", "Pruned", "Recompressed"},
        "views": {"View", "ViewHealth", "ViewedDataset"},
    }

    def __getattr__(name: str) -> Any:
        """Import at first use what most programs do not need: asyncio, events, HTTP, views, diff, reports."""
        if name in {"aio", "events", "http"}:
            return import_module(f"swapstore.{name}")
        for module, names in _LATER.items():
            if name in names:
                return getattr(import_module(f"swapstore.{module}"), name)
        raise AttributeError(f"module 'swapstore' has no attribute {name!r}")
