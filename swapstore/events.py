"""What a store tells its `on_event`: one class per event, without payloads and without secrets.

Events are told as they happen, in the thread or task of the call that they are about.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import attrs

from swapstore import arguments
from swapstore.errors import InvalidInput

__all__ = ["Event", "PublishRejected", "Published", "ReadHit", "ReadMiss", "Repaired", "Retried"]

LOG = logging.getLogger("swapstore")


@attrs.frozen(kw_only=True)
class Event:
    """The base of all events: something that happened to a dataset."""

    dataset: str


@attrs.frozen(kw_only=True)
class Published(Event):
    """A publish ended in a commit: its own, or (`created` is False) one that was there before.

    `attempts` are the drafts that were sent: 1, and one more each time another commit came first; 0 when the
    commit was found before any was sent. `round_trips` are the batches, those included that were sent
    together with other datasets'. `elapsed_s` is how long it took, validators and waiting included.
    """

    version: int
    id: str
    ts: int
    size: int
    created: bool
    is_latest: bool
    attempts: int
    round_trips: int
    elapsed_s: float


@attrs.frozen(kw_only=True)
class PublishRejected(Event):
    """A validator refused a publish; the last good version stays.

    `reason` is the text that the validator gave. Of an exception that was not raised as `Rejected` it is the
    class alone: such a message may quote the data.
    """

    id: str
    size: int
    reason: str


@attrs.frozen(kw_only=True)
class Retried(Event):
    """Another commit came first, so a swap (a publish, a pin, a confirmation …) is built anew on it.

    `version` is the one that was lost to the other. `id` is that of the snapshot that was to be published;
    None: the swap was of another kind.
    """

    version: int
    id: str | None


@attrs.frozen(kw_only=True)
class ReadHit(Event):
    """A read was served from memory. `round_trips` is 0 where `max_staleness` allowed not to ask at all."""

    version: int
    id: str
    size: int
    round_trips: int
    elapsed_s: float


@attrs.frozen(kw_only=True)
class ReadMiss(Event):
    """A read had to fetch the payload."""

    version: int
    id: str
    size: int
    round_trips: int
    elapsed_s: float


@attrs.frozen(kw_only=True)
class Repaired(Event):
    """A repair that was applied, and found something wrong.

    `found`, `left`, `dropped` and `restored` are how many: findings, findings that could not be mended,
    snapshots whose payload is gone, and snapshots that are named again. `version` is the manifest's after
    it; None: there is none that can be read.
    """

    version: int | None
    found: int
    left: int
    dropped: int
    restored: int
    elapsed_s: float


class Hook:
    """Tells events to a function, whose failures are its own: the first is logged, none is raised."""

    def __init__(self, on_event: Callable[[Event], object]) -> None:
        self._on_event = on_event
        self._failed = False

    def __call__(self, event: Event) -> None:
        """Tell an event."""
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


def hook(on_event: Any) -> Hook | None:
    """Return the hook that calls this function; None for None."""
    if on_event is None:
        return None
    if not callable(on_event):
        raise InvalidInput(f"on_event must be a function of an event, not {arguments.shown(on_event)}")
    if inspect.iscoroutinefunction(on_event):
        raise InvalidInput("on_event must be a plain function: it is called, not awaited")
    return Hook(on_event)
