"""What readers ask of a store, without I/O: each call checks its arguments and is an operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from swapstore import arguments, decoders
from swapstore.errors import InvalidInput, SwapstoreError
from swapstore.protocol import datasets as listing
from swapstore.protocol import last_good, live, read
from swapstore.protocol.batching import batched
from swapstore.protocol.context import NO_DATASET, Named, about
from swapstore.protocol.follow import Follow, FollowMany
from swapstore.protocol.last_good import Terms
from swapstore.protocol.read import History, wanted_rows

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from typing_extensions import TypeForm, TypeVar

    from swapstore.models import Gap, Group, LiveView, Row, Snapshot, Status
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation, Steps

    T = TypeVar("T", default=Any)
    S = TypeVar("S", bound=Snapshot | None)


class Reads:
    """The calls of readers, on the context of one client. `kind` is the kind of store."""

    def __init__(self, context: Context, kind: str) -> None:
        self._context = context
        self._kind = kind

    @overload
    def read_latest(
        self,
        dataset: str,
        *,
        type: None = ...,
        max_staleness: float | timedelta = ...,
        min_version: int = ...,
        stale_if_error: float | timedelta | None = ...,
        max_age: float | timedelta | None = ...,
    ) -> Operation[Snapshot | None]: ...
    @overload
    def read_latest(
        self,
        dataset: str,
        *,
        type: TypeForm[T],
        max_staleness: float | timedelta = ...,
        min_version: int = ...,
        stale_if_error: float | timedelta | None = ...,
        max_age: float | timedelta | None = ...,
    ) -> Operation[Snapshot[T] | None]: ...
    def read_latest(
        self,
        dataset: str,
        *,
        type: Any = None,  # noqa: A002 - the public name
        max_staleness: float | timedelta = 0.0,
        min_version: int = 0,
        stale_if_error: float | timedelta | None = None,
        max_age: float | timedelta | None = None,
    ) -> Operation[Snapshot | None]:
        """Return the snapshot that is served: the pinned one, or else the latest. None: nothing is published.

        Times are in seconds, or timedeltas.

        - `max_staleness`: if the store checked the manifest within that time, the cached snapshot is returned
          without a round trip.
        - `min_version`: the version of a `Commit`, to read what somebody has written: the dataset must have
          that version, or a later one. A pinned snapshot may be older. `Unavailable` is raised if neither a
          replica nor the primary shows that version.
        - `stale_if_error`: in an outage (`Unavailable`), return what this store object returned last, if the
          store showed no longer ago than this that it is current. `Snapshot.stale` is then True. The call
          tries once, within the time-out and without `patience`, or not at all while another caller tries.
          Default: that of the store. 0: raise.
        - `max_age`: raise `TooStale` if a producer last published or confirmed what is returned longer ago
          than this (`Snapshot.confirmed_at`), or the store showed it longer ago (`Snapshot.seen_at`).
          Default: any age.
        - `type`: decode the value to this type, as `Snapshot.value_as` does. It is decoded during the read,
          so the read raises `TypeMismatch` if the payload does not fit. Default: JSON as dicts and lists.
        """
        with about(self._context, "read_latest", dataset) as name:
            bound, least = arguments.staleness_s(max_staleness), arguments.min_version(min_version)
            if type is not None:
                decoders.decoder_of(type)  # refuses one to which nothing can be decoded
            terms = self.terms(stale_if_error, max_age, min_version=least)
            if terms is None:
                reading = read.read_latest(self._context, name, max_staleness_s=bound, min_version=least)
                return _typed((yield from reading), type)
            reading = read.read_latest(self._context, name, min_version=least)
            return _typed((yield from last_good.read_one(self._context, name, reading, bound, terms)), type)

    def read_group(
        self,
        dataset: str,
        *,
        members: Iterable[str] | None = None,
        max_staleness: float | timedelta = 0.0,
        min_version: int = 0,
        stale_if_error: float | timedelta | None = None,
        max_age: float | timedelta | None = None,
    ) -> Operation[Group | None]:
        """Return the group that is served: the pinned one, or else the latest. None: nothing is published.

        `members`: read only these members, which costs as much as to read so many snapshots. The other
        arguments are those of `read_latest`. Raises `NotFound` for a name that the group does not have, and
        `InvalidInput` if what is served is a single snapshot. In an outage, members are there that this store
        object returned of the version that it returned last.
        """
        with about(self._context, "read_group", dataset) as name:
            bound, least = arguments.staleness_s(max_staleness), arguments.min_version(min_version)
            names = None if members is None else arguments.member_names(members)
            reading = partial(read.read_group, self._context, name, names, min_version=least)
            terms = self.terms(stale_if_error, max_age, min_version=least, names=names, of_group=True)
            if terms is None:
                return (yield from reading(max_staleness_s=bound))
            return (yield from last_good.read_one(self._context, name, reading(), bound, terms))

    def typed(self, dataset: str, found: Snapshot | None, type: Any) -> Snapshot | None:  # noqa: A002
        """Decode the value of what another caller's `read_latest` found to this type."""
        with about(self._context, "read_latest", dataset):
            return _typed(found, type)

    @overload
    def read_latest_many(
        self,
        datasets: Iterable[str],
        *,
        type: None = ...,
        max_staleness: float | timedelta = ...,
        stale_if_error: float | timedelta | None = ...,
        max_age: float | timedelta | None = ...,
    ) -> Operation[dict[str, Snapshot | None]]: ...
    @overload
    def read_latest_many(
        self,
        datasets: Iterable[str],
        *,
        type: TypeForm[T],
        max_staleness: float | timedelta = ...,
        stale_if_error: float | timedelta | None = ...,
        max_age: float | timedelta | None = ...,
    ) -> Operation[dict[str, Snapshot[T] | None]]: ...
    def read_latest_many(
        self,
        datasets: Iterable[str],
        *,
        type: Any = None,  # noqa: A002
        max_staleness: float | timedelta = 0.0,
        stale_if_error: float | timedelta | None = None,
        max_age: float | timedelta | None = None,
    ) -> Operation[dict[str, Snapshot | None]]:
        """Return the snapshot that is served of each dataset, or None for each without one.

        Like `read_latest` of each, but in one batch: two round trips at most, one if the store has the
        snapshots in its cache. If a dataset cannot be read, its error is raised after all have been read.
        In an outage, `patience` is spent if there is nothing to serve of one of them.
        """
        names = arguments.datasets(datasets)
        if type is not None:
            decoders.decoder_of(type)
        terms = self.terms(stale_if_error, max_age)
        found: dict[str, Snapshot | None] = {}
        if terms is not None:
            bound = arguments.staleness_s(max_staleness)
            found = yield from last_good.read_many(self._context, names, bound, terms)
            return {name: self.typed(name, each, type) for name, each in found.items()}
        reading = {name: self.read_latest(name, type=type, max_staleness=max_staleness) for name in names}
        outcomes = yield from batched(self._context, reading)
        for name, outcome in outcomes.items():
            if isinstance(outcome, SwapstoreError):
                raise outcome
            found[name] = outcome
        return found

    def remembered(
        self,
        dataset: str,
        *,
        type: Any = None,  # noqa: A002
        max_staleness: float | timedelta = 0.0,
        min_version: int = 0,
        stale_if_error: float | timedelta | None = None,
        max_age: float | timedelta | None = None,
    ) -> Snapshot | None:
        """Return what `read_latest` can serve without I/O. None: it has to ask the store."""
        with about(self._context, "read_latest", dataset) as name:
            bound, least = arguments.staleness_s(max_staleness), arguments.min_version(min_version)
            if type is not None:
                decoders.decoder_of(type)  # refuses one to which nothing can be decoded
            if stale_if_error is None and max_age is None and not self._context.policy.stale_if_error_s:
                found = read.remembered(self._context, name, bound, least) if bound else None
                return found if type is None else _typed(found, type)
            terms = Terms.of(self._context, stale_if_error, max_age, min_version=least)
            return _typed(last_good.at_once(self._context, name, bound, terms), type)

    def terms(self, stale_if_error: Any, max_age: Any, **others: Any) -> Terms | None:
        """Check what a reader takes. None: nothing but what is fresh, of any age."""
        if stale_if_error is None and max_age is None and not self._context.policy.stale_if_error_s:
            return None
        return Terms.of(self._context, stale_if_error, max_age, **others)

    @overload
    def read(
        self,
        dataset: str,
        *,
        type: None = ...,
        id: str | None = ...,
        version: int | None = ...,
        as_of: int | datetime | None = ...,
    ) -> Operation[Snapshot | None]: ...
    @overload
    def read(
        self,
        dataset: str,
        *,
        type: TypeForm[T],
        id: str | None = ...,
        version: int | None = ...,
        as_of: int | datetime | None = ...,
    ) -> Operation[Snapshot[T] | None]: ...
    def read(
        self,
        dataset: str,
        *,
        type: Any = None,  # noqa: A002
        id: str | None = None,  # noqa: A002
        version: int | None = None,
        as_of: int | datetime | None = None,
    ) -> Operation[Snapshot | None]:
        """Return one committed snapshot. Give exactly one of `id`, `version` and `as_of`.

        `as_of` (milliseconds since the Unix epoch, or an aware datetime) finds the snapshot with the greatest
        `ts` up to that moment. None: the history has no such snapshot. Pins and rollbacks do not affect it,
        and a snapshot that was staged and never committed is not found. `type`: see `read_latest`.
        """
        with about(self._context, "read", dataset) as name:
            if type is not None:
                decoders.decoder_of(type)  # refuses one to which nothing can be decoded
            match (id, version, as_of):
                case (str(), None, None):
                    reading = read.read_id(self._context, name, arguments.snapshot_id(id))
                case (None, None, moment) if moment is not None:
                    ts = arguments.timestamp_ms(moment, "as_of")
                    reading = read.read_as_of(self._context, name, ts)
                case (None, number, None) if number is not None:
                    number = arguments.whole(number, "version", least=1)
                    reading = read.read_version(self._context, name, number)
                case _:
                    raise InvalidInput("read takes exactly one of id=, version= and as_of=")
            return _typed((yield from reading), type)

    def status(self, dataset: str) -> Operation[Status | None]:
        """Return a summary of a dataset, without reading its payload. None: nothing is published."""
        with about(self._context, "status", dataset) as name:
            return (yield from listing.status(self._context, name))

    def datasets(self) -> Operation[list[str]]:
        """Return the names of all datasets with at least one published snapshot, in alphabetical order."""
        with about(self._context, "datasets", NO_DATASET):
            return (yield from listing.datasets(self._context))

    def read_live(self, dataset: str) -> Operation[LiveView | None]:
        """Return the live view if there is one and its version is still current, else None."""
        with about(self._context, "read_live", dataset) as name:
            return (yield from live.read_live(self._context, name))

    def history(
        self,
        dataset: str,
        *,
        limit: int | None = None,
        before: int | None = None,
        label: Mapping[str, str] | None = None,
        since: int | datetime | None = None,
        until: int | datetime | None = None,
    ) -> Steps[Row]:
        """Iterate over the committed rows, newest commit first.

        `limit` is the most rows to return (default: all). `before` starts below a version. Older pages are
        loaded when the iteration reaches them. All rows come from one manifest, however slowly they are read.

        `label` returns only rows that have all of these labels. `since` and `until` (milliseconds since the
        Unix epoch, or aware datetimes) return only rows with a `ts` of `since` or later, and earlier than
        `until`. The iteration goes on until it has found `limit` such rows, or has seen the whole history. It
        takes a round trip for every 128 commits that it looks at. `since` and `until` skip the pages whose
        times lie outside, so a week out of years takes a few round trips. A `label` skips none, so a rare one
        without `since` takes as many as the whole history.
        """
        with about(self._context, "history", dataset) as name:
            most = None if limit is None else arguments.whole(limit, "limit", least=0)
            below = None if before is None else arguments.whole(before, "before", least=0)
            wanted = wanted_rows(label, since, until)
            steps = History(self._context, name, limit=most, before=below, wanted=wanted)
            return Named(self._context, "history", name, steps)

    def follow(
        self, dataset: str, *, after: int | None = None, poll: float | timedelta = 2.0
    ) -> Steps[Row | Gap]:
        """Iterate over the commits of a dataset in order, as they come, none skipped and none twice.

        `after` is a version: start after it. 0: start with the oldest commit that is retained. Default: start
        with the next commit after this call. The iterator does not end by itself: it waits for the next
        commit. On Redis and Valkey a hint wakes it; `poll` (seconds, or a timedelta) is the longest time
        until a commit is seen whose hint was lost. On SQLite there are no hints.

        Only commits that published a snapshot are returned. A `Gap` takes the place of those that cannot be:
        retention unlinked them, or the store went back (a flush, a restored backup, a failover that lost
        some). One of the last 4,096 comes twice only after such a `Gap`, if it was published again.

        Raises `Unavailable` if the store cannot be reached at the beginning, within `patience`. Later it
        retries until the store is back, and logs one warning for each outage to the logger `swapstore`.
        Raises `Damaged` for damage that it meets, and `Misconfigured` for what waiting does not cure.
        """
        with about(self._context, "follow", dataset) as name:
            begin = None if after is None else arguments.whole(after, "after", least=0)
            following = Follow(self._context, name, after=begin, poll_s=arguments.poll_s(poll))
            return Named(self._context, "follow", name, following)

    def follow_many(
        self, datasets: Iterable[str] | Mapping[str, int], *, poll: float | timedelta = 2.0
    ) -> Steps[tuple[str, Row | Gap]]:
        """Iterate over the commits of several datasets: pairs of a dataset and its `Row` or `Gap`.

        Like `follow` of each, in one thread or task and over one connection, however many they are.
        `datasets` are names, each of which starts with the next commit after this call, or a mapping of names
        to the versions to start after. The commits of each dataset come in order.

        Damage of one dataset ends the iteration. The error names it; start again without it, after the
        versions that were returned.
        """
        with about(self._context, "follow_many", NO_DATASET):
            after: dict[str, int | None] = dict.fromkeys(arguments.datasets(datasets))
            if isinstance(datasets, Mapping):
                after = {name: arguments.whole(datasets[name], "after", least=0) for name in after}
            following = FollowMany(self._context, after, poll_s=arguments.poll_s(poll))
            return Named(self._context, "follow_many", NO_DATASET, following)


def _typed(found: S, kind: Any) -> S:
    """Decode the value of a snapshot to this type. Raises `TypeMismatch` if it does not fit."""
    if found is not None and kind is not None:
        found.__dict__["value"] = found.value_as(kind)  # where `cached_property` looks for it
    return found
