"""Erase: remove one snapshot at once, so that its bytes are in no key of the dataset.

1. Find the row. Refuse if readers are served it and nobody insists.
2. Scan the keys of the dataset for copies that nothing leads to, and end the grace of what was unlinked.
3. Where other snapshots are stored as differences from a base with this content, store them anew without one,
   some rows a swap. The first of these swaps takes such a base out of force, so that nobody goes on using it.
4. Swap once more: the row leaves its page, the pages above are sealed anew, and what is served changes. The
   records, the replaced pages and the bases have no grace: the commit deletes them after its SET.
5. If others have swapped since step 2, they may have unlinked pages with the row. Scan once more.

Cut short before step 4, it has erased nothing, and every snapshot can be read. After step 4 only copies with
a TTL are left. Run again, it finds no row by the id or version, and still takes step 2.

A reader that has the previous manifest and does not find a record reads the manifest again, as it does when
retention unlinks what it was about to read.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import attrs
import msgspec

from swapstore.arguments import shown
from swapstore.commands import PERMANENT, Get, Peek, Rewritten, Ttl
from swapstore.errors import Contended, Corrupt, Damaged, NotFound, OutcomeUnknown, Refused
from swapstore.events import SnapshotErased
from swapstore.format import records, reseal, search
from swapstore.format.keys import base_name
from swapstore.format.manifest import same_row
from swapstore.format.reseal import Erasing
from swapstore.protocol.commit import Moved, Record, Staging, Swapped, Vanished, commit
from swapstore.protocol.copies import (
    HEADER_BYTES,
    Copies,
    find_copies,
    find_left,
    is_named,
    keys_of,
    keys_of_base,
)
from swapstore.protocol.load import (
    ask,
    ask_all,
    find,
    find_id,
    is_in_log,
    load_manifest,
    nothing_published,
    value_of,
)
from swapstore.protocol.members import stored_alone
from swapstore.protocol.operation import Emit, Operation, Tally, Turn, Wait
from swapstore.protocol.reencoder import alone, decoded
from swapstore.reports import Erased

ROWS_A_SWAP = 32  # that are stored anew at most
LOOKS = 4  # at all keys: another one each time that others have swapped, or a swap has left keys

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from swapstore.format.append import Draft
    from swapstore.format.manifest import Manifest
    from swapstore.models import Row
    from swapstore.protocol.context import Context


def erase(
    ctx: Context,
    dataset: str,
    *,
    id: str | None,  # noqa: A002
    version: int | None,
    force: bool,
) -> Operation[Erased]:
    """Erase the snapshot with this id, or the one that this version committed.

    Raises `NotFound` if there is none, `Refused` if it is served or the only one, `Damaged` if a page or a
    snapshot that has to change cannot be read, and `Contended` if other producers keep committing first.
    """
    yield Turn((dataset,))
    run = _Erase(ctx, dataset, id, version, force=force)
    for _ in range(LOOKS):
        current = yield from run.swap((yield from run.look()))
        if not run.is_raced:
            break
    else:
        raise still_there()
    made = run.report(current)
    if ctx.hook is not None:
        yield Emit(partial(_emit, ctx, made))
    return made


def still_there() -> Contended:
    """Build the error for keys that could not be deleted where a commit takes several requests."""
    return Contended(
        "keys are left that another client is deleting, or was deleting when it died. Readers see nothing of "
        "them; call it again in ten minutes"
    )


def _emit(ctx: Context, made: Erased, tally: Tally) -> None:
    ctx.emit(
        SnapshotErased(
            dataset=made.dataset,
            version=made.version,
            id=made.id,
            stored_anew=made.stored_anew,
            elapsed_s=ctx.clock.monotonic() - tally.began,
        )
    )


@attrs.frozen
class _Step:
    """A swap: its draft, the pages that it needs, and how many snapshots it stores anew.

    `is_last`: it deletes all copies that were found.
    """

    draft: Draft
    needed: list[Record] = attrs.field(factory=list)
    stored_anew: int = 0
    is_last: bool = True


class _Erase:
    """One call. `row`: the row to erase, once it is found. `is_raced`: others have swapped since the scan."""

    def __init__(
        self,
        ctx: Context,
        dataset: str,
        id: str | None,  # noqa: A002
        version: int | None,
        *,
        force: bool,
    ) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._id = id
        self._version = version
        self._force = force
        self._epoch = ""
        self.row: Row | None = None
        self.is_raced = False
        self._copies = Copies()
        self._left: Row | None = None  # of a snapshot that no row names, as far as that is known
        self._stored_anew = 0
        self._vanished: set[str] = set()

    # --- what there is -----------------------------------------------------------------------------

    def look(self) -> Operation[Manifest]:
        """Find the row and what else holds its snapshot. Raises `Refused` before anything is changed."""
        current: Manifest | None = None
        while True:
            was, current = current, (yield from load_manifest(self._ctx, self._dataset))
            if current is None or current.head.is_dropped:
                raise nothing_published(self._ctx)
            try:
                yield from self._look(current)
            except Damaged:  # unless that is of a manifest which has been replaced since
                if was is not None and was.etag == current.etag:
                    raise
                continue
            return current

    def _look(self, current: Manifest) -> Operation[None]:
        if not self._epoch:
            self._epoch = current.epoch
            self.row = yield from self._find(current)
        row = yield from self._row_in(current)
        if row is not None:
            yield from self._served_then(current, row)
        elif self.row is None:
            left = yield from find_left(self._ctx, current, id=self._id, version=self._version)
            self._left = self._left or left
        known = self.row or self._left
        self.is_raced = False
        self._id = known.id if known and known.id else self._id
        self._copies = yield from find_copies(self._ctx, current, id=self._id, row=known)

    def _find(self, current: Manifest) -> Operation[Row | None]:
        if self._id is not None:
            return (yield from find_id(self._ctx, current, self._id, hidden=True))
        query = search.ByVersion(self._version or 0)
        row = yield from find(self._ctx, self._dataset, search.search(current, query, hidden=True))
        self._id = None if row is None else row.id
        return row

    def _row_in(self, current: Manifest) -> Operation[Row | None]:
        """Return the row as a manifest has it. None: it has left. A later row of the id is another snapshot.

        Raises `Contended` if the manifest is of another line of versions.
        """
        if self.row is None:
            return None
        if current.epoch != self._epoch:
            raise Contended("the dataset was reset or repaired at the same time; erase again")
        query = search.ByVersion(self.row.version)
        found = yield from find(self._ctx, self._dataset, search.search(current, query, hidden=True))
        return found if found is not None and same_row(found, self.row) else None

    def _served_then(self, base: Manifest, row: Row) -> Operation[Erasing]:
        """Return what is served without a row. Raises `Refused` if that is not allowed."""
        head = base.head
        pinned = None if head.pinned is None or same_row(head.pinned, row) else head.pinned
        latest: Row | None = head.latest
        if same_row(head.latest, row):
            newest = search.newest(head, base.log, besides=row.version)
            latest = (yield from find(self._ctx, self._dataset, newest)) or pinned
        what = f"version {row.version} (id {row.id!r})"
        if latest is None:
            raise Refused(
                f"{what} is the only snapshot, so nothing was erased. Publish another one before, or drop "
                "the dataset"
            )
        if head.keeps_alive(row) and not self._force:
            how = "the latest snapshot" if same_row(head.latest, row) else "pinned"
            raise Refused(
                f"{what} is {how}, and nothing was erased. With force (--force) it is erased, and readers "
                f"are served version {(pinned or latest).version}; or publish, pin or roll back to another"
            )
        return Erasing(row, latest, pinned)

    # --- swaps -------------------------------------------------------------------------------------

    def swap(self, base: Manifest | None) -> Operation[Manifest]:
        """Swap until nothing is left to do, and return the manifest that was seen last."""
        lost = 0
        while lost < self._ctx.policy.commit_attempts:
            if base is None or base.head.is_dropped:
                raise nothing_published(self._ctx)
            try:
                step = yield from self._next(base)
            except Damaged:
                was, base = base, (yield from load_manifest(self._ctx, self._dataset))
                if base is not None and base.etag == was.etag:
                    raise
                lost, self.is_raced = lost + 1, True
                continue
            if step is None:
                return base
            try:
                verdict = yield from commit(self._ctx, step.draft, step.needed, Staging())
            except OutcomeUnknown:  # it does not matter whose swap it was: the manifest shows what is left
                verdict = Moved((yield from load_manifest(self._ctx, self._dataset)))
            match verdict:
                case Swapped():
                    self.is_raced = self.is_raced or not (yield from self._is_deleted(step.draft.unlinked))
                    self._stored_anew += step.stored_anew
                    self._copies = Copies() if step.is_last else self._copies
                    yield Turn((self._dataset,))  # between two swaps, others have theirs
                    base = step.draft.manifest
                case Vanished(key):
                    self._note_vanished(key)
                    base, self.is_raced = (yield from load_manifest(self._ctx, self._dataset)), True
                case Moved(current):
                    lost, self.is_raced = lost + 1, True
                    yield Wait(self._ctx.backoff(lost))
                    base = current
        raise Contended(
            f"other producers committed first, {self._ctx.policy.commit_attempts} times; the snapshot is not "
            "erased, or copies of it are left. Try again"
        )

    def _is_deleted(self, keys: Sequence[str]) -> Operation[bool]:
        """Say whether keys are gone. The swap stands, even if it could not delete them."""
        looks = yield from ask_all(self._ctx, [Ttl(key) for key in keys])
        return not any(value_of(ttl) == PERMANENT for ttl in looks)

    def _note_vanished(self, key: str) -> None:
        """Try once more with a record that was not as it was read. Raises `Corrupt` the second time."""
        if key in self._vanished:
            raise Corrupt(
                f"{key} is about to expire, or changes all the time, so it cannot be stored anew, and "
                "nothing was erased; run swapstore repair, then erase again",
                key=key,
            )
        self._vanished.add(key)

    def _next(self, base: Manifest) -> Operation[_Step | None]:
        """Return the next swap. None: there is nothing more to do."""
        row = yield from self._row_in(base)
        erasing = None if row is None else (yield from self._served_then(base, row))
        names = self._bases_with_content(base, row or self.row or self._left)
        needing = yield from find(self._ctx, self._dataset, reseal.needing(base, names, ROWS_A_SWAP + 2))
        others = [each for each in needing if row is None or not same_row(each, row)]
        chosen = self._that_fit(others)
        if len(chosen) < len(others):
            return (yield from self._anew(base, chosen, names, None))
        if row is None:
            return (yield from self._without_row(base, chosen, names))
        return (yield from self._anew(base, chosen, names, erasing))

    def _bases_with_content(self, base: Manifest, row: Row | None) -> set[str]:
        """Return the names of the bases that have the content of a row, as far as is known."""
        if row is None:
            return set()
        told = {*self._copies.bases, row.base, base.log.base and base.log.base.name}
        digest = base_name(0, row.sha256).partition(".")[2]
        own = {base_name(row.version, row.sha256), base_name(row.version, row.sha256, of_group=True)}
        return own | {name for name in told if name and name.partition(".")[2][:16] == digest}

    def _that_fit(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the first rows that one swap can store anew: one at least."""
        if any(row.is_group for row in rows):
            return rows[:1]  # its size does not tell that of its members
        room = self._ctx.policy.max_batch_bytes
        for at, row in enumerate(rows[:ROWS_A_SWAP]):
            room -= row.size
            if at and room < 0:
                return rows[:at]
        return rows[:ROWS_A_SWAP]

    def _anew(
        self, base: Manifest, rows: Sequence[Row], names: Collection[str], erasing: Erasing | None
    ) -> Operation[_Step]:
        """Return the swap that stores these rows without a base; `erasing`: and erases the row."""
        changed, freed = yield from self._rewritten(rows, names)
        rewritten = list(chain.from_iterable(changed))
        in_force = base.log.base
        if in_force is not None and in_force.name in names:
            in_force = None
        draft = yield from find(
            self._ctx,
            self._dataset,
            reseal.redraft(
                base,
                {row.version: attrs.evolve(row, base=None) for row in rows},
                in_force=in_force,
                unneeded=(),
                stamp=self._ctx.stamp(),
                erasing=erasing,
            ),
        )
        unlinked = list(draft.unlinked)
        if erasing is not None:
            unlinked += yield from self._keys_that_go(base, erasing, names, unlinked)
            freed += erasing.row.size
        needed = [Record.of(page.ref.key, page.record, shared=True) for page in draft.pages]
        added = sum(len(each.record) for each in rewritten) + sum(len(each.data) for each in needed)
        draft = msgspec.structs.replace(
            draft,
            unlinked=tuple(dict.fromkeys(unlinked)),
            grace_ms=0,
            rewritten=tuple(rewritten),
            freed_bytes=freed,
            added_bytes=added,
        )
        return _Step(draft, needed, len(changed), is_last=erasing is not None)

    def _rewritten(
        self, rows: Sequence[Row], names: Collection[str]
    ) -> Operation[tuple[list[list[Rewritten]], int]]:
        """Return the records that replace those that need one of these bases, and the size of the latter.

        There is a list for each snapshot of which a record is replaced: its own, or those of its members.
        Raises `Damaged` if a snapshot cannot be read: it would be lost with the base.
        """
        keys = [self._ctx.keys.id(self._dataset, row.id) for row in rows]
        made, freed = list[list[Rewritten]](), 0
        for row, key, reply in zip(
            rows, keys, (yield from ask_all(self._ctx, [Get(key) for key in keys])), strict=True
        ):
            try:
                stored = yield from decoded(self._ctx, self._dataset, row, value_of(reply))
            except Damaged as error:
                raise type(error)(
                    f"version {row.version} is stored as a difference from what is to be erased, and cannot "
                    f"be read, so nothing was erased: {error.args[0]}. Run swapstore repair, and erase again",
                    key=error.key,
                ) from error
            own = list[Rewritten]()
            if row.is_group:
                own += yield from stored_alone(self._ctx, self._dataset, row, stored.payload, names)
            if stored.encoded.base in names:
                text_only = self._ctx.policy.text_only
                form = alone([stored], compress=True, text_only=text_only).encoded[row.version]
                own.append(Rewritten(key, stored.header, stored.anew(form)))
                freed += len(stored.record)
            if own:
                made.append(own)
        return made, freed

    # --- what is deleted ---------------------------------------------------------------------------

    def _keys_that_go(
        self, base: Manifest, erasing: Erasing, names: Collection[str], replaced: Collection[str]
    ) -> Operation[list[str]]:
        """Return the keys that the swap deletes which erases the row, besides the pages that it replaces.

        The records come last: should a server stop in between, they tell the next call what to search for.
        """
        ctx, dataset, row = self._ctx, self._dataset, erasing.row
        keys = yield from self._unnamed_pages(base, replaced)
        going = set(names)
        if row.base is not None and not (yield from self._is_needed(base, erasing)):
            going.add(row.base)
        for name in sorted(going):
            keys += yield from keys_of_base(ctx, dataset, name)
        keys += yield from self._unnamed_records(base)
        return keys + (yield from self._own_keys(base, row))

    def _unnamed_pages(self, base: Manifest, replaced: Collection[str] = ()) -> Operation[list[str]]:
        """Return the permanent pages that may have the row and that a manifest does not name, or not now."""
        keys: list[str] = []
        for page in self._copies.pages:
            is_needed = page.key not in replaced and (
                yield from is_named(self._ctx, base, page, besides=None)
            )
            keys += [] if is_needed else [page.key]
        return keys

    def _own_keys(self, base: Manifest, row: Row) -> Operation[list[str]]:
        """Return the keys of a row's records, without those that belong to another row with the same id.

        An id can be published again after its records were lost.
        """
        ctx, dataset = self._ctx, self._dataset
        keys = yield from keys_of(ctx, dataset, row)
        id_key, ts_key = ctx.keys.records(dataset, row)
        head = yield from ask(ctx, Peek(id_key, HEADER_BYTES))
        try:
            times = {row.ts, records.entry_of(head, id_key).ts}
        except Corrupt:
            times = {row.ts}
        for ts in times:
            query = search.ById(row.id, ts, besides=row.version)
            other = yield from find(ctx, dataset, search.search(base, query, hidden=True))
            if other is None:
                continue
            if not records.states(head, row) or records.states(head, other):
                return [ts_key] if other.ts != row.ts else []
            return [key for key in keys if key != ts_key or other.ts != row.ts]
        return keys

    def _is_needed(self, base: Manifest, erasing: Erasing) -> Operation[bool]:
        """Say whether the base of the erased row is needed without it."""
        name = erasing.row.base
        if base.log.base is not None and base.log.base.name == name:
            return True
        if any(row is not None and row.base == name for row in (erasing.latest, erasing.pinned)):
            return True
        others = search.ByBase(name or "", frozenset({erasing.row.version}))
        return (yield from is_in_log(self._ctx, self._dataset, base.log, others))

    def _unnamed_records(self, base: Manifest) -> Operation[list[str]]:
        """Return the permanent records under the id that no row of a manifest names."""
        keys: list[str] = []
        for name in self._copies.records:
            keys += [] if (yield from is_named(self._ctx, base, name, besides=None)) else [name.key]
        return keys

    def _without_row(
        self, base: Manifest, rows: Sequence[Row], names: Collection[str]
    ) -> Operation[_Step | None]:
        """Return the swap that deletes permanent keys which are left although the row has gone."""
        keys = yield from self._unnamed_pages(base)
        for name in sorted(self._copies.bases):
            keys += yield from keys_of_base(self._ctx, self._dataset, name)
        keys += yield from self._unnamed_records(base)
        if not keys and not rows:
            return None
        step = yield from self._anew(base, rows, names, None)
        draft = msgspec.structs.replace(step.draft, unlinked=(*step.draft.unlinked, *keys))
        return _Step(draft, step.needed, step.stored_anew)

    def report(self, current: Manifest) -> Erased:
        """Return what was done. Raises `NotFound` if there was no such snapshot, nor anything left of it."""
        row = self.row
        if row is None and self._left is None:
            what = f"id {self._id!r}" if self._id is not None else f"version {shown(self._version)}"
            raise NotFound(
                f"no committed snapshot has {what} in {self._ctx.place}, and no key there holds anything of "
                "one; `swapstore history` lists those there are"
            )
        return Erased(
            dataset=self._dataset,
            id=self._id if row is None else row.id,
            version=self._version if row is None else row.version,
            etag=current.etag,
            latest=current.head.latest.version,
            stored_anew=self._stored_anew,
        )
