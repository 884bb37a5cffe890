"""Follow: return every commit of a dataset in order, none skipped and none twice.

The manifest is the source of truth. A follower knows its place in it: the last row that it returned. When to
look again, `watch.py` decides: a lost hint costs time and never a commit.

Each look checks whether the stored manifest is still the one that was seen last. If it is another, the look
returns the next rows, one page at a time: a follower that is a million commits behind holds a page of rows.

A follower can lose its place in two ways, and reports both as a `Gap`: retention has unlinked rows that it
has not returned yet, or the store itself went back (a flush, a restored backup, a failover that lost
writes). After a repair the place is found again: a repair renames pages, restores rows and may give rows
other versions, but it never changes an id. So a follower remembers the ids that it returned last.

Gap detection infers from a version's place in the log that rows may be missing. A version without a row
proves nothing: a pin, a confirmation and a prune each take a version and add no row. See `may_lack_rows`.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from swapstore.arguments import shown
from swapstore.errors import Damaged, SwapstoreError, Unavailable
from swapstore.format import manifest as manifests
from swapstore.format import search
from swapstore.format.retention import complete_from
from swapstore.models import Gap
from swapstore.protocol.batching import batched
from swapstore.protocol.load import current_manifest, find, gather, load_manifest, own, published
from swapstore.protocol.operation import Operation, Wait
from swapstore.protocol.read import through_manifest
from swapstore.protocol.watch import Looked, Watch, warn_of_lost
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from swapstore.format.manifest import Log, Manifest
    from swapstore.format.search import Onward
    from swapstore.models import Row
    from swapstore.protocol.context import Context


LOG = logging.getLogger("swapstore")
REMEMBERED = 4096  # how many returned rows a follower remembers, to find its place after a repair


class FollowMany(Watch[tuple[str, "Row | Gap"]]):
    """Iterate over the commits of several datasets: pairs of a name and a row or gap.

    `after`: the last version of each dataset that the consumer has; see `Place`.
    """

    _done = "followed"

    def __init__(self, ctx: Context, after: Mapping[str, int | None], *, poll_s: float) -> None:
        names = tuple(after)
        super().__init__(ctx, names, poll_s=poll_s)
        self._places = {name: Place(ctx, name, after=version) for name, version in after.items()}
        self._begun = False
        self._error: SwapstoreError | None = None

    def step(self) -> Operation[list[tuple[str, Row | Gap]] | None]:
        """Return the next commits, perhaps none. The first step only finds the places, and returns none."""
        if self._begun:
            return (yield from super().step())
        beginning = {name: place.begin() for name, place in self._places.items()}
        outcomes = yield from batched(self._ctx, beginning)
        self._keep_error(outcomes)
        self._raise_error()
        self._begun = True
        return []

    def look(self, due: Collection[str] | None) -> Operation[Looked[tuple[str, Row | Gap]]]:
        """Return the next commits of these datasets, the oldest first of each."""
        self._raise_error()
        places = self._places if due is None else {name: self._places[name] for name in due}
        outcomes = yield from batched(self._ctx, {name: place.look() for name, place in places.items()})
        found = [
            (name, item)
            for name, items in outcomes.items()
            if not isinstance(items, SwapstoreError)
            for item in items
        ]
        failures = (error for error in outcomes.values() if isinstance(error, Unavailable))
        self._keep_error(outcomes)
        yield from warn_of_lost(self._ctx, [name for name, place in places.items() if place.went])
        if not found:
            self._raise_error()
        return Looked(found, frozenset(name for name, _ in found), next(failures, None))

    def _keep_error(self, outcomes: Mapping[str, object]) -> None:
        """Keep what waiting does not cure. At the beginning nothing is waited for: the address may be wrong.

        It is raised after the commits that were found beside it.
        """
        for name, error in outcomes.items():
            if isinstance(error, SwapstoreError) and not (self._begun and isinstance(error, Unavailable)):
                error.dataset = name
                self._error = error

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


class Follow:
    """Iterate over the commits of one dataset; see `FollowMany`."""

    def __init__(self, ctx: Context, dataset: str, *, after: int | None, poll_s: float) -> None:
        self._steps = FollowMany(ctx, {dataset: after}, poll_s=poll_s)

    def step(self) -> Operation[list[Row | Gap] | None]:
        """Return the next commits, perhaps none."""
        return [item for _, item in (yield from self._steps.step()) or []]


class Place:
    """A place in the log of one dataset, and what was returned up to it.

    `after`: the last version that the consumer has. None: begin with the next commit. 0: begin with the
    oldest row that there is.
    """

    def __init__(self, ctx: Context, dataset: str, *, after: int | None) -> None:
        self._ctx = ctx
        self._dataset = dataset
        # The place in the log.
        self._after = after
        self._position = after or 0  # rows up to this version are done
        self._complete_to = after or 0  # no row up to this version is missing
        self._start = after or 0  # rows up to this version are not returned any more
        self._anchor: Mark | None = None  # the row at the position, if it is known
        # The rows that were returned last, and how many gaps had told of a reset by then.
        self._returned: OrderedDict[str, tuple[Mark, int]] = OrderedDict()
        self._resets = 0
        self._any_start = False  # begin with the oldest row there is, without a gap before it
        self.is_published = False  # as far as the last look that got an answer has seen
        self.went = False  # since the look before
        # The line of versions that was seen last.
        self._etag = self._epoch = ""
        self._repeated_to = 0  # after a repair, rows up to this version may have been returned before
        self._gap: Literal["retention", "reset"] | None = None  # to be returned before the next row
        self._gap_after = 0

    def look(self) -> Operation[list[Row | Gap]]:
        """Return the next commits, up to a page of them, perhaps none."""
        self.went = False
        found = yield from through_manifest(self._ctx, self._dataset, self._look)
        self.went, self.is_published = self.is_published and found is None, found is not None
        return found or []

    # --- where to begin ----------------------------------------------------------------------------

    def begin(self) -> Operation[None]:
        """Find the place to begin at."""
        manifest = published((yield from current_manifest(self._ctx, self._dataset)))
        for attempt in range(1, self._ctx.policy.read_attempts):
            if not self._is_beyond(manifest):
                break
            yield Wait(self._ctx.backoff(attempt))  # a replica may lag behind the version the consumer has
            manifest = published((yield from load_manifest(self._ctx, self._dataset)))
        if self._is_beyond(manifest):
            self._lose_place()
            if manifest is not None:
                LOG.warning(
                    "dataset %r: version %s does not exist: the newest is %d. It was never there, or the "
                    "dataset was reset; following from the oldest commit",
                    self._dataset,
                    shown(self._after),  # it may have more digits than Python formats
                    manifest.version,
                )
        elif manifest is not None and self._after is None:
            self._position = self._start = manifest.version
            self._mark_complete(manifest)
        elif manifest is not None:
            self._any_start = self._after == 0
            self._anchor = yield from self._mark_before(manifest, self._position)
        if manifest is None:
            LOG.warning(
                "dataset %r: nothing is published by this name; waiting for a first commit",
                self._dataset,
            )
        else:
            self._note(manifest)
        self.is_published = manifest is not None

    def _mark_before(self, manifest: Manifest, version: int) -> Operation[Mark | None]:
        """Find the last row up to a version, by which a reset before the first look is noticed."""
        with suppress(Damaged):
            row = yield from self._row(manifest, search.UpToVersion(version))
            return None if row is None else Mark.of(row)
        return None

    def _is_beyond(self, manifest: Manifest | None) -> bool:
        return (self._after or 0) > (manifest.version if manifest else 0)

    def _note(self, manifest: Manifest) -> None:
        self._etag, self._epoch = manifest.etag, manifest.epoch

    def _mark_complete(self, manifest: Manifest) -> None:
        """Note that every row of a manifest was returned."""
        self._complete_to = manifest.version
        if manifest.log.rows:
            self._anchor = Mark.of(manifest.log.rows[-1])
            self._position = self._anchor.version

    # --- the next rows -----------------------------------------------------------------------------

    def _look(self, manifest: Manifest) -> Operation[list[Row | Gap]]:
        if manifest.etag != self._etag:
            yield from self._find_place(manifest)
            self._note(manifest)
        while True:
            onward = yield from gather(self._ctx, self._dataset, search.onward(manifest, self._position))
            found = self._next_of(manifest, onward)
            if found or onward.at_end:  # a page of rows that were returned before is no reason to wait
                return found

    def _next_of(self, manifest: Manifest, onward: Onward) -> list[Row | Gap]:
        """Return the rows that were not returned before, and the gaps between them."""
        found: list[Row | Gap] = []
        for item in onward.items:
            if isinstance(item, int):
                if item > self._complete_to and not self._any_start:
                    self._open_gap("retention")
                continue
            if self._was_returned(item):
                self._withdraw_gap(item)
            else:
                done = max(self._position, self._complete_to)
                may_lack = may_lack_rows(manifest, done, item.version, repaired_to=self._repeated_to)
                if may_lack and not self._any_start:
                    self._open_gap("retention")
                if self._is_given_again(item):
                    self._open_gap("reset")
                if self._gap is not None or self._any_start:
                    self._start = item.version - 1  # a row before this one that comes back comes too late
                if self._gap is not None:
                    found.append(self._gap_before(item))
                found.append(own(item))
                self._any_start = False
                self._remember(item)
            self._anchor, self._position = Mark.of(item), item.version
        if onward.at_end:
            self._mark_complete(manifest)
        return found

    def _open_gap(self, reason: Literal["retention", "reset"]) -> None:
        """Return a gap before the next row."""
        if self._gap is None:
            self._gap, self._gap_after = reason, self._position

    def _gap_before(self, row: Row) -> Gap:
        assert self._gap is not None  # noqa: S101 - the caller has checked
        gap = Gap(dataset=self._dataset, after=self._gap_after, resumes_at=row.version, reason=self._gap)
        self._resets += self._gap == "reset"
        self._gap = None
        return gap

    def _withdraw_gap(self, row: Row) -> None:
        """Return no gap after all: the row that seemed lost is there, because only a replica lagged."""
        if self._gap == "reset" and row.version >= self._gap_after:
            self._gap = None

    def _was_returned(self, row: Row) -> bool:
        """Say whether a row was returned before. A repair may not know when the row was committed."""
        mark, _ = self._returned.get(row.id, (None, 0))
        if mark is None or not mark.names(row):
            return False
        return row.committed_at == mark.committed_at or row.version <= self._repeated_to

    def _is_given_again(self, row: Row) -> bool:
        """Say whether a row was returned before, and no gap has said since then that it was lost."""
        mark, resets = self._returned.get(row.id, (None, 0))
        return mark is not None and mark.names(row) and self._resets == resets

    def _remember(self, row: Row) -> None:
        self._returned[row.id] = Mark.of(row), self._resets
        self._returned.move_to_end(row.id)
        if len(self._returned) > REMEMBERED:
            self._returned.popitem(last=False)

    # --- the place in another manifest -------------------------------------------------------------

    def _find_place(self, manifest: Manifest) -> Operation[None]:
        """Find the place in a manifest that is not the one seen last."""
        anchor = self._anchor
        if anchor is None:
            # Versions of another epoch are not those that the consumer has. It may be only a repair; but
            # going on by version could skip commits.
            is_other = manifest.version < self._position or manifest.epoch != self._epoch
            if self._position and is_other:
                self._lose_place()
            return
        went_back = False
        if manifest.epoch == self._epoch:
            if (yield from self._is_same_line(manifest, anchor)):
                return
            went_back = True  # only a new epoch gives a row another version
        place = None if went_back else (yield from self._place_of(manifest, anchor))
        if place is not None:
            # The log was repaired. Rows that two producers committed concurrently may have changed places. So
            # go back a little, and return only the rows that were not returned before.
            self._anchor = place
            self._position = max(self._start, min(place.version, anchor.version) - manifests.recent())
            self._complete_to = max(place.version, anchor.version)
        else:
            place = yield from self._newest_returned(manifest, in_place=went_back)
            self._lose_place(place)
        self._repeated_to = manifest.version

    def _lose_place(self, place: Mark | None = None) -> None:
        """Go on after `place`, a returned row that is still there, or else with the oldest row there is."""
        self._open_gap("reset")
        self._anchor = place
        self._position = self._complete_to = self._start = place.version if place else 0

    def _is_same_line(self, manifest: Manifest, anchor: Mark) -> Operation[bool]:
        """Say whether the log continues the one that was followed: no other row has the anchor's version."""
        row = yield from self._row(manifest, search.ByVersion(anchor.version))
        if row is None:  # unlinked by retention, or erased; a row that cannot have been was undone
            log = manifest.log
            return anchor.version < complete_from(log) or anchor.version in log.erased
        return anchor.names(row)

    def _row(self, manifest: Manifest, query: search.Query) -> Operation[Row | None]:
        """Find a row in the log. None: there is none, or its page is damaged.

        Raises `Damaged` if the manifest has been replaced, so that the next one is looked at.
        """
        try:
            return (yield from find(self._ctx, self._dataset, search.in_log(manifest.log, query)))
        except Damaged:
            current = yield from load_manifest(self._ctx, self._dataset)
            if current is None or current.etag != manifest.etag:
                raise
            return None  # a damaged page behind the follower's place must not stop it

    def _place_of(self, manifest: Manifest, mark: Mark) -> Operation[Mark | None]:
        """Find a row by its id. Its version may be another one now."""
        query = search.ById(mark.id, mark.ts)
        row = yield from find(self._ctx, self._dataset, search.in_log(manifest.log, query))
        return Mark.of(row) if row is not None and mark.names(row) else None

    def _newest_returned(self, manifest: Manifest, *, in_place: bool) -> Operation[Mark | None]:
        """Find the newest returned row that is still there, or one near it: the steps back double.

        `in_place`: with the version that it had. Another one is that of a later commit of the same content.
        """
        returned = list(self._returned.values())[::-1]
        step, at = 1, 0
        while at < len(returned):
            mark, _ = returned[at]
            place = yield from self._place_of(manifest, mark)
            if place is not None and (not in_place or place.version == mark.version):
                return place
            at, step = at + step, step * 2
        return None


class Mark(Struct, frozen=True):
    """What identifies a row, also after a repair has given it another version."""

    id: str
    ts: int
    sha256: str
    committed_at: int
    version: int

    @classmethod
    def of(cls, row: Row) -> Mark:
        """Return the mark of a row."""
        return cls(row.id, row.ts, row.sha256, row.committed_at, row.version)

    def names(self, row: Row) -> bool:
        """Say whether a row is the marked one."""
        return (self.id, self.ts, self.sha256) == (row.id, row.ts, row.sha256)


# --- gap detection ---------------------------------------------------------------------------------


def may_lack_rows(manifest: Manifest, after: int, until: int, *, repaired_to: int = 0) -> bool:
    """Say whether rows between two versions may have been unlinked by retention. The log holds none of them.

    `repaired_to`: up to this version the log was repaired. If its manifest was lost, so was what it hides.

    - A log that was never cut begins with version 1. Rows before its oldest row were unlinked, or erased.
    - The last rows never leave the log, so no row is missing after the oldest of them: see `complete_from`.
    - In between, a row is unlinked only when it is hidden: its version is below `first_version`, or its `ts`
      is below `floor`. A repair of a manifest that was lost shows again all that it finds, so after a repair
      a row may be missing anywhere in between.

    The last rule does not cover rows that are hidden for their age. They leave the log from its old end,
    except for a backfilled snapshot among younger ones. When such a row is unlinked before a follower that
    is further behind than that has read it, nothing shows that it was there.
    """
    first = after + 1
    while first in manifest.log.erased:
        first += 1
    if first >= until:
        return False
    if first < _oldest(manifest.log, until):
        return True
    return complete_from(manifest.log) > first < max(manifest.head.first_version, repaired_to)


def _oldest(log: Log, otherwise: int) -> int:
    """Return the version of the oldest row in the log."""
    if log.pages:
        return log.pages[0].first_version
    return log.rows[0].version if log.rows else otherwise
