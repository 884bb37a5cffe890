"""Events: what `on_event` is called with. They contain no payloads, passwords or addresses.

`on_event` is called during the operation that the event describes, in the same thread or task.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import attrs

from swapstore import arguments
from swapstore.errors import InvalidInput

__all__ = [
    "CallFailed",
    "DatasetDropped",
    "Event",
    "PublishRejected",
    "Published",
    "ReadHit",
    "ReadMiss",
    "ReadStale",
    "Repaired",
    "Retried",
    "SnapshotErased",
]

LOG = logging.getLogger("swapstore")


@attrs.frozen(kw_only=True)
class Event:
    """The base class of all events: something that happened to a dataset."""

    dataset: str


@attrs.frozen(kw_only=True)
class Published(Event):
    """A publish ended in a commit: its own, or an earlier one (`created` is False).

    `attempts` is the number of drafts that were sent: 1, and one more each time another commit came first; 0
    if the commit was found before a draft was sent. `size` is that of the payload in bytes, `stored_size`
    that of the records as they were sent: encoded, with a new base if one was brought, without the manifest;
    0 if nothing was committed. `round_trips` is the number of batches, including those shared with other
    datasets. `elapsed_s` is the duration in seconds, validators and waits included.
    `replicas` is how many replicas have the commit, if the publish asked for a `Durability`. If these are too
    few, a `CallFailed` with the error `UnderReplicated` follows.
    """

    version: int
    id: str
    ts: int
    size: int
    stored_size: int = 0
    created: bool
    is_latest: bool
    replicas: int | None = None
    attempts: int
    round_trips: int
    elapsed_s: float


@attrs.frozen(kw_only=True)
class PublishRejected(Event):
    """A validator rejected a publish. The previous version stays.

    `reason` is the text of the validator. For an exception other than `Rejected` it is the class alone,
    because the message may quote the data. `size` is that of the rejected payload in bytes.
    """

    id: str
    size: int
    reason: str


@attrs.frozen(kw_only=True)
class CallFailed(Event):
    """A call raised an error of this library. A publish that a validator rejected is a `PublishRejected`.

    `call` is the name of the method; `publish_many` and `read_latest_many` are one `publish` or `read_latest`
    for each dataset, except that a `publish_many` whose arguments are refused is one call. `health` is a call
    for each dataset that it cannot read, although it does not raise. `error` is the name of the error's
    class, without its message, which may name an address. `dataset` is empty if the call is not about one
    dataset, or if its name is not allowed.
    """

    call: str
    error: str
    elapsed_s: float


@attrs.frozen(kw_only=True)
class Retried(Event):
    """Another commit came first, so a swap (a publish, a pin, a confirmation …) is built again on top of it.

    `version` is the version that the other commit took. `id` is the id of the snapshot to be published; None
    for other swaps.
    """

    version: int
    id: str | None


@attrs.frozen(kw_only=True)
class ReadHit(Event):
    """A read was served from memory. `round_trips` is 0 within `max_staleness`; `elapsed_s` is in seconds."""

    version: int
    id: str
    size: int
    round_trips: int
    elapsed_s: float


@attrs.frozen(kw_only=True)
class ReadMiss(Event):
    """A read fetched the payload, of `size` bytes."""

    version: int
    id: str
    size: int
    round_trips: int
    elapsed_s: float


@attrs.frozen(kw_only=True)
class ReadStale(Event):
    """A read met an outage, and what this client saw last was served: see `stale_if_error`.

    `stale_s` is how many seconds ago the store showed it. `error` is the name of the error's class, of this
    read or, if another caller was trying, of the last attempt.
    """

    version: int
    id: str
    size: int
    stale_s: float
    error: str


@attrs.frozen(kw_only=True)
class Repaired(Event):
    """`repair(apply=True)` found something wrong.

    `found` is the number of findings, `left` the number of those that could not be repaired, `dropped` the
    number of snapshots whose payload is gone, `restored` the number of snapshots that are in the log again.
    `version` is the manifest's version after the repair; None: there is no readable manifest.
    """

    version: int | None
    found: int
    left: int
    dropped: int
    restored: int
    elapsed_s: float


@attrs.frozen(kw_only=True)
class SnapshotErased(Event):
    """`erase` has removed a snapshot, or what was left of it: then `id` or `version` may be None.

    `stored_anew` is how many other snapshots had been stored as differences from its content.
    """

    version: int | None
    id: str | None
    stored_anew: int
    elapsed_s: float


@attrs.frozen(kw_only=True)
class DatasetDropped(Event):
    """`drop` has removed a dataset, of which `snapshots` were left when it was called.

    `republished`: somebody has published to the dataset since it was dropped.
    """

    snapshots: int
    republished: bool
    elapsed_s: float


class Hook:
    """Calls `on_event`. Its first exception is logged, and none affects the operation."""

    def __init__(self, on_event: Callable[[Event], object]) -> None:
        self._on_event = on_event
        self._failed = False

    def __call__(self, event: Event) -> None:
        """Call the function with an event."""
        try:
            self._on_event(event)
        except Exception:
            if not self._failed:
                self._failed = True
                LOG.exception(
                    "on_event failed at %s of dataset %r; the operation is not affected, and later failures "
                    "of this on_event are not logged",
                    type(event).__name__,
                    event.dataset,
                )


def hook(on_event: Any) -> Hook:
    """Return the hook that calls this function. Raises `InvalidInput` for anything else."""
    if not callable(on_event):
        raise InvalidInput(f"on_event must be a function of an event, not {arguments.shown(on_event)}")
    if inspect.iscoroutinefunction(on_event):
        raise InvalidInput("on_event must be a plain function: it is called, not awaited")
    return Hook(on_event)
