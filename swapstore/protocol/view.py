"""View: keep the served snapshots of several datasets in memory, and up to date.

A look at all compares the first bytes of each manifest, its etag, with those that were seen last, all in one
batch. A replica may answer it. What differs is read as `read_latest` reads it, and after a hint the datasets
that it names are, at once: after the first look from the primary, because a replica may be behind.

What is held is replaced only by what the store has shown in a later look. An outage, or damage, replaces
nothing. Readers in other threads see `held` while it changes, one dataset at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from swapstore.commands import Failed, Members, Peek
from swapstore.errors import Damaged, SwapstoreError
from swapstore.format import manifest
from swapstore.protocol.batching import batched
from swapstore.protocol.load import ask_all
from swapstore.protocol.operation import Operation, portions
from swapstore.protocol.read import read_latest
from swapstore.protocol.watch import Looked, Watch, warn_of_lost

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from swapstore.models import Snapshot
    from swapstore.protocol.context import Context

TOGETHER = 250  # datasets that are looked at in one batch


class Viewing(Watch[str]):
    """Keeps `held` up to date. Each step returns the names of the datasets whose served snapshot changed.

    Of these dicts, which other threads may read: `held` has the snapshots (None: nothing is published),
    `current_at` when the store last confirmed them (monotonic seconds), and `errors` why the last look at a
    dataset failed. `listed_at` is when it last listed the names with the prefix: the others are not
    published. `ready`: every dataset has been looked at. `connected`: the last look got an answer.

    A look returns changed names until `told` is called with them. So none is lost if a look or what is done
    with its result is cut: by an error at the start, which is tried again, or in a child process.
    """

    _done = "kept current"

    def __init__(self, ctx: Context, names: Iterable[str], *, prefix: str | None, poll_s: float) -> None:
        self.names = tuple(names)
        super().__init__(ctx, self.names, prefix=prefix, poll_s=poll_s)
        self._what = f"the view of {self._what}"
        self._primary = msgspec.structs.replace(
            ctx, policy=msgspec.structs.replace(ctx.policy, reads_replicas=False)
        )
        self._marks: dict[str, bytes] = {}  # the first bytes of each manifest; empty: there is none
        self._untold: dict[str, None] = {}
        self.held: dict[str, Snapshot | None] = {}
        self.current_at: dict[str, float] = {}
        self.listed_at = 0.0
        self.errors: dict[str, SwapstoreError] = {}
        self.last_error: SwapstoreError | None = None
        self.ready = False
        self.connected = False

    def begin(self) -> Operation[list[str]]:
        """Look at all for the first time. Raises why a dataset cannot be read, unless it is damaged."""
        looked = yield from self.look(None)
        if looked.failure is not None:
            raise looked.failure
        return looked.found

    def look(self, due: Collection[str] | None) -> Operation[Looked[str]]:
        """Look at these datasets, or at all."""
        began = self._ctx.clock.monotonic()
        ctx = self._ctx.reading() if due is None else self._primary
        reading = self._primary if self.ready else ctx
        failure: SwapstoreError | None = None
        names: Collection[str] = due if due is not None else self.names or list(self.held)
        gone: list[str] = []
        try:
            if due is None and self._prefix is not None:
                names, failure = yield from self._listed(ctx, self._prefix, began)
            for some in portions(names, lambda _: 1, room=TOGETHER):
                wanted = list(some)
                if due is None:
                    wanted = yield from self._changed(ctx, wanted, began)
                outcomes = yield from batched(ctx, {name: read_latest(reading, name) for name in wanted})
                for name, outcome in outcomes.items():
                    if isinstance(outcome, SwapstoreError):
                        self.errors[name] = outcome
                    else:
                        if outcome is None and self.held.get(name) is not None:
                            gone.append(name)
                        self._show(name, outcome, began)
            yield from warn_of_lost(self._primary, gone)
            failures = (self.errors[name] for name in names if name in self.errors)
            failure = failure or next((error for error in failures if not isinstance(error, Damaged)), None)
        except SwapstoreError as error:
            failure = error
            self.errors |= dict.fromkeys(names, error)
        self._note_look(failure, everywhere=due is None)
        return Looked(list(self._untold), failure=failure)

    def told(self, names: Iterable[str]) -> None:
        """Forget that these datasets changed: everybody has been told."""
        for name in names:
            self._untold.pop(name, None)

    def _note_look(self, failure: SwapstoreError | None, *, everywhere: bool) -> None:
        self.last_error = failure or self.last_error
        self.connected = failure is None and (everywhere or self.connected)
        self.ready |= everywhere and failure is None

    def _listed(
        self, ctx: Context, prefix: str, began: float
    ) -> Operation[tuple[list[str], SwapstoreError | None]]:
        """Return the names of the datasets that begin with the prefix, and of those that did before.

        Of those alone, and the error, if the list is refused: on a cluster only its node may be down.
        """
        names = {*self.held, *self.errors}
        (listed,) = yield from ask_all(ctx, [Members(ctx.keys.datasets())])
        if isinstance(listed, Failed):
            return sorted(names), listed.error
        self.listed_at = began
        return sorted(names | {name for name in listed if name.startswith(prefix)}), None

    def _changed(self, ctx: Context, names: Sequence[str], began: float) -> Operation[list[str]]:
        """Return the datasets whose manifest is not the one that was seen last, or was never seen."""
        known = [name for name in names if name in self._marks]
        peeks = [Peek(ctx.keys.manifest(name), max(1, len(self._marks[name]))) for name in known]
        replies = yield from ask_all(ctx, peeks)
        changed = [name for name in names if name not in self._marks]
        for name, reply in zip(known, replies, strict=True):
            if isinstance(reply, Failed):
                self.errors[name] = reply.error
            elif reply != self._marks[name]:
                changed.append(name)
            else:
                self.current_at[name] = began
                self.errors.pop(name, None)
        return changed

    def _show(self, name: str, snapshot: Snapshot | None, began: float) -> None:
        """Hold what a look at `began` found.

        The mark is set last: if this is cut, by a fork of the process, the next look reads once more.
        """
        before = self.held.get(name)
        is_same = _described(snapshot) == _described(before)
        if not is_same:
            self._untold[name] = None
        if snapshot is None and self._prefix is not None:
            for known in (self.held, self.current_at, self._marks, self.errors):
                known.pop(name, None)
            return
        self.current_at[name] = began
        self.held[name] = _renewed(before, snapshot) if is_same and before and snapshot else snapshot
        self.errors.pop(name, None)
        self._marks[name] = self._mark(name, snapshot)

    def _mark(self, name: str, snapshot: Snapshot | None) -> bytes:
        if snapshot is not None:
            return manifest.prefix(snapshot.etag)
        known = self._ctx.cache.known(self._ctx.keys.manifest(name))
        if known is not None and known.manifest.head.is_dropped:
            return manifest.prefix(known.manifest.etag)
        return b""


def _described(snapshot: Snapshot | None) -> tuple[object, ...] | None:
    """Return all that tells a snapshot from another one: all but its etag, which a confirmation changes."""
    if snapshot is None:
        return None
    found = snapshot
    return (
        *(found.id, found.version, found.ts, found.committed_at),
        *(found.sha256, found.size, found.codec, tuple(found.labels.items())),
    )


def _renewed(before: Snapshot, now: Snapshot) -> Snapshot:
    """Return the same snapshot, read through a later manifest, with all that was decoded of it before."""
    made = object.__new__(type(before))
    later = {"etag": now.etag, "confirmed_at": now.confirmed_at, "seen_at": now.seen_at}
    made.__dict__.update(before.__dict__, **later)
    return made
