"""What producers ask of a store, and readers (`reads.py`), without I/O.

Each call checks its arguments and is an operation. `Store` runs them, `AsyncStore` awaits them. Both take
their signatures and docstrings from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from swapstore import arguments, codecs
from swapstore.errors import InvalidInput, Rejected, UnderReplicated
from swapstore.migration import mirror
from swapstore.models import Durability, Item, Outcomes, Validator
from swapstore.protocol import last_good, live, pointers
from swapstore.protocol.batching import batched
from swapstore.protocol.context import NO_DATASET, about
from swapstore.protocol.durability import asking, publish_durably, require
from swapstore.protocol.operation import Emit, Tally, Turn
from swapstore.protocol.publish import options, publication, publish, published
from swapstore.reads import Reads

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from typing_extensions import TypeVar

    from swapstore.codecs import Codec
    from swapstore.models import Candidate, Commit, Row, Snapshot, Status
    from swapstore.protocol.operation import Operation
    from swapstore.protocol.publish import Publication

    T = TypeVar("T", default=Any)
    S = TypeVar("S", bound=Snapshot | None)


class Calls(Reads):
    """The calls of producers and readers, on the context of one client.

    `Maintenance` adds those of operators.
    """

    # --- publish --------------------------------------------------------------------------------------

    def publish(
        self,
        dataset: str,
        value: Any,
        *,
        id: str | None = None,  # noqa: A002 - the public name
        ts: int | datetime | None = None,
        labels: Mapping[str, str] | None = None,
        count: int | None = None,
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
        - `count`: how much the value holds, such as its number of rows, by your own count. It is stored as
          the label `count`. `Store.health` and `validators.at_least` compare it with a minimum.
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
            count=count,
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
        count: int | None = None,
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
            count=count,
            dedupe_key=dedupe_key,
            expected_version=expected_version,
            validate=validate,
            codec=codec,
            default=default,
            of_group=True,
        )
        return self._publish(dataset, wanted, durability, call="publish_group")

    def publish_copy(
        self, dataset: str, row: Row, snapshot: Snapshot, *, pins_first: bool
    ) -> Operation[Commit]:
        """Publish a snapshot of another store as it is, with the time of its commit there.

        `pins_first`: pin it in the same commit, if nothing is published before.
        """
        from swapstore.protocol.copying import copy_of  # noqa: PLC0415 - few programs copy

        checked = partial(copy_of, row=row, snapshot=snapshot, pins_first=pins_first)
        return self._publish(dataset, checked, None)

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
                if self._context.hook is not None:
                    self._emit_rejected(name, error, len(wanted.payload))
                raise
            except UnderReplicated as error:  # it is published
                commit, under = error.commit, error
            if self._context.cache.kept and commit.created:
                last_good.keep_published(self._context, name, commit, wanted.payload)
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

    def _emit_rejected(self, dataset: str, error: Rejected, size: int) -> None:
        from swapstore.events import PublishRejected  # noqa: PLC0415 - only listeners need it

        rejected = PublishRejected(dataset=dataset, id=error.id or "", size=size, reason=error.reason)
        self._context.emit(rejected)

    def _emit_published(self, commit: Commit, tally: Tally) -> None:
        from swapstore.events import Published  # noqa: PLC0415 - only listeners need it

        self._context.emit(
            Published(
                dataset=commit.dataset,
                version=commit.version,
                id=commit.id,
                ts=commit.ts,
                size=commit.size,
                stored_size=sum(tally.staged.values()) if commit.created else 0,
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
