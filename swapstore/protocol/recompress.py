"""Recompress: store committed snapshots anew, in another encoding, beside producers and readers.

An encoding is not content. So the rows keep their ids, digests and versions; only the records change, and the
base that a row names. It goes along the log, oldest first, some rows a swap. Each swap replaces the records
of these rows, seals their pages and those above anew, and says which bases are needed from then on. It is one
`Swap` (see there), so whatever cuts it short, each record is read as the old manifest says or as the new one
does. A reader with the old manifest reads the old pages during the grace, and goes by what the record says.

How far it came is not stored: run again, it looks at the rows once more, and finds most of them done.

- `delta`: rows without a base get one, see `reencoder.py`. What is not smaller then stays as it is.
- `zstd`, `none`: rows lose their base. A swap unlinks the bases that no row needs any more, and takes the
  base in force out of force if it is one of them. While rows lose theirs in the middle of a page, what the
  log shows of its bases does not tell that, so the log is searched.

Snapshots and pages that cannot be read stay as they are, and are counted. Verify says what is wrong with
them. A swap verifies the bases that it relies on, and makes them permanent: nothing that can be read comes to
need a base that is lost, or that may expire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import msgspec

from swapstore.commands import Command, Get, Peek, Rewritten
from swapstore.errors import Contended, Corrupt, Damaged, OutcomeUnknown
from swapstore.format import bases, records, reseal, search
from swapstore.models import Compression
from swapstore.protocol.commit import Moved, Record, Staging, Swapped, Vanished, commit
from swapstore.protocol.load import (
    ask_all,
    current_manifest,
    load_manifest,
    load_page,
    nothing_published,
    supplied,
    value_of,
)
from swapstore.protocol.operation import Operation, Turn, Wait
from swapstore.protocol.reencoder import Chain, Deltas, Plan, Stored, alone, decoded
from swapstore.reports import Recompressed

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from swapstore.format.append import Draft
    from swapstore.format.encodings import Encoded
    from swapstore.format.manifest import Manifest
    from swapstore.format.pages import Page
    from swapstore.models import Ref, Row
    from swapstore.protocol.context import Context

T = TypeVar("T")

ROWS_A_SWAP = 32  # about: whole pages
HEADER_BYTES = 1024  # hold the header of most records


def recompress(
    ctx: Context, dataset: str, compression: Compression, *, limit: int | None
) -> Operation[Recompressed]:
    """Store the snapshots of a dataset anew, at most `limit` of them.

    Raises `NotFound` when nothing is published, `Unsupported` where no script runs, `StoreFull` when what is
    added does not fit, and `Contended` when other producers keep committing first.
    """
    yield Turn((dataset,))
    base = yield from current_manifest(ctx, dataset)
    if base is None or base.head.is_dropped:
        raise nothing_published(ctx)
    run = _Run(ctx, dataset, compression, limit, upto=base.version)
    lost = 0
    while lost < ctx.policy.commit_attempts:
        if base is None or base.head.is_dropped:
            raise nothing_published(ctx)
        try:
            step = yield from run.next(base)
        except Damaged:  # of a manifest that has been replaced since
            lost += 1
            base = yield from load_manifest(ctx, dataset)
            continue
        if step is None:
            return (yield from run.report(base))
        try:
            verdict = yield from commit(ctx, step.draft, step.needed, Staging())
        except OutcomeUnknown:  # it does not matter whose swap it was: the manifest shows what is left to do
            verdict = Moved((yield from load_manifest(ctx, dataset)))
        match verdict:
            case Swapped():
                run.note(step)
                yield Turn((dataset,))  # between two swaps, others have theirs
                known = ctx.cache.known(base.key)
                base = known.manifest if known and known.manifest.complete else step.draft.manifest
            case Vanished(key):
                run.note_vanished(key)
                base = yield from load_manifest(ctx, dataset)
            case Moved(current):
                lost += 1
                yield Wait(ctx.backoff(lost))
                base = current
    raise Contended(
        f"other producers committed first, {ctx.policy.commit_attempts} times; what was stored anew so far "
        "stays so. Try again"
    )


@attrs.frozen
class _Step:
    """A swap: its draft, the records that it needs, and up to which version the rows are done then."""

    draft: Draft
    needed: list[Record]
    upto: int
    chain: Chain | None = None


class _Run:
    """One call: how far it came, and what it has done. `upto`: it leaves alone what is published later."""

    def __init__(
        self, ctx: Context, dataset: str, compression: Compression, limit: int | None, *, upto: int
    ) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._compression = compression
        self._limit = limit
        self._upto = upto
        self._after = 0
        self._chain: Chain | None = None
        self._reading: Ref | None = None
        self._unreadable: set[str] = set()  # keys of records
        self._vanished: set[str] = set()
        self._lost_bases: set[str] = set()  # their names
        self._in_unreadable_pages = 0
        self._done = self._bytes_before = self._bytes_after = 0

    # --- what is left ------------------------------------------------------------------------------

    def next(self, base: Manifest) -> Operation[_Step | None]:
        """Return the next swap. None: there is nothing more to do.

        Raises `Damaged` if `base` has been replaced, and what it names is gone.
        """
        while True:
            rows: Sequence[Row] = ()
            try:
                rows = yield from self._find(
                    reseal.rows_after(base.log, self._after, self._upto, ROWS_A_SWAP)
                )
                if not rows:
                    break
                if self._limit is not None and self._done >= self._limit:
                    return None
                rows, wanted = yield from self._chosen(rows)
                step = yield from self._anew(base, rows, wanted)
            except Damaged as error:
                yield from self._require_current(base, error)
                self._pass_over_page(rows)
                continue
            if step is not None:
                return step
            self._after = rows[-1].version
        try:
            return (yield from self._last(base))
        except Damaged as error:
            yield from self._require_current(base, error)
            return None

    def _require_current(self, base: Manifest, error: Damaged) -> Operation[None]:
        """Raise the error if this manifest has been replaced: what it names may be gone."""
        current = yield from load_manifest(self._ctx, self._dataset)
        if current is None or current.etag != base.etag:
            raise error

    def _find(self, searching: Generator[Ref, Page, T]) -> Operation[T]:
        """Run a search like `find`, and note which page it is at."""
        return supplied(searching, self._load_page)

    def _load_page(self, ref: Ref) -> Operation[Page]:
        self._reading = ref
        return load_page(self._ctx, self._dataset, ref)

    def _pass_over_page(self, rows: Sequence[Row]) -> None:
        """Go on behind a page that cannot be read, or behind the rows that depend on one."""
        assert self._reading is not None  # noqa: S101 - only pages raise this
        self._after = rows[-1].version if rows else self._reading.last_version
        self._in_unreadable_pages += len(rows) or self._reading.count

    def _chosen(self, rows: Sequence[Row]) -> Operation[tuple[Sequence[Row], list[Row]]]:
        """Return the rows of the next swap, and those among them whose records have to be read."""
        done = yield from self._stored_so(rows)
        wanted: list[Row] = []
        room = self._ctx.policy.max_batch_bytes
        most = len(rows) if self._limit is None else self._limit - self._done
        for at, row in enumerate(rows):
            if row.version in done:
                continue
            if wanted and (row.size > room or len(wanted) == most):
                return rows[:at], wanted
            wanted.append(row)
            room -= row.size
        return rows, wanted

    def _stored_so(self, rows: Sequence[Row]) -> Operation[set[int]]:
        """Return the versions of rows that need no change, as far as their headers tell. Groups stay."""
        keys = {row.version: self._ctx.keys.id(self._dataset, row.id) for row in rows}
        done = {row.version for row in rows if row.is_group or keys[row.version] in self._unreadable}
        if self._compression == "delta":
            return done | {row.version for row in rows if row.base is not None}
        asked = [row.version for row in rows if row.base is None]
        looks: list[Command[Any]] = [Peek(keys[version], HEADER_BYTES) for version in asked]
        for version, reply in zip(asked, (yield from ask_all(self._ctx, looks)), strict=True):
            try:
                holding = records.holding_of(value_of(reply), keys[version])
            except Corrupt:  # reading all of it tells more
                continue
            is_compressed = holding.encoding in {"zstd", "zstd+base64"}
            if holding.base is None and is_compressed == (self._compression == "zstd"):
                done.add(version)
        return done

    # --- one swap ----------------------------------------------------------------------------------

    def _anew(self, base: Manifest, rows: Sequence[Row], wanted: Sequence[Row]) -> Operation[_Step | None]:
        """Return the swap that stores these rows anew. None: they stay as they are."""
        stored = yield from self._read(base, wanted)
        if not stored:
            return None
        before = yield from self._find(reseal.nearest_base(base.log, rows[0].version, before=True))
        after = yield from self._find(reseal.nearest_base(base.log, rows[-1].version, before=False))
        is_delta = self._compression == "delta"
        if is_delta:
            plan = yield from self._deltas(base, rows, stored, before, after)
        else:
            plan = alone(stored, compress=self._compression == "zstd", text_only=self._ctx.policy.text_only)
        changed = {
            each.row.version: attrs.evolve(each.row, base=form.base)
            for each in stored
            if (form := _form_in(plan, each)) is not None
        }
        if not changed:
            return None
        kept = {before, after, *(changed.get(row.version, row).base for row in rows)}
        unneeded = []
        besides = frozenset(row.version for row in rows)
        for name in {row.base for row in rows if row.base is not None} - kept:
            needing = yield from self._find(search.in_log(base.log, search.ByBase(name, besides)))
            unneeded += [] if needing else [name]
        in_force = base.log.base
        if in_force is not None and in_force.name in unneeded:
            in_force = None
        if in_force is None and is_delta and plan.chain and rows[-1].version == _last_version(base):
            in_force = plan.chain.in_force
        draft = yield from self._find(
            reseal.redraft(
                base,
                changed,
                in_force=in_force,
                unneeded=unneeded,
                stamp=self._ctx.stamp(),
            )
        )
        return self._step(draft, stored, plan, upto=rows[-1].version)

    def _deltas(
        self,
        base: Manifest,
        rows: Sequence[Row],
        stored: Sequence[Stored],
        before: str | None,
        after: str | None,
    ) -> Operation[Plan]:
        in_force = base.log.base.name if base.log.base else None
        deltas = Deltas(
            self._ctx,
            self._dataset,
            rows,
            stored,
            before=before,
            after=after or in_force,
            chain=self._chain,
            lost=self._lost_bases,
        )
        plan = yield from deltas.plan(bring=True)
        if plan.brought and not plan.saves(stored, goes_on=rows[-1].version < _last_version(base)):
            plan = yield from deltas.plan(bring=False)
        return plan

    def _read(self, base: Manifest, rows: Sequence[Row]) -> Operation[list[Stored]]:
        """Read the records of rows. Those that cannot be read are left out, and passed over from then on.

        Raises `Damaged` if this manifest has been replaced: then they may be as the new one says.
        """
        keys = [self._ctx.keys.id(self._dataset, row.id) for row in rows]
        replies = yield from ask_all(self._ctx, [Get(key) for key in keys])
        found = []
        for row, key, reply in zip(rows, keys, replies, strict=True):
            try:
                found.append((yield from decoded(self._ctx, self._dataset, row, value_of(reply))))
            except Damaged as error:
                yield from self._require_current(base, error)
                self._unreadable.add(key)
        return found

    def _step(self, draft: Draft, stored: Sequence[Stored], plan: Plan, *, upto: int) -> _Step:
        keys, dataset = self._ctx.keys, self._dataset
        rewritten = tuple(
            Rewritten(keys.id(dataset, each.row.id), each.header, each.anew(form), form.base is not None)
            for each in stored
            if (form := plan.encoded.get(each.row.version)) is not None
        )
        added = [
            *(Record.of(keys.base(dataset, name), data, shared=True) for name, data in plan.brought.items()),
            *(Record.of(page.ref.key, page.record, shared=True) for page in draft.pages),
        ]
        there = [
            Record(keys.base(dataset, name), bases.begin(name), shared=True, stored=True)
            for name in sorted(plan.needed - plan.brought.keys())
        ]
        freed_bytes = sum(len(each.record) for each in stored if each.row.version in plan.encoded)
        added_bytes = sum(len(each.record) for each in rewritten) + sum(len(each.data) for each in added)
        draft = msgspec.structs.replace(
            draft, rewritten=rewritten, freed_bytes=freed_bytes, added_bytes=added_bytes
        )
        return _Step(draft, [*added, *there], upto, plan.chain)

    def _last(self, base: Manifest) -> Operation[_Step | None]:
        """Return the last swaps: of what only the header names, and of a base in force that no row needs."""
        if self._compression == "delta":
            return None
        for row in base.head.kept:
            key = self._ctx.keys.id(self._dataset, row.id)
            is_left = row.is_group or row.version > self._upto or key in self._unreadable
            if row.base is not None and not is_left:
                step = yield from self._anew(base, [row], [row])
                if step is not None:
                    return step
        in_force = base.log.base
        if in_force is None:
            return None
        query = search.ByBase(in_force.name)
        if (yield from self._find(search.search(base, query, hidden=True))) is not None:
            return None
        draft = yield from self._find(
            reseal.redraft(base, {}, in_force=None, unneeded=[in_force.name], stamp=self._ctx.stamp())
        )
        return _Step(draft, [], self._after)

    # --- what was done -----------------------------------------------------------------------------

    def note(self, step: _Step) -> None:
        """Note that a swap was committed."""
        self._after, self._chain = max(self._after, step.upto), step.chain
        self._done += len(step.draft.rewritten)
        self._bytes_before += step.draft.freed_bytes
        is_page = {page.ref.key for page in step.draft.pages}
        brought = [each for each in step.needed if not each.stored and each.key not in is_page]
        self._bytes_after += sum(len(each.record) for each in step.draft.rewritten)
        self._bytes_after += sum(len(each.data) for each in brought)

    def note_vanished(self, key: str) -> None:
        """Read a record once more that was not as it was read; the second time, leave it alone.

        An attempt that was cut short may have replaced it. Or it has a TTL, which reading does not show.
        A base that the store has lost, although this client may remember it, is not used again.
        """
        name = self._ctx.keys.parse(key)
        if name is not None and name.kind == "base":
            self._lost_bases.add(name.rest)
            self._chain = None
            return
        (self._unreadable if key in self._vanished else self._vanished).add(key)

    def report(self, base: Manifest) -> Operation[Recompressed]:
        """Return what was done, and how much is left."""
        left = yield from self._find(reseal.count_after(base.log, self._after, self._upto))
        return Recompressed(
            dataset=self._dataset,
            version=base.version,
            etag=base.etag,
            compression=self._compression,
            stored_anew=self._done,
            bytes_before=self._bytes_before,
            bytes_after=self._bytes_after,
            unreadable=len(self._unreadable) + self._in_unreadable_pages,
            left=left,
        )


def _form_in(plan: Plan, stored: Stored) -> Encoded | None:
    """Return how a plan stores a snapshot. None: as it is, and its row says so already."""
    form = plan.encoded.get(stored.row.version)
    if form is None and stored.row.base is not None:
        return stored.encoded
    return form


def _last_version(base: Manifest) -> int:
    """Return the version of the last row of the log."""
    return base.log.rows[-1].version if base.log.rows else base.log.pages[-1].last_version
