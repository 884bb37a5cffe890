"""What producers and readers ask of a store, without I/O: each call checks its arguments and is an operation.

`Store` runs them, `AsyncStore` awaits them. Both take their signatures and docstrings from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import attrs

from swapstore import arguments, codecs, decoders
from swapstore.errors import InvalidInput, Rejected, SwapstoreError, UnderReplicated
from swapstore.events import Published, PublishRejected
from swapstore.migration import mirror
from swapstore.models import Durability, Item, Outcomes, Validator
from swapstore.protocol import datasets as listing
from swapstore.protocol import live, pointers, read
from swapstore.protocol.batching import batched
from swapstore.protocol.context import NO_DATASET, Named, about
from swapstore.protocol.durability import asking, publish_durably, require
from swapstore.protocol.follow import Follow
from swapstore.protocol.operation import Emit, Tally, Turn
from swapstore.protocol.publish import options, publication, publish, published
from swapstore.protocol.read import History, wanted_rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from typing_extensions import TypeForm, TypeVar

    from swapstore.codecs import Codec
    from swapstore.models import Candidate, Commit, Gap, Group, LiveView, Row, Snapshot, Status
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation, Steps
    from swapstore.protocol.publish import Publication

    T = TypeVar("T", default=Any)
    S = TypeVar("S", bound=Snapshot | None)


class Calls:
    """The calls of producers and readers, on the context of one client. `kind` is the kind of store.

    `Maintenance` adds those of operators.
    """

    def __init__(self, context: Context, kind: str) -> None:
        self._context = context
        self._kind = kind

    # --- publish --------------------------------------------------------------------------------------

    def publish(
        self,
        dataset: str,
        value: Any,
        *,
        id: str | None = None,  # noqa: A002 - the public name
        ts: int | datetime | None = None,
        labels: Mapping[str, str] | None = None,
        dedupe_key: str | None = None,
        expected_version: int | None = None,
        validate: Callable[[Candidate, Snapshot | None], str | None] | None = None,
        codec: Codec = "json",
        default: Callable[[Any], Any] | None = None,
        durability: Durability | None = None,
    ) -> Operation[Commit]:
        """Publish a value as the next snapshot of a dataset. Readers see all of it, or the previous snapshot.

        - `id`: the snapshot id. Default: a new UUIDv7. Same id and content as an earlier commit: returns that
          commit (`created=False`), so a retry is safe. Other content: raises `IdConflict`.
        - `ts`: the moment that the data describes, in milliseconds since the Unix epoch or as an aware
          datetime. Default: now, but never older than the latest. A snapshot that is older than the latest
          is added to the history and does not change the latest.
        - `labels`: a mapping of strings to strings, at most 1 KiB as JSON, stored beside the payload.
        - `dedupe_key`: if one of the last 32 or more commits has this key, that commit is returned
          (`created=False`), whatever its content. If the page with its row is lost or altered,
          `PayloadMissing` or `Corrupt` is raised, and nothing is published.
        - `expected_version`: optimistic lock: the `version` of a snapshot or of the status. `Conflict` is
          raised unless the latest snapshot or the dataset still has this version; 0 means that nothing may
          be published yet.
        - `validate`: called before anything is written, with the `Candidate` and the latest snapshot (None:
          nothing is published, or its payload was lost). Returning a reason or raising refuses the publish.
          It may be called again if another producer commits first.
        - `codec`: `json` or `bytes`. `json` takes any JSON value, attrs classes, dataclasses, msgspec
          structs, pydantic models (version 2), aware datetimes, dates, times, UUIDs, Decimals, enums and
          paths, or JSON text as `msgspec.Raw`.
        - `default`: called with each part of the value that has no JSON form, as that of `json.dumps`.
          Returns what is published in its place.
        - `durability`: wait until replicas, or disks, have the commit: a `Durability`. Default: that of the
          store.

        Raises `Conflict`, `IdConflict`, `Rejected`, `TooOld` (retention would hide the snapshot at once),
        `PayloadTooLarge`, `StoreFull`, `Contended`, and `OutcomeUnknown` if the reply was lost and the store
        could not be asked for the outcome: publish again with the error's `id`. With a `durability`:
        `UnderReplicated` if it is published and too few replicas have it, `Unsupported` if the store cannot
        give it. After any of these errors, readers still see one whole version.
        """
        wanted = partial(
            publication,
            value=value,
            id=id,
            ts=ts,
            labels=labels,
            dedupe_key=dedupe_key,
            expected_version=expected_version,
            validate=validate,
            codec=codec,
            default=default,
        )
        return self._publish(dataset, wanted, durability)

    def publish_group(
        self,
        dataset: str,
        members: Mapping[str, Any],
        *,
        id: str | None = None,  # noqa: A002
        ts: int | datetime | None = None,
        labels: Mapping[str, str] | None = None,
        dedupe_key: str | None = None,
        expected_version: int | None = None,
        validate: Callable[[Candidate, Snapshot | None], str | None] | None = None,
        codec: Codec = "json",
        default: Callable[[Any], Any] | None = None,
        durability: Durability | None = None,
    ) -> Operation[Commit]:
        """Publish named members as one snapshot, a group: readers see all of them, or the group before.

        `members` maps names to values, 1 to 1,000 of them; a name follows the rule for datasets. Each member
        is stored in a record of its own, so that one is read at the price of one snapshot: see `read_group`.
        With `compression="delta"`, a member that has not changed takes next to nothing.

        The other arguments, and the errors, are those of `publish`. `validate` gets all members, in
        `Candidate.members`. `InvalidInput` and `PayloadTooLarge` name the member. A store with a mirror
        publishes no groups: the six-command layout has no place for them.
        """
        wanted = partial(
            publication,
            value=members,
            id=id,
            ts=ts,
            labels=labels,
            dedupe_key=dedupe_key,
            expected_version=expected_version,
            validate=validate,
            codec=codec,
            default=default,
            of_group=True,
        )
        return self._publish(dataset, wanted, durability, call="publish_group")

    def publish_copy(self, dataset: str, row: Row, snapshot: Snapshot) -> Operation[Commit]:
        """Publish a snapshot of another store as it is, with the time of its commit there."""
        from swapstore.protocol.copying import copy_of  # noqa: PLC0415 - few programs copy

        return self._publish(dataset, partial(copy_of, row=row, snapshot=snapshot), None)

    def _publish(
        self,
        dataset: str,
        checked: Callable[..., Publication],
        durability: Durability | None,
        *,
        call: str = "publish",
    ) -> Operation[Commit]:
        """Publish what `checked` makes of the arguments."""
        with about(self._context, call, dataset) as name:
            wanted = checked(self._context, name)
            if self._context.mirror is not None:
                mirror.refuse_what_it_cannot_write(self._context, wanted)
            under = None
            ctx = self._context if durability is None else asking(self._context, durability)
            if ctx.durability is not None:
                yield from require(ctx, ctx.durability)
            yield Turn((name,))
            try:
                if ctx.durability is None:
                    commit = yield from publish(ctx, wanted)
                else:
                    commit = yield from publish_durably(ctx, wanted, ctx.durability)
            except Rejected as error:
                size, reason = len(wanted.payload), error.reason
                self._context.emit(PublishRejected(dataset=name, id=error.id or "", size=size, reason=reason))
                raise
            except UnderReplicated as error:  # it is published
                commit, under = error.commit, error
            if self._context.hook is not None:
                yield Emit(partial(self._emit_published, commit))
            if self._context.mirror is not None:
                held = wanted.payload if commit.created else None
                yield from mirror.bring_up_to_date(self._context, self._context.mirror, name, commit, held)
            if under is not None:
                raise under
            return commit

    def publish_many(
        self,
        values: Mapping[str, Any],
        *,
        id: str | None = None,  # noqa: A002
        ts: int | datetime | None = None,
        labels: Mapping[str, str] | None = None,
        dedupe_key: str | None = None,
        validate: Validator | None = None,
        codec: Codec = "json",
        default: Callable[[Any], Any] | None = None,
        durability: Durability | None = None,
    ) -> Operation[Outcomes]:
        """Publish a value to each of several datasets.

        It takes one round trip if the store has their manifests in its cache and two if it does not, for any
        number of datasets (more only beyond `max_batch` bytes). `values` maps datasets to values; the other
        arguments are those of `publish` and apply to all datasets. An `Item` in place of a value has options
        of its own, which override them.

        Each dataset swaps by itself: a failure of one does not prevent the others from being published.
        Returns the outcome of each: its `Commit`, or the `SwapstoreError` that `publish` would have raised.
        Call `raise_for_failures()` on it, or look at each outcome. With a `durability`, all datasets are
        waited for at once, and each outcome says how many replicas have it.

        Raises only `InvalidInput`, before anything is written to any dataset: if `values` is not a mapping or
        cannot be read, if an option cannot be used (of an `Item`, the error names the dataset), or if one id
        is for several datasets of a store with a mirror. A value that cannot be published, or a name that is
        not allowed, fails its dataset alone.
        """
        for_all = {
            "id": id,
            "ts": ts,
            "labels": labels,
            "dedupe_key": dedupe_key,
            "validate": validate,
            "codec": codec,
            "default": default,
        }
        with about(self._context, "publish_many", NO_DATASET):
            if durability is not None:
                asking(self._context, durability)
            items = self._items(values, for_all)
            if self._context.mirror is not None:
                mirror.refuse_one_id(items)
        publishing = {
            name: self.publish(name, durability=durability, **attrs.asdict(item, recurse=False))
            for name, item in items.items()
        }
        return Outcomes((yield from batched(self._context, publishing)))

    def _items(self, values: Mapping[str, Any], for_all: Mapping[str, Any]) -> dict[str, Item]:
        """Return what to publish to each dataset, with all options that apply to it. They are checked."""
        if not isinstance(values, Mapping):
            raise InvalidInput(f"values must map datasets to values, not be a {type(values).__name__}")
        try:
            given = dict(values.items())
        except Exception as error:
            kind = type(error).__name__
            raise InvalidInput(f"values cannot be read: that raised {kind}") from error
        items: dict[str, Item] = {}
        for name, value in given.items():
            own = attrs.asdict(value if type(value) is Item else Item(value), recurse=False)
            own |= {option: each for option, each in for_all.items() if own[option] is None}
            items[name] = Item(own.pop("value"), **own)
            try:
                options(self._context, **own)
            except InvalidInput as error:
                error.dataset = name if type(value) is Item else None
                raise
        return items

    def published(self, dataset: str, *, dedupe_key: str) -> Operation[Commit | None]:
        """Return the commit that a `publish` with this dedupe key would return. None: it would commit.

        Ask before a computation whether its run is published already, and publish with the same key all the
        same: another producer may publish between the two. The answer reaches as far back as that of
        `publish`: over the last 32 or more commits, those included that retention hides. `created` is False.
        It asks the primary, and reads no payload. If the page with the row is lost or altered,
        `PayloadMissing` or `Corrupt` is raised, as `publish` would.
        """
        with about(self._context, "published", dataset) as name:
            return (yield from published(self._context, name, arguments.dedupe_key(dedupe_key)))

    def confirm(self, dataset: str) -> Operation[Status]:
        """Mark the data as still current without publishing: set `confirmed_at` to now.

        Raises `NotFound` if nothing is published.
        """
        with about(self._context, "confirm", dataset) as name:
            return (yield from self._swapped(name, pointers.confirm(self._context, name)))

    def put_live(
        self,
        dataset: str,
        value: Any,
        *,
        ttl: float | timedelta,
        etag: str | None = None,
        codec: Codec = "json",
        default: Callable[[Any], Any] | None = None,
    ) -> Operation[str]:
        """Store the live view: a value that was computed from one version and is invalid for any other.

        `ttl` is in seconds, or a timedelta, from 1 ms to 366 days. `etag` is the etag of the snapshot that
        the value was computed from. Default: that of the version that this store saw last; if threads share
        the store, pass `etag`. Returns the etag that the view is bound to. Raises `NotFound` if no etag is
        given and nothing is published.
        """
        with about(self._context, "put_live", dataset) as name:
            codecs.check_default(default)
            most = self._context.policy.max_payload_bytes
            payload = codecs.encode(value, codec, limit_bytes=most, default=default)
            bound_to = None if etag is None else arguments.etag(etag)
            putting = live.put_live(
                self._context, name, payload, codec=codec, ttl_ms=arguments.ttl_ms(ttl), etag=bound_to
            )
            return (yield from putting)

    # --- read -----------------------------------------------------------------------------------------

    @overload
    def read_latest(
        self,
        dataset: str,
        *,
        type: None = ...,
        max_staleness: float | timedelta = ...,
        min_version: int = ...,
    ) -> Operation[Snapshot | None]: ...
    @overload
    def read_latest(
        self,
        dataset: str,
        *,
        type: TypeForm[T],
        max_staleness: float | timedelta = ...,
        min_version: int = ...,
    ) -> Operation[Snapshot[T] | None]: ...
    def read_latest(
        self,
        dataset: str,
        *,
        type: Any = None,  # noqa: A002 - the public name
        max_staleness: float | timedelta = 0.0,
        min_version: int = 0,
    ) -> Operation[Snapshot | None]:
        """Return the snapshot that is served: the pinned one, or else the latest. None: nothing is published.

        `max_staleness` is in seconds, or a timedelta. If the store checked the manifest within that time, it
        returns the cached snapshot without a round trip. `min_version`, the version of a `Commit`, reads what
        somebody has written: the dataset must have that version, or a later one. A pinned snapshot may be
        older. Raises `Unavailable` if neither a replica nor the primary shows that version.

        `type`: decode the value to this type, as `Snapshot.value_as` does. It is decoded during the read, so
        the read raises `TypeMismatch` if the payload does not fit. Default: JSON as dicts and lists.
        """
        with about(self._context, "read_latest", dataset) as name:
            bound, least = arguments.staleness_s(max_staleness), arguments.min_version(min_version)
            if type is not None:
                decoders.decoder_of(type)  # refuses one to which nothing can be decoded
            reading = read.read_latest(self._context, name, max_staleness_s=bound, min_version=least)
            return _typed((yield from reading), type)

    def read_group(
        self,
        dataset: str,
        *,
        members: Iterable[str] | None = None,
        max_staleness: float | timedelta = 0.0,
        min_version: int = 0,
    ) -> Operation[Group | None]:
        """Return the group that is served: the pinned one, or else the latest. None: nothing is published.

        `members`: read only these members, which costs as much as to read so many snapshots. The other
        arguments are those of `read_latest`. Raises `NotFound` for a name that the group does not have, and
        `InvalidInput` if what is served is a single snapshot.
        """
        with about(self._context, "read_group", dataset) as name:
            bound, least = arguments.staleness_s(max_staleness), arguments.min_version(min_version)
            names = None if members is None else arguments.member_names(members)
            reading = read.read_group(self._context, name, names, max_staleness_s=bound, min_version=least)
            return (yield from reading)

    def remembered(
        self,
        dataset: str,
        *,
        type: Any = None,  # noqa: A002
        max_staleness: float | timedelta = 0.0,
        min_version: int = 0,
    ) -> Snapshot | None:
        """Return what `read_latest` can serve from the cache. None: it has to ask the store."""
        with about(self._context, "read_latest", dataset) as name:
            bound, least = arguments.staleness_s(max_staleness), arguments.min_version(min_version)
            if type is not None:
                decoders.decoder_of(type)  # refuses one to which nothing can be decoded
            found = read.remembered(self._context, name, bound, least) if bound else None
            return found if type is None else _typed(found, type)

    def typed(self, dataset: str, found: Snapshot | None, type: Any) -> Snapshot | None:  # noqa: A002
        """Decode the value of what another caller's `read_latest` found to this type."""
        with about(self._context, "read_latest", dataset):
            return _typed(found, type)

    @overload
    def read_latest_many(
        self, datasets: Iterable[str], *, type: None = ..., max_staleness: float | timedelta = ...
    ) -> Operation[dict[str, Snapshot | None]]: ...
    @overload
    def read_latest_many(
        self, datasets: Iterable[str], *, type: TypeForm[T], max_staleness: float | timedelta = ...
    ) -> Operation[dict[str, Snapshot[T] | None]]: ...
    def read_latest_many(
        self,
        datasets: Iterable[str],
        *,
        type: Any = None,  # noqa: A002
        max_staleness: float | timedelta = 0.0,
    ) -> Operation[dict[str, Snapshot | None]]:
        """Return the snapshot that is served of each dataset, or None for each without one.

        Like `read_latest` of each, but in one batch: two round trips at most, one if the store has the
        snapshots in its cache. If a dataset cannot be read, its error is raised after all have been read.
        """
        if not isinstance(datasets, Iterable):
            raise InvalidInput(f"datasets must be names of datasets, not a {type(datasets).__name__}")
        try:
            given = [datasets] if isinstance(datasets, str) else list(datasets)
        except Exception as error:
            kind = type(error).__name__
            raise InvalidInput(f"datasets cannot be read: that raised {kind}") from error
        names = [arguments.dataset(name) for name in given]
        reading = {name: self.read_latest(name, type=type, max_staleness=max_staleness) for name in names}
        outcomes = yield from batched(self._context, reading)
        found: dict[str, Snapshot | None] = {}
        for name, outcome in outcomes.items():
            if isinstance(outcome, SwapstoreError):
                raise outcome
            found[name] = outcome
        return found

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
        limit: int | None = 50,
        before: int | None = None,
        label: Mapping[str, str] | None = None,
        since: int | datetime | None = None,
        until: int | datetime | None = None,
    ) -> Steps[Row]:
        """Iterate over the committed rows, newest commit first.

        `limit` is the most rows to return (None: all). `before` starts below a version. Older pages are
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

    def _emit_published(self, commit: Commit, tally: Tally) -> None:
        self._context.emit(
            Published(
                dataset=commit.dataset,
                version=commit.version,
                id=commit.id,
                ts=commit.ts,
                size=commit.size,
                created=commit.created,
                is_latest=commit.is_latest,
                replicas=commit.replicas,
                attempts=len(tally.drafts),
                round_trips=tally.round_trips,
                elapsed_s=self._context.clock.monotonic() - tally.began,
            )
        )

    def _swapped(self, name: str, swap: Operation[Status]) -> Operation[Status]:
        """Run a swap other than a publish in its turn, and bring the mirror up to date."""
        yield Turn((name,))
        status = yield from swap
        if self._context.mirror is not None:
            yield from mirror.bring_up_to_date(self._context, self._context.mirror, status.dataset)
        return status


def _typed(found: S, kind: Any) -> S:
    """Decode the value of a snapshot to this type. Raises `TypeMismatch` if it does not fit."""
    if found is not None and kind is not None:
        found.__dict__["value"] = found.value_as(kind)  # where `cached_property` looks for it
    return found
