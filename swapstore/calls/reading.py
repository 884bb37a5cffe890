"""Reading: checked, and handed to the operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore import checks
from swapstore.calls.about import Named, about
from swapstore.errors import InvalidInput, SwapstoreError
from swapstore.protocol import datasets as listing
from swapstore.protocol import live, read
from swapstore.protocol.batching import together
from swapstore.protocol.follow import Follow
from swapstore.protocol.read import History

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime, timedelta

    from swapstore.models import Gap, LiveView, Row, Snapshot, Status
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation, Steps


class Reading:
    """The calls of readers."""

    _context: Context

    def read_latest(
        self, dataset: str, *, max_staleness: float | timedelta = 0.0
    ) -> Operation[Snapshot | None]:
        """Return the snapshot that is served: the pinned one, or else the latest. None: nothing is published.

        With `max_staleness` (seconds, or a timedelta) what this store last saw is served without asking,
        if it looked within that time.
        """
        with about(dataset) as name:
            bound = checks.staleness_s(max_staleness)
            return (yield from read.read_latest(self._context, name, max_staleness_s=bound))

    def remembered(self, dataset: str, *, max_staleness: float | timedelta = 0.0) -> Snapshot | None:
        """Return what `read_latest` serves without asking the store; None: it has to ask."""
        if not max_staleness:
            return None
        try:
            bound = checks.staleness_s(max_staleness)
        except InvalidInput:
            return None  # `read_latest` says what is wrong, and with which dataset
        return read.remembered(self._context, checks.dataset(dataset), bound)

    def read_latest_many(
        self, datasets: Iterable[str], *, max_staleness: float | timedelta = 0.0
    ) -> Operation[dict[str, Snapshot | None]]:
        """Return the snapshot that is served of each dataset, in two round trips at most, one when warm.

        Like `read_latest` of each, but asked together. A dataset that cannot be read raises its error, once
        all have been asked.
        """
        names = [datasets] if isinstance(datasets, str) else list(datasets)
        reading = {name: self.read_latest(name, max_staleness=max_staleness) for name in names}
        outcomes = yield from together(reading, batch_bytes=self._context.policy.max_batch_bytes)
        found: dict[str, Snapshot | None] = {}
        for name, outcome in outcomes.items():
            if isinstance(outcome, SwapstoreError):
                raise outcome
            found[name] = outcome
        return found

    def read(
        self,
        dataset: str,
        *,
        id: str | None = None,  # noqa: A002
        version: int | None = None,
        as_of: int | datetime | None = None,
    ) -> Operation[Snapshot | None]:
        """Return one committed snapshot, named by exactly one of `id`, `version` and `as_of`.

        `as_of` (ms since the Unix epoch, or an aware datetime) is the snapshot with the greatest `ts` up
        to that moment. None: there is no such snapshot in the history. A record that was staged and never
        committed is not there, whatever its id.
        """
        with about(dataset) as name:
            match (id, version, as_of):
                case (str(), None, None):
                    return (yield from read.read_id(self._context, name, checks.snapshot_id(id)))
                case (None, None, moment) if moment is not None:
                    ts = checks.timestamp_ms(moment, "as_of")
                    return (yield from read.read_as_of(self._context, name, ts))
                case (None, number, None) if number is not None:
                    number = checks.whole(number, "version", least=1)
                    return (yield from read.read_version(self._context, name, number))
            raise InvalidInput("read takes exactly one of id=, version= and as_of=")

    def status(self, dataset: str) -> Operation[Status | None]:
        """Return a dataset at a glance, without reading its payload. None: nothing is published."""
        with about(dataset) as name:
            return (yield from listing.status(self._context, name))

    def datasets(self) -> Operation[list[str]]:
        """Return the names of the datasets that have something published, in alphabetical order."""
        return (yield from listing.datasets(self._context))

    def read_live(self, dataset: str) -> Operation[LiveView | None]:
        """Return the live view, if there is one and the version it was computed on is still current."""
        with about(dataset) as name:
            return (yield from live.read_live(self._context, name))

    def history(self, dataset: str, *, limit: int | None = 50, before: int | None = None) -> Steps[Row]:
        """Iterate over the committed rows, newest commit first, loading older pages as they are reached.

        `limit` bounds how many (None: all of them); `before` starts below a version. All rows come from
        one manifest, however slowly they are read.
        """
        with about(dataset) as name:
            most = None if limit is None else checks.whole(limit, "limit", least=0)
            below = None if before is None else checks.whole(before, "before", least=0)
            return Named(name, History(self._context, name, limit=most, before=below))

    def follow(
        self, dataset: str, *, after: int | None = None, poll: float | timedelta = 2.0
    ) -> Steps[Row | Gap]:
        """Iterate over the commits of a dataset as they come, in their order: none skipped and none twice.

        It begins after the version `after`; at the oldest that is retained with 0; and unless given at the
        next commit from now on. It does not end by itself: it waits. On Redis and Valkey a hint wakes it,
        and a look at the manifest every `poll` seconds (or timedelta) at most makes up for those that are
        lost; on SQLite the look is all there is.

        Pins, rollbacks and confirmations are no commits. A `Gap` comes in the place of commits that cannot
        be given: retention let go of them, or the dataset was reset.

        Raises `Unavailable` if the store cannot be reached at the beginning. Later it tries again until the
        store is back, and logs a warning to the logger `swapstore`, one an outage. `Damaged` is raised.
        """
        with about(dataset) as name:
            begin = None if after is None else checks.whole(after, "after", least=0)
            return Named(name, Follow(self._context, name, after=begin, poll_s=checks.poll_s(poll)))
