"""Redraft: the next manifest of a repair, made from what a walk found wrong.

Each draft is made from the manifest that is stored **now**: what is damaged in it is replaced, and
everything else is kept. So a repair runs beside live producers, and the worst that can happen is that it
loses the race for a version. Pages that are rewritten begin a new epoch. Their names are new, so no reader
takes them for the old ones that it has cached.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, TypeVar

import attrs
import msgspec

from swapstore.commands import Get
from swapstore.errors import Contended, Corrupt, Damaged
from swapstore.format import manifest, pages, rebuild, records, search
from swapstore.format.append import Draft, keys_of, sealed_log, sealed_refs
from swapstore.format.keys import group_name
from swapstore.format.manifest import Head, Log
from swapstore.fsck.rows import bytes_of
from swapstore.protocol.commit import Record
from swapstore.protocol.load import (
    ask_all,
    find,
    gather,
    is_base_named,
    is_page_named,
    is_row_named,
    load_page,
)
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Mapping, Sequence

    from swapstore.format.encodings import InForce
    from swapstore.format.keys import Name
    from swapstore.format.manifest import Manifest
    from swapstore.format.pages import Page, SealedPage
    from swapstore.fsck.walk import Damage, Walk
    from swapstore.models import Ref, Row
    from swapstore.protocol.context import Context


T = TypeVar("T")


@attrs.frozen
class Redraft:
    """A draft of a repair, and the records that it relies on."""

    draft: Draft
    needed: list[Record]


class Redrafter:
    """Drafts repairs of what one walk found. It remembers the pages that it has rewritten."""

    def __init__(self, ctx: Context, walk: Walk) -> None:
        self._ctx = ctx
        self._walk = walk
        self._damage = walk.damage
        self._epoch = ctx.stamp().new_epoch
        self._candidates = rebuild.in_order(walk.damage.candidates)
        filled, self._unplaced = rebuild.placed(
            self._candidates, walk.damage.holes, first_version=walk.head.first_version if walk.head else 1
        )
        self._placed = [row for rows in filled.values() for row in rows]
        self._rewriter = LogRewriter(
            ctx,
            walk.dataset,
            self._epoch,
            damage=walk.damage,
            filled=filled,
        )

    # --- drafts ------------------------------------------------------------------------------------

    def rebuilt(self) -> Operation[Redraft | None]:
        """Draft a manifest from the committed records, because there is none. None: there are no records."""
        rows = rebuild.versioned(self._candidates, after=0)
        if not rows:
            return None
        log = self._rewriter.appended(Log(rows=(), pages=()), rows)
        was = self._walk.head
        version = max(log.rows[-1].version, was.version if was else 0) + 1
        stamp = self._ctx.stamp()
        head = Head(
            etag=f"{self._epoch}.{version}.{stamp.nonce}",
            format=records.FORMAT,
            dataset=self._walk.dataset,
            version=version,
            committed_at=stamp.now_ms,
            confirmed_at=was.confirmed_at if was else log.rows[-1].committed_at,
            latest=log.rows[-1],
            pinned=None,
            count=log.count,
            first_version=was.first_version if was else 1,
            floor=was.floor if was else 0,
        )
        if was and was.dropped:  # it must not be published again
            dropped = version if was.is_dropped else was.dropped
            head = msgspec.structs.replace(
                head, dropped=dropped, first_version=max(was.first_version, dropped + 1)
            )
        latest = (yield from self._find_again(log, was.latest)) if was else None
        latest = latest or (yield from self._newest(head, log)) or head.latest
        pinned = (yield from self._find_again(log, was.pinned)) if was and was.pinned else None
        head = msgspec.structs.replace(head, latest=latest, pinned=pinned)
        pages = self._rewriter.new_pages(log)
        draft = Draft(
            base=None,
            manifest=manifest.build(head, log, self._ctx.keys),
            pages=pages,
            even_if_full=not pages,
            unlinked=tuple(self._damage.leaked),
            over=self._walk.over,
            grace_ms=self._ctx.policy.leak_ttl_ms,
        )
        needed = self._needed(draft, self._without_ts(rows), [])
        # If the store was emptied since the walk, the draft must fail: its manifest would point at nothing.
        keys, dataset = self._ctx.keys, self._walk.dataset
        served = {keys.id(dataset, row.id): records.stated(row) for row in head.kept}
        served |= {key: expiring.header for key, expiring in self._damage.expiring.items()}
        needed += [Record(key, header, shared=True, stored=True) for key, header in served.items()]
        return Redraft(draft, needed)

    def repaired(self, current: Manifest) -> Operation[Redraft | None]:
        """Draft a repair of `current`. None: there is nothing to repair, or no snapshot left to serve.

        Raises `Contended` if retention has unlinked a damaged page since the walk.
        """
        walk, damage = self._walk, self._damage
        assert walk.manifest is not None  # noqa: S101 - there was one when the walk began
        refs, replaced = yield from self._rewriter.rewrite(current.log)
        if not {hole.key for hole in damage.holes} <= set(replaced):
            raise Contended("retention unlinked a damaged page while it was being repaired; run repair again")
        tail = self._rewriter.left_of(current.log.rows)
        later = yield from gather(self._ctx, walk.dataset, search.since(current, walk.manifest.version))
        published = {row.id for row in later}
        back = rebuild.versioned(
            [c for c in self._unplaced if c.entry.id not in published], after=current.version
        )
        kept = msgspec.structs.replace(current.log, rows=tail, pages=refs, base=self._in_force(current))
        log = self._rewriter.appended(kept, back)
        head = yield from self._head(current, log, back, rewritten=bool(replaced or back))
        if head is None:
            return None
        unlinked = [*replaced, *(yield from self._unlinked(current, later))]
        pages = self._rewriter.new_pages(log)
        draft = Draft(
            base=current,
            manifest=manifest.build(head, log, self._ctx.keys),
            pages=pages,
            even_if_full=not pages,  # to let leaked records expire is what a full store needs
            unlinked=tuple(dict.fromkeys(unlinked)),
            groups=self._groups_in(unlinked),
            grace_ms=self._ctx.policy.leak_ttl_ms,
        )
        again = yield from self._still(current, damage.without_ts.values())
        needed = self._needed(draft, self._without_ts([*back, *self._placed]), again)
        needed += yield from self._expiring(current, replaced)
        if _is_same(current, head, log) and not needed and not unlinked and not damage.manifest_wrong:
            return None
        return Redraft(draft, needed)

    def _head(
        self, current: Manifest, log: Log, back: list[Row], *, rewritten: bool
    ) -> Operation[Head | None]:
        """Return the header of the repaired manifest. None: no snapshot is left to serve."""
        was, stamp = current.head, self._ctx.stamp()
        version = max(current.version + 1, log.rows[-1].version if log.rows else 0)
        epoch = self._epoch if rewritten else current.epoch
        head = msgspec.structs.replace(
            was,
            etag=f"{epoch}.{version}.{stamp.nonce}",
            version=version,
            committed_at=stamp.now_ms,
            count=log.count,
            pinned=(yield from self._served_again(log, was.pinned)) if was.pinned else None,
        )
        if was.is_dropped:
            return head
        latest = yield from self._served_again(log, was.latest)
        newest = yield from self._newest(head, log)
        if newest is None:
            return None
        # A rollback stays in force, because an operator chose it, unless its snapshot is gone.
        proved = {candidate.entry.id for candidate in self._candidates if candidate.is_proved}
        restored = newest.id in proved & {row.id for row in back} and newest.ts > was.latest.ts
        return msgspec.structs.replace(head, latest=newest if restored or latest is None else latest)

    def _in_force(self, current: Manifest) -> InForce | None:
        """Return the base that stays in force. None: the next publish with compression brings one."""
        base = current.log.base
        return None if base is None or base.name == self._damage.not_in_force else base

    # --- what is served ----------------------------------------------------------------------------

    def _newest(self, head: Head, log: Log) -> Operation[Row | None]:
        """Return the row with the greatest `ts`; one that retention hides only if all are hidden."""
        row = yield from self._rewriter.search(search.newest(head, log))
        return row or (yield from self._rewriter.search(search.newest(head, log, hidden=True)))

    def _served_again(self, log: Log, row: Row) -> Operation[Row | None]:
        """Return the row of what was served, as the new log has it. None: it cannot be served any more.

        The new log may give it another version, and may state it otherwise than the header. If retention has
        taken it out of the log, the header alone keeps it.
        """
        target = self._damage.misnamed.get((row.version, row.id), row)
        for left in self._rewriter.left_of([target]):
            return (yield from self._find_again(log, left)) or left
        return None

    def _find_again(self, log: Log, row: Row) -> Operation[Row | None]:
        """Find in the new log a row that was served, by its id."""
        query = search.ById(row.id, row.ts)
        return (yield from self._rewriter.search(search.in_log(log, query)))

    # --- records -----------------------------------------------------------------------------------

    def _without_ts(self, rows: Iterable[Row]) -> list[Row]:
        """Return those of the restored rows that have no ts record."""
        without = {candidate.entry.id for candidate in self._candidates if not candidate.has_ts}
        return [row for row in rows if row.id in without]

    def _needed(self, draft: Draft, back: Iterable[Row], again: Iterable[Row]) -> list[Record]:
        """Return the records that have to be written: new pages, and missing ts records.

        A new ts record names the same line of versions as those of snapshots that were committed along with
        it. So a manifest that is lost later is rebuilt in the same order.
        """
        dataset, keys = self._walk.dataset, self._ctx.keys
        needed = [Record.of(page.ref.key, page.record, shared=True) for page in draft.pages]
        told = (candidate.origin.epoch for candidate in self._candidates if candidate.origin)
        line = next(told, draft.manifest.epoch)
        before = draft.base.epoch if draft.base else line
        for row, epoch in (*((row, line) for row in back), *((row, before) for row in again)):
            # All of it is compared: one with another origin, which a retry may have staged, is replaced.
            key, record = keys.ts(dataset, row.ts, row.id), records.pack_ts(row, epoch)
            needed.append(Record(key, record, shared=True, replaces=True))
        return needed

    def _expiring(self, current: Manifest, replaced: Collection[str]) -> Operation[list[Record]]:
        """Return the records that have to be made permanent again, if `current` still names them."""
        found = []
        for key, expiring in self._damage.expiring.items():
            named = True
            if expiring.is_page:
                named = key not in replaced and (
                    yield from is_page_named(self._ctx, current, key, expiring.version)
                )
            elif expiring.version:
                named = expiring.version not in self._damage.gone and (
                    yield from is_row_named(self._ctx, current, expiring.version)
                )
            if named:
                found.append(Record(key, expiring.header, shared=True, stored=True))
        return found

    def _still(self, current: Manifest, rows: Iterable[Row]) -> Operation[list[Row]]:
        """Return those of some rows that `current` still names and whose payload is not gone."""
        found = []
        for row in rows:
            if row.version not in self._damage.gone and (
                yield from is_row_named(self._ctx, current, row.version)
            ):
                found += [row]
        return found

    def _unlinked(self, current: Manifest, later: Iterable[Row]) -> Operation[list[str]]:
        """Return the keys that get a TTL: leaked ones, altered ones, and those of dropped rows."""
        if not self._ctx.capabilities.committer.expires_leaks:
            return []
        damage, keys, dataset = self._damage, self._ctx.keys, self._walk.dataset
        assert self._walk.manifest is not None  # noqa: S101 - there was one when the walk began
        unlinked: list[str] = []
        moved = current.etag != self._walk.manifest.etag
        rows = (*later, *current.head.kept)
        used = set(keys_of(rows, dataset, keys))
        # The walk has read the tables of the groups before.
        newer = [row for row in rows if row.is_group and row.version > self._walk.manifest.version]
        groups = {group_name(row.id, row.sha256) for row in newer}
        for key in damage.leaked:
            if key in used:
                continue  # its id was published again, after another repair had unlinked it
            name = keys.parse(key)
            if name is not None and name.kind == "member" and name.rest in groups:
                continue
            if moved and name is not None and (yield from self._is_used(current, name)):
                continue  # one commit leaked it, a later one uses it
            unlinked.append(key)
        unlinked += [lost.stored.key for lost in damage.lost_bases.values() if lost.stored.is_permanent]
        for row in damage.gone.values():
            if (yield from is_row_named(self._ctx, current, row.version)):
                unlinked += yield from self._left_of(current, row)
        # An altered ts record that is permanent can be replaced when it has a TTL, in the next swap.
        held = yield from self._still(current, damage.held_ts.values())
        return [*unlinked, *(keys.ts(dataset, row.ts, row.id) for row in held)]

    def _groups_in(self, unlinked: Collection[str]) -> tuple[Row, ...]:
        """Return the dropped groups, whose members leave with them."""
        keys, dataset = self._ctx.keys, self._walk.dataset
        gone = self._damage.gone.values()
        return tuple(row for row in gone if row.is_group and keys.id(dataset, row.id) in unlinked)

    def _is_used(self, current: Manifest, name: Name) -> Operation[bool]:
        """Say whether `current` names a page or a base."""
        if name.kind == "base":
            return (yield from is_base_named(self._ctx, current, name.rest))
        is_page = name.kind == "page"
        return is_page and (yield from is_page_named(self._ctx, current, name.key, name.first_version))

    def _left_of(self, current: Manifest, row: Row) -> Operation[list[str]]:
        """Return the keys of a dropped row, without an id record that another row names under the same id."""
        dataset = self._walk.dataset
        id_key, ts_key = self._ctx.keys.records(dataset, row)
        (reply,) = yield from ask_all(self._ctx, [Get(id_key)])
        record = bytes_of(reply)
        if record:
            try:
                entry = records.entry_of(record, id_key)
            except Corrupt:
                return [id_key, ts_key]
            query = search.ById(entry.id, entry.ts, besides=row.version)
            try:
                other = yield from find(self._ctx, dataset, search.search(current, query, hidden=True))
            except Damaged:
                return [ts_key]  # the damaged log does not show to which row it belongs
            if other is not None and (yield from self._walk.bases.is_whole(record, other)):
                return [ts_key] if other.ts != row.ts else []
        return [id_key, ts_key]


def _is_same(current: Manifest, head: Head, log: Log) -> bool:
    """Say whether a header and a log would change nothing. Rows that differ in their base alone are equal."""
    was = msgspec.structs.replace(current.head, etag="", version=0, committed_at=0)
    if log != current.log or msgspec.structs.replace(head, etag="", version=0, committed_at=0) != was:
        return False
    rows = zip((*head.copies, *log.rows), (*current.head.copies, *current.log.rows), strict=True)
    return all(one.base == other.base for one, other in rows)


# --- rewriting the log -----------------------------------------------------------------------------


@attrs.frozen
class _Replacement:
    """What stands in the place of a page, and the keys of the pages that it replaces."""

    refs: tuple[Ref, ...]
    replaced: tuple[str, ...]


class LogRewriter:
    """Replaces the damaged pages of a log. It remembers each one, so that none is rewritten twice.

    It leaves out the rows that are gone, and corrects those that were altered. `filled`: the rows of pages
    that cannot be read, by the keys of the pages.
    """

    def __init__(
        self,
        ctx: Context,
        dataset: str,
        epoch: str,
        *,
        damage: Damage,
        filled: Mapping[str, Sequence[Row]],
    ) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._epoch = epoch
        self._damage = damage
        self._filled = filled
        self._wrong = sorted([*damage.gone, *damage.corrected, *(ref.first_version for ref in damage.holes)])
        self._replacements: dict[str, _Replacement] = {}
        self._pages: dict[str, SealedPage] = {}

    def rewrite(self, log: Log) -> Operation[tuple[tuple[Ref, ...], tuple[str, ...]]]:
        """Return the page references of the rewritten log, and the keys of the pages that are replaced."""
        refs: list[Ref] = []
        replaced: list[str] = []
        for ref in log.pages:
            replacement = yield from self._replacement(ref)
            refs += replacement.refs
            replaced += replacement.replaced
        return (self._narrowed(refs) if replaced else log.pages), tuple(replaced)

    def _replacement(self, ref: Ref) -> Operation[_Replacement]:
        """Return what stands in the place of a page; the page itself if nothing in it is wrong."""
        at = bisect_left(self._wrong, ref.first_version)
        if at == len(self._wrong) or self._wrong[at] > ref.last_version:
            return _Replacement((ref,), ())
        if ref.key not in self._replacements:
            self._replacements[ref.key] = yield from self._rewrite(ref)
        return self._replacements[ref.key]

    def _rewrite(self, ref: Ref) -> Operation[_Replacement]:
        rows = self._filled.get(ref.key)
        if rows is None:
            page = yield from load_page(self._ctx, self._dataset, ref)
            if page.pages:
                below: list[_Replacement] = []
                for child in page.pages:
                    below += [(yield from self._replacement(child))]
                refs = tuple(child for place in below for child in place.refs)
                return _Replacement(refs, (ref.key, *(key for place in below for key in place.replaced)))
            rows = self.left_of(page.rows)
        size = manifest.F
        return _Replacement(
            tuple(self._seal(rows[at : at + size]) for at in range(0, len(rows), size)), (ref.key,)
        )

    def left_of(self, rows: Iterable[Row]) -> tuple[Row, ...]:
        """Return rows without those that are dropped, and correct those that were altered."""
        left = []
        for row in rows:
            gone = self._damage.gone.get(row.version)
            if gone is None or gone.id != row.id:
                left.append(self._damage.as_recorded(row))
        return tuple(left)

    def _seal(self, rows: Sequence[Row]) -> Ref:
        page = pages.seal(rows, level=0, dataset=self._dataset, epoch=self._epoch, keys=self._ctx.keys)
        self._pages[page.ref.key] = page
        return page.ref

    def _narrowed(self, refs: Iterable[Ref]) -> tuple[Ref, ...]:
        """Seal references, because rewriting has replaced pages of references by what they held."""
        narrow: tuple[Ref, ...] = ()
        for ref in refs:
            narrow, sealed = sealed_refs(
                (*narrow, ref), dataset=self._dataset, epoch=self._epoch, keys=self._ctx.keys
            )
            self._pages.update({page.ref.key: page for page in sealed})
        return narrow

    def appended(self, log: Log, rows: Iterable[Row]) -> Log:
        """Return the log with rows appended, and seal pages as a publish would."""
        for row in rows:
            log, sealed = sealed_log(
                msgspec.structs.replace(log, rows=(*log.rows, row)),
                dataset=self._dataset,
                epoch=self._epoch,
                keys=self._ctx.keys,
            )
            self._pages.update({page.ref.key: page for page in sealed})
        return log

    def new_pages(self, log: Log) -> tuple[SealedPage, ...]:
        """Return the new pages that a log names, directly or through other new pages."""
        found: dict[str, SealedPage] = {}
        ahead = list(log.pages)
        while ahead:
            page = self._pages.get(ahead.pop().key)
            if page is not None:
                found[page.ref.key] = page
                ahead += pages.parse(page.record, page.ref, self._dataset).pages
        return tuple(found.values())

    def search(self, searching: Generator[Ref, Page, T]) -> Operation[T]:
        """Run a search like `find`, on a log whose new pages are not stored yet."""
        try:
            ref = next(searching)
            while True:
                new = self._pages.get(ref.key)
                if new is not None:
                    page = pages.parse(new.record, ref, self._dataset)
                else:
                    page = yield from load_page(self._ctx, self._dataset, ref)
                ref = searching.send(page)
        except StopIteration as stop:
            found: T = stop.value
            return found
