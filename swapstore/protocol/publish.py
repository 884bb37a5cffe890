"""Publish: copy, then swap.

1. Get the manifest: the one that the client remembers, or one `GET`.
2. Decide on it. Is this id or dedupe key committed already? Does `expected_version` hold? Do the validators
   accept? A decision not to publish is never based on a remembered manifest alone: the stored one is read
   first.
3. Draft the next manifest and `commit` it: records and commit in one round trip.
4. When another commit came first, decide again on the manifest that it left. Records that are staged already
   are not sent again, unless the snapshot's `ts` had to move up to that of the new latest.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeGuard

import msgspec

from swapstore import arguments, codecs
from swapstore.arguments import shown
from swapstore.commands import Replace
from swapstore.errors import (
    Conflict,
    Contended,
    Corrupt,
    Damaged,
    IdConflict,
    InvalidInput,
    PayloadMissing,
    Refused,
    SwapstoreError,
    TooOld,
)
from swapstore.format import bases, members, records, search
from swapstore.format.append import append
from swapstore.format.encodings import Encoded
from swapstore.models import GROUP, Commit, Entry, Item, Row, Validator
from swapstore.protocol import prune
from swapstore.protocol.clock import retention_time
from swapstore.protocol.commit import Moved, Record, Staging, Swapped, Taken, Vanished, commit
from swapstore.protocol.encoder import Encoder, Form
from swapstore.protocol.load import find, find_id, keep_pages, load_manifest
from swapstore.protocol.members import GroupEncoder, snapshot_at
from swapstore.protocol.operation import Batch, Operation, Wait
from swapstore.protocol.read import through_manifest
from swapstore.protocol.validation import validated
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swapstore.format.append import Draft, Retained
    from swapstore.format.manifest import Manifest
    from swapstore.format.members import Part
    from swapstore.protocol.context import Context


class Publication(Struct, frozen=True, kw_only=True):
    """What a caller wants published, checked and encoded. `id`, default: a new UUIDv7; `ts`, default: now.

    `parts`: the members of a group, by name; the payload is their table then. `committed_at`: when another
    store has committed it, of which this is a copy. Then its id alone says whether it is there. `pins_first`:
    if nothing is published yet, this commit pins the snapshot, too.
    """

    dataset: str
    payload: bytes
    codec: str
    id: str | None = None
    ts: int | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    dedupe_key: str | None = None
    expected_version: int | None = None
    validate: Validator | None = None
    parts: Mapping[str, Part] = msgspec.field(default_factory=dict)
    committed_at: int | None = None
    pins_first: bool = False


def publication(
    ctx: Context,
    dataset: str,
    value: Any,
    *,
    id: str | None,  # noqa: A002 - the public name
    ts: Any,
    labels: Mapping[str, str] | None,
    count: int | None = None,
    dedupe_key: str | None,
    expected_version: int | None,
    validate: Validator | None,
    codec: str,
    default: Callable[[Any], Any] | None,
    of_group: bool = False,
) -> Publication:
    """Check the arguments of a publish, and encode the value, or the values of a group's members."""
    if issubclass(type(value), Item):  # isinstance would read its __class__, which may raise
        raise InvalidInput(
            "an Item is for publish_many; give publish its value, and its options as arguments"
        )
    parts: dict[str, Part] = {}
    most = ctx.policy.max_payload_bytes
    if of_group:
        parts = members.parts_of(value, codec, limit_bytes=most, default=default)
        payload = members.table(parts)
    else:
        payload = codecs.encode(value, codec, limit_bytes=most, default=default)
    checked = options(
        ctx,
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
    if of_group:
        checked["codec"] = GROUP
    return Publication(dataset=dataset, payload=payload, parts=parts, **checked)


def options(
    ctx: Context,
    *,
    id: str | None,  # noqa: A002 - the public name
    ts: Any,
    labels: Mapping[str, str] | None,
    count: int | None = None,
    dedupe_key: str | None,
    expected_version: int | None,
    validate: Validator | None,
    codec: str,
    default: Any,
) -> dict[str, Any]:
    """Check the arguments of a publish other than the value, and return them as `Publication` has them."""
    if ts is not None:
        ts = arguments.timestamp_ms(ts)
        arguments.not_ahead(ts, ctx.clock.now_ms(), ctx.policy.max_ahead_ms)
    if validate is not None and not callable(validate):
        raise InvalidInput(f"validate must be a function, not {type(validate).__name__}")
    codecs.check_default(default)
    if expected_version is not None:
        expected_version = arguments.expected_version(expected_version)
    return {
        "id": None if id is None else arguments.snapshot_id(id),
        "ts": ts,
        "labels": arguments.with_count(arguments.labels({} if labels is None else labels), count),
        "dedupe_key": None if dedupe_key is None else arguments.dedupe_key(dedupe_key),
        "expected_version": expected_version,
        "validate": validate,
        "codec": codecs.known(codec),
    }


class Intent(Struct, frozen=True):
    """A publication with its id, its digest, and the time at which the publish began (ms since the epoch).

    `ages_from_ms`: the time from which retention counts ages; `began_ms`, unless the clock may be ahead.
    `encoder`: encodes the payload. None: it is stored as it is.
    """

    wanted: Publication
    id: str
    sha256: str
    began_ms: int
    ages_from_ms: int
    encoder: Encoder | None = None

    def ts(self, base: Manifest | None) -> int:
        """Return the snapshot's `ts`. Default: when the publish began, but not before the `ts` of `latest`.

        So the last snapshot published without a `ts` is the latest one, even if producers' clocks differ.
        """
        if self.wanted.ts is not None:
            return self.wanted.ts
        return max(self.began_ms, base.head.latest.ts if base and not base.head.is_dropped else 0)

    def entry(self, base: Manifest | None) -> Entry:
        """Describe the snapshot."""
        return Entry(
            id=self.id,
            ts=self.ts(base),
            size=len(self.wanted.payload),
            sha256=self.sha256,
            codec=self.wanted.codec,
            labels=self.wanted.labels,
        )

    def is_content_of(self, row: Entry) -> bool:
        """Say whether a committed entry has the content that the caller wants published under its id."""
        wanted = self.wanted
        ours = (self.sha256, len(wanted.payload), wanted.codec, wanted.labels)
        return (row.sha256, row.size, row.codec, row.labels) == ours and wanted.ts in {None, row.ts}


def publish(ctx: Context, wanted: Publication) -> Operation[Commit]:
    """Publish a snapshot once, even if replies are lost and others commit concurrently.

    Raises `Refused` when the publish is not allowed (`IdConflict`, `Conflict`, `TooOld`, `Rejected`),
    `Contended` when others committed first in every attempt, `Corrupt` or `PayloadMissing` for damage, and
    what `commit` raises.
    """
    now_ms = ctx.clock.now_ms()
    staging = Staging()
    # The first publish of a client makes sure that the list of names is there, along with the manifest.
    lists = ctx.capabilities.may_be_node and not ctx.cache.is_listed(ctx.keys.manifest(wanted.dataset))
    remembered = None if lists else _remembered(ctx, wanted.dataset)
    base = remembered or (yield from load_manifest(ctx, wanted.dataset, beside_list=lists))
    ages_from = (yield from retention_time(ctx, base, now_ms)) if _asks(base, ctx, wanted, now_ms) else now_ms
    this = _intent(ctx, wanted, now_ms, ages_from)
    for attempt in range(ctx.policy.commit_attempts):
        if attempt > 1:
            # The first retry uses the manifest that the conflict returned. Later ones back off, and read it.
            yield Wait(ctx.backoff(attempt))
            base = yield from load_manifest(ctx, wanted.dataset)
        from_memory = remembered is not None and attempt == 0
        try:
            existing = yield from _decide(ctx, this, base, is_first=attempt == 0)
            is_stopped = existing is not None
        except (Refused, PayloadMissing, Corrupt) as error:
            from_memory = from_memory or (yield from _is_replaced(ctx, wanted.dataset, base, error))
            if not from_memory:
                yield from _withdraw(ctx, wanted.dataset, staging)
                raise
            is_stopped = True
        if is_stopped and from_memory:  # the remembered manifest may be out of date
            base = yield from load_manifest(ctx, wanted.dataset)
            existing = yield from _decide(ctx, this, base, is_first=attempt == 0)
        if existing is not None:
            yield from _withdraw(ctx, wanted.dataset, staging)
            return existing
        retained = (yield from _retained(ctx, this, base)) if base and _hides(ctx, base) else None
        form = (yield from this.encoder.form(base)) if this.encoder else Form(Encoded(wanted.payload))
        draft = _draft(ctx, this, base, retained, form)
        needed = _records(ctx, draft, form)
        verdict = yield from commit(ctx, draft, needed, staging)
        match verdict:
            case Swapped(replicas):
                if len(staging.claims()) > 1 or _surplus(ctx, staging, needed):
                    # Its `ts` has moved up, or an attempt that lost the race has brought another base.
                    yield from _withdraw(ctx, wanted.dataset, staging, needed)
                return _created(ctx, draft, replicas)
            case Taken() | Vanished():
                answer = yield from _resolve(ctx, this, base, verdict, staging)
                if isinstance(answer, Commit):
                    return answer
                this = answer
            case Moved(current):
                base = current
    yield from _withdraw(ctx, wanted.dataset, staging)
    raise Contended(
        f"other producers committed first, {ctx.policy.commit_attempts} times in a row; nothing was "
        "published. Try again, or let fewer producers publish to this dataset"
    )


def _draft(ctx: Context, this: Intent, base: Manifest | None, retained: Retained | None, form: Form) -> Draft:
    """Draft the manifest that adds the snapshot to `base`."""
    wanted = this.wanted
    return append(
        base,
        this.entry(base),
        dataset=wanted.dataset,
        dedupe_key=wanted.dedupe_key,
        committed_at=wanted.committed_at,
        pins=wanted.pins_first and (base is None or base.head.is_dropped),
        stamp=ctx.stamp(),
        retained=retained,
        delta_of=form.delta_of,
        in_force=form.in_force,
        added_bytes=sum(len(part.payload) for part in wanted.parts.values()) if wanted.parts else 0,
    )


def published(ctx: Context, dataset: str, dedupe_key: str) -> Operation[Commit | None]:
    """Return the commit that a publish with this dedupe key would return. None: it would commit."""

    def view(current: Manifest) -> Operation[Commit | None]:
        row = yield from _deduped(ctx, current, dedupe_key)
        return None if row is None else _known(current, row)

    return (yield from through_manifest(ctx, dataset, view))


def _asks(base: Manifest | None, ctx: Context, wanted: Publication, now_ms: int) -> TypeGuard[Manifest]:
    """Say whether the clock may be ahead. A copy follows on old commits: it asks only if ages decide."""
    is_asked = wanted.committed_at is None or ctx.retention.max_age is not None
    return is_asked and ctx.is_long_after(base, now_ms)


def _intent(ctx: Context, wanted: Publication, began_ms: int, ages_from_ms: int) -> Intent:
    """Add what a publish needs beyond what the caller wants."""
    id, sha256 = wanted.id or ctx.new_id(), records.digest(wanted.payload)  # noqa: A001
    encoder: Encoder | None = None
    if wanted.parts:
        encoder = GroupEncoder(ctx, wanted.dataset, wanted.payload, sha256, id=id, parts=wanted.parts)
    elif not ctx.policy.stores_plain:
        encoder = Encoder(ctx, wanted.dataset, wanted.payload, sha256)
    return Intent(wanted, id, sha256, began_ms=began_ms, ages_from_ms=ages_from_ms, encoder=encoder)


def _withdraw(ctx: Context, dataset: str, staging: Staging, needed: Sequence[Record] = ()) -> Operation[None]:
    """Delete what this publish has written without a TTL and has not committed.

    `needed`: the records of its commit. Default: it ends without a commit of its own. If this fails, a later
    publish of the id or a repair does.
    """
    if keys := [*staging.claims(), *_surplus(ctx, staging, needed)]:
        with suppress(SwapstoreError):
            yield from ctx.capabilities.committer.reclaim(ctx, dataset, keys, apply=True)


def _surplus(ctx: Context, staging: Staging, needed: Sequence[Record]) -> list[str]:
    """Return the keys of the bases and members that this publish has written and does not need."""
    kept = {record.key for record in needed}
    names = [ctx.keys.parse(key) for key in staging.kept() if key not in kept]
    return [name.key for name in names if name is not None and name.kind in {"base", "member"}]


def _remembered(ctx: Context, dataset: str) -> Manifest | None:
    """Return the whole manifest that this client remembers, if it does."""
    known = ctx.cache.known(ctx.keys.manifest(dataset))
    return known.manifest if known is not None and known.manifest.complete else None


# --- step 2: decide --------------------------------------------------------------------------------


def _decide(ctx: Context, this: Intent, base: Manifest | None, *, is_first: bool) -> Operation[Commit | None]:
    """Return the commit that has published this already, if there is one. Raise `Refused` if it may not be.

    `is_first`: nothing has been sent yet.
    """
    base = None if base is None or base.head.is_dropped else base
    # A row that retention hides is still committed, until it is unlinked. Dropped rows have left the tail.
    if base is not None and not (is_first and this.wanted.id is None):  # an id made just now is in no row
        for row in (*base.head.kept, *reversed(base.log.rows)):
            if row.id == this.id:
                return (yield from _existing(ctx, this, base, row))
    if base is not None and this.wanted.dedupe_key is not None and this.wanted.committed_at is None:
        row_of_key = yield from _deduped(ctx, base, this.wanted.dedupe_key)
        if row_of_key is not None:
            return _known(base, row_of_key)
    try:
        _check_version(this, base)
        _check_age(ctx, this, base)
        if ctx.validators or this.wanted.validate is not None:
            yield from validated(ctx, this, base)
    except Refused:
        # A retry of a publish that was committed long ago succeeds, whatever has been committed since.
        row_below = (yield from find_id(ctx, base, this.id, hidden=True)) if base and this.wanted.id else None
        if base is None or row_below is None or row_below.version <= base.head.dropped:
            raise
        return (yield from _existing(ctx, this, base, row_below))
    return None


def _deduped(ctx: Context, base: Manifest, key: str) -> Operation[Row | None]:
    """Find the newest row that was published with this dedupe key, as far back as the manifest names keys.

    Raises what is wrong with its page, if that cannot be read: the key was committed, so publishing it would
    repeat the commit.
    """
    for row in reversed(base.log.rows):
        if row.dedupe_key == key:
            return row
    for named, version in reversed(base.log.dedupe):
        if named == key:
            searching = search.in_log(base.log, search.ByVersion(version))
            try:
                found = yield from find(ctx, base.head.dataset, searching)
            except (PayloadMissing, Corrupt) as error:
                raise type(error)(
                    f"dedupe_key {key!r} was published as version {version}, and its row cannot be read: "
                    f"{error.args[0]}. Once it is repaired, try again",
                    key=error.key,
                ) from error
            return found if found is not None and found.dedupe_key == key else None
    return None


def _check_version(this: Intent, base: Manifest | None) -> None:
    expected = this.wanted.expected_version
    latest = base.head.latest.version if base else 0
    if expected is None or expected in {latest, base.version if base else 0}:
        return
    aside = "" if base else " (nothing is published)"
    if base and base.head.pinned:
        aside = f" (readers are served version {base.head.pinned.version}, which is pinned)"
    raise Conflict(
        f"expected_version={shown(expected)} does not hold: the latest snapshot is version {latest}{aside}; "
        "read it again and decide",
        current_version=latest,
    )


def _check_age(ctx: Context, this: Intent, base: Manifest | None) -> None:
    """Refuse a snapshot that nobody could ever read: retention would hide it in its own commit."""
    ts = this.ts(base)
    if base is None or ts >= base.head.latest.ts:
        return
    floor = max(base.head.floor, prune.limits(ctx.retention, this.ages_from_ms).floor)
    if ts < floor:
        raise TooOld(
            f"ts {ts} is older than retention keeps (it hides what is before {floor}), so nobody "
            "could read this snapshot; publish with a longer max_age, or leave it out"
        )


def _existing(ctx: Context, this: Intent, base: Manifest, row: Row) -> Operation[Commit]:
    """Return the commit of an id that is committed, if it has the same content; raise `IdConflict` if not."""
    if not this.is_content_of(row):
        raise IdConflict(
            f"id {this.id!r} is committed already (version {row.version}) with another payload, codec, ts "
            "or labels; an id names one content permanently. Publish under a new id, or without one"
        )
    yield from snapshot_at(ctx, base, row)  # damaged: raise, instead of reporting success
    return _known(base, row)


def _resolve(
    ctx: Context, this: Intent, base: Manifest | None, found: Taken | Vanished, staging: Staging
) -> Operation[Commit | Intent]:
    """Resolve an id whose record is permanent although no row of the tail names it, or a lost base.

    Instead of a base that is lost, or may expire, the next draft brings another.

    A row in a page may name it: then it is committed. Or a publish that was cut short has left it: then the
    committer says whether this publish may use it.
    """
    if isinstance(found, Vanished):
        if this.encoder is not None:
            this.encoder.lose(found.key)
        return this
    try:
        answer = yield from _owner_of(ctx, this, base, found.key, staging)
    except (Refused, Contended, PayloadMissing, Corrupt):
        yield from _withdraw(ctx, this.wanted.dataset, staging)
        raise
    if isinstance(answer, Commit):
        yield from _withdraw(ctx, this.wanted.dataset, staging)
    return answer


def _is_replaced(
    ctx: Context, dataset: str, base: Manifest | None, error: SwapstoreError | None = None
) -> Operation[bool]:
    """Say whether another manifest is stored now: what seems to be damage may have been erased since.

    `error`: unless it is another one.
    """
    if isinstance(error, Refused):
        return False
    current = yield from load_manifest(ctx, dataset)
    return (current and current.etag) != (base and base.etag)


def _owner_of(
    ctx: Context, this: Intent, base: Manifest | None, key: str, staging: Staging
) -> Operation[Commit | Intent]:
    """Return the commit to which a permanent record belongs, or the intent to go on with."""
    row = None
    # If only the ts record is permanent, the id record is the one that this publish staged. It will expire.
    if base is not None and key == ctx.keys.id(this.wanted.dataset, this.id):
        try:
            row = yield from find_id(ctx, base, this.id, hidden=True)
        except Damaged:
            if not (yield from _is_replaced(ctx, this.wanted.dataset, base)):
                raise
            return this
    if base is not None and row is not None and row.version <= base.head.dropped:
        from swapstore.protocol.drop import unlink  # noqa: PLC0415 - seldom needed

        yield from unlink(ctx, base, row)
        return this
    if base is not None and row is not None:
        yield from _restore_origin(ctx, base, row, staging)
        return (yield from _existing(ctx, this, base, row))
    adopted = yield from ctx.capabilities.committer.adopt(ctx, this, base)
    if adopted is not None:
        return adopted
    if (yield from _is_replaced(ctx, this.wanted.dataset, base)):
        return this
    raise Corrupt(
        f"{key} is permanent but no version names it, or its payload is gone: the manifest was lost or "
        "replaced, or a record was deleted. Nothing was published; publish under another id, and see "
        "`swapstore verify`",
        key=key,
    )


def _restore_origin(ctx: Context, base: Manifest, row: Row, staging: Staging) -> Operation[None]:
    """Correct the ts record that this publish has staged beside a committed id whose own was lost.

    It states the version that this publish did not get. A repair that makes it permanent must find the row's.
    """
    key = ctx.keys.ts(base.head.dataset, row.ts, row.id)
    if key in staging.written:
        record = records.pack_ts(row, base.epoch)
        with suppress(SwapstoreError):  # the publish has succeeded before; verify finds the record
            yield Batch((Replace(key, record, ctx.policy.staging_ttl_ms),))


# --- step 3: draft ---------------------------------------------------------------------------------


def _hides(ctx: Context, base: Manifest) -> bool:
    """Say whether retention may have something to do in the next swap."""
    bounds = ctx.retention
    is_bounded = bounds.max_age is not None or bounds.max_count is not None
    return is_bounded or not base.head.shows_everything


def _retained(ctx: Context, this: Intent, base: Manifest) -> Operation[Retained]:
    """Read what retention needs to know for the swap that adds this snapshot."""
    ts = this.ts(base)
    keeping = [row for row in base.head.kept if row == base.head.pinned or row.ts > ts]
    limits = prune.limits(ctx.retention, this.ages_from_ms)
    return (yield from prune.retained(ctx, base, limits, keeping=keeping))


def _records(ctx: Context, draft: Draft, form: Form) -> list[Record]:
    """Return the records that a draft relies on: the id and the ts record, its base, and pages."""
    row, dataset = draft.row, draft.manifest.head.dataset
    assert row is not None  # noqa: S101 - a publish always adds a row
    # The commit compares the entry and the version in the ts record: they are those that are committed.
    held = form.encoded
    return [
        Record(ctx.keys.id(dataset, row.id), records.id_header(row, held.encoding, held.base), held.body),
        *form.members,
        Record(ctx.keys.ts(dataset, row.ts, row.id), *records.split_ts(row, draft.manifest.epoch)),
        *_base_records(ctx, dataset, form),
        *(Record.of(page.ref.key, page.record, shared=True) for page in draft.pages),
    ]


def _base_records(ctx: Context, dataset: str, form: Form) -> list[Record]:
    """Return the base that a snapshot brings, or the one in force, of which this client may have a copy."""
    if form.brought:
        return [Record.of(ctx.keys.base(dataset, name), base, shared=True) for name, base in form.brought]
    name = form.delta_of
    if name is None:
        return []
    return [Record(ctx.keys.base(dataset, name), bases.begin(name), shared=True, stored=True)]


def _created(ctx: Context, draft: Draft, replicas: int | None) -> Commit:
    if draft.pages:
        keep_pages(ctx, draft.pages)
    row = draft.row
    assert row is not None  # noqa: S101 - a publish always adds a row
    return _commit(draft.manifest, row, created=True, replicas=replicas)


def _known(base: Manifest, row: Row) -> Commit:
    return _commit(base, row, created=False)


def _commit(current: Manifest, row: Row, *, created: bool, replicas: int | None = None) -> Commit:
    return Commit(
        dataset=current.head.dataset,
        version=row.version,
        etag=current.etag,
        id=row.id,
        ts=row.ts,
        sha256=row.sha256,
        size=row.size,
        created=created,
        is_latest=current.head.latest.version == row.version,
        replicas=replicas,
    )
