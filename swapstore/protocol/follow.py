"""What retention may have taken away unseen, as pure code: where a follower has to be told of a gap.

Versions have gaps of their own: a pin, a confirmation and a prune take one and add no row. Nothing in a log
tells such a version from that of a row that was let go of. So it has to be told by where the version is.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal

import attrs

from swapstore.errors import Damaged, Unavailable
from swapstore.format import manifest as manifests
from swapstore.format import search
from swapstore.models import Gap
from swapstore.protocol.load import current_manifest, find, load_manifest, own
from swapstore.protocol.operation import Listen, Operation, Wait
from swapstore.protocol.read import through_manifest

if TYPE_CHECKING:
    from swapstore.format.manifest import Log, Manifest
    from swapstore.format.search import Onward
    from swapstore.models import Row
    from swapstore.protocol.context import Context


def may_lack_rows(manifest: Manifest, after: int, until: int) -> bool:
    """Say whether rows between two versions, which the log does not hold, may have been let go of.

    - A log that was never cut begins with version 1. What is before its oldest row has left it.
    - The last F rows never leave the log: from the oldest of them on nothing is lacking.
    - In between a row is let go of only when it is hidden: when it is below `first_version`, or old.

    Of those that are hidden for their age the last rule says nothing, for they go from the old end: all but
    a snapshot that came late (a backfill), in the midst of younger ones. If that is let go of before a
    follower that is more than F commits behind comes by, nothing tells that it was there.
    """
    first = after + 1
    if first >= until:
        return False
    if first < _oldest(manifest.log, until):
        return True
    return _whole_from(manifest) > first < manifest.head.first_version


def _whole_from(manifest: Manifest) -> int:
    """The version from which on every row is in the log."""
    rows = manifest.log.rows
    if not manifest.log.pages and len(rows) < manifests.F:
        return 0  # too few for any to have left
    return rows[-manifests.F :][0].version if rows else manifest.version + 1


def _oldest(log: Log, otherwise: int) -> int:
    if log.pages:
        return log.pages[0].first_version
    return log.rows[0].version if log.rows else otherwise


# --- follow ------------------------------------------------------------------------------------
#
# Follow: every commit in its order, none skipped and none twice, for as long as somebody asks.
#
# The manifest is the truth, and a follower knows its place in it: the last row it gave. A hint says that it
# is worth looking; a hint that is lost costs time, never a commit, for the follower also looks by itself,
# every
# `poll` seconds at the latest. It begins to listen before it looks for the last time, so that a commit
# between the look and the wait is heard.
#
# A look asks whether the manifest is still the one that was seen last. Then it takes the next rows, a page at
# a time: a follower that is a million behind holds 32 of them.
#
# Its place may be gone. Retention passed it, or the store itself went back (a flush, a restored backup, a
# failover that lost writes): then a `Gap` says so. Repair renames pages, gives back rows, may give them other
# versions; it does not change ids. So a follower remembers the ids it gave last, and finds its place by them.


LOG = logging.getLogger("swapstore")
REMEMBERED = 4096  # rows given last, by which a place is found again
FIRST_WAIT_S = 0.05  # in an outage; doubles up to `poll`


@attrs.frozen
class Mark:
    """What a row is known by, also when it has another version."""

    id: str
    ts: int
    sha256: str
    committed_at: int
    version: int

    @classmethod
    def of(cls, row: Row) -> Mark:
        """The mark of a row."""
        return cls(row.id, row.ts, row.sha256, row.committed_at, row.version)

    def names(self, row: Row) -> bool:
        """Say whether a row is this one."""
        return (self.id, self.ts, self.sha256) == (row.id, row.ts, row.sha256)


class Follow:
    """The commits of a dataset from a place on. Each step gives some, or waits for some; it never ends."""

    def __init__(self, ctx: Context, dataset: str, *, after: int | None, poll_s: float) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._channel = ctx.keys.manifest(dataset)
        self._poll_s = poll_s
        self._begun = False
        self._failures = 0
        # The place.
        self._after = after
        self._position = after or 0  # rows up to this version are done with
        self._settled = after or 0  # up to this version nothing is lacking
        self._start = after or 0
        self._anchor: Mark | None = None  # the row of the position, as far as it is known
        self._given: OrderedDict[str, Mark] = OrderedDict()
        self._anywhere = False  # begin with whatever is there, and call nothing before it a gap
        # What is known of the line of versions.
        self._etag = self._epoch = ""
        self._repeated_to = 0  # rows up to this version may have been given before
        self._gap: Literal["retention", "reset"] | None = None  # to be told before the next row
        self._gap_after = 0

    def step(self) -> Operation[list[Row | Gap] | None]:
        """Return the next commits, perhaps none; the first step gives none, and only finds the place."""
        if not self._begun:
            yield from self._begin()
            self._begun = True
            return []
        try:
            found = (yield from through_manifest(self._ctx, self._dataset, self._look)) or []
        except Unavailable as error:
            yield Listen(self._after_failure(error), self._channel)
            return []
        if self._failures:
            self._failures = 0
            LOG.info("dataset %r can be followed again", self._dataset)
        if not found:
            jitter = self._ctx.random.uniform(0.5, 1)
            yield Listen(self._poll_s * jitter, self._channel)
        return found

    def _after_failure(self, error: Unavailable) -> float:
        """Return how long to wait. The first failure of an outage is logged: nobody else is told."""
        if not self._failures:
            LOG.warning(
                "dataset %r cannot be followed now: %s; trying until it can", self._dataset, error.args[0]
            )
        bound = min(self._poll_s, FIRST_WAIT_S * 2 ** min(self._failures, 30))
        self._failures += 1
        return self._ctx.random.uniform(bound / 2, bound)

    # --- the place to begin at ---------------------------------------------------------------------

    def _begin(self) -> Operation[None]:
        """Find the place. A store that does not answer now may never have been there: that is raised."""
        manifest = yield from current_manifest(self._ctx, self._dataset)
        for attempt in range(1, self._ctx.policy.read_attempts):
            if not self._is_beyond(manifest):
                break
            yield Wait(self._ctx.backoff(attempt))  # a replica may lag behind who wrote down the version
            manifest = yield from load_manifest(self._ctx, self._dataset)
        if self._is_beyond(manifest):
            self._lose_place()
        elif manifest is not None and self._after is None:
            self._position = self._start = manifest.version
            self._settle(manifest)
        elif manifest is not None:
            self._anywhere = self._after == 0
        if manifest is not None:
            self._note(manifest)

    def _is_beyond(self, manifest: Manifest | None) -> bool:
        return (self._after or 0) > (manifest.version if manifest else 0)

    def _note(self, manifest: Manifest) -> None:
        self._etag, self._epoch = manifest.etag, manifest.epoch

    def _settle(self, manifest: Manifest) -> None:
        """Note that all there is of a manifest was given."""
        self._settled, self._anywhere = manifest.version, False
        if manifest.log.rows:
            self._anchor = Mark.of(manifest.log.rows[-1])
            self._position = self._anchor.version

    # --- a look ------------------------------------------------------------------------------------

    def _look(self, manifest: Manifest) -> Operation[list[Row | Gap]]:
        if manifest.etag != self._etag:
            yield from self._find_place(manifest)
            self._note(manifest)
        onward = yield from find(self._ctx, self._dataset, search.onward(manifest, self._position))
        return self._given_of(manifest, onward)

    def _given_of(self, manifest: Manifest, onward: Onward) -> list[Row | Gap]:
        """Return the rows that are new to this follower, and the gaps between them. Does no I/O."""
        found: list[Row | Gap] = []
        for item in onward.items:
            if isinstance(item, int):
                if item > self._settled and not self._anywhere:
                    self._tell_gap("retention")
                continue
            if self._was_given(item):
                self._take_back_gap(item)
            else:
                lacking = may_lack_rows(manifest, max(self._position, self._settled), item.version)
                if lacking and not self._anywhere:
                    self._tell_gap("retention")
                if self._gap is not None or self._anywhere:
                    self._start = item.version - 1  # if what is before it comes back, it comes too late
                if self._gap is not None:
                    found.append(self._gap_before(item))
                found.append(own(item))
                self._anywhere = False
                self._remember(item)
            self._anchor, self._position = Mark.of(item), item.version
        if onward.at_end:
            self._settle(manifest)
        return found

    def _tell_gap(self, reason: Literal["retention", "reset"]) -> None:
        """Have a gap told before the next row."""
        if self._gap is None:
            self._gap, self._gap_after = reason, self._position

    def _gap_before(self, row: Row) -> Gap:
        assert self._gap is not None  # noqa: S101 - who calls has looked
        gap = Gap(dataset=self._dataset, after=self._gap_after, resumes_at=row.version, reason=self._gap)
        self._gap = None
        return gap

    def _take_back_gap(self, row: Row) -> None:
        """What seemed to be lost is there after all: a replica lagged for long."""
        if self._gap == "reset" and row.version >= self._gap_after:
            self._gap = None

    def _was_given(self, row: Row) -> bool:
        """Say whether a row is one that was given. A repair may not know when it was committed."""
        mark = self._given.get(row.id)
        if mark is None or not mark.names(row):
            return False
        return row.committed_at == mark.committed_at or row.version <= self._repeated_to

    def _remember(self, row: Row) -> None:
        self._given[row.id] = Mark.of(row)
        self._given.move_to_end(row.id)
        if len(self._given) > REMEMBERED:
            self._given.popitem(last=False)

    # --- the place in another manifest -------------------------------------------------------------

    def _find_place(self, manifest: Manifest) -> Operation[None]:
        """Find the place in a manifest that is not the one seen last."""
        anchor = self._anchor
        if anchor is None:
            if manifest.version < self._position:
                self._lose_place(manifest)
            return
        if manifest.epoch == self._epoch and (yield from self._stands(manifest, anchor)):
            return
        place = yield from self._place_of(manifest, anchor)
        if place is not None:
            # Repaired. Rows that two producers wrote at once may have changed places: look again from a
            # little before, and give only what was not given.
            self._anchor = place
            self._position = max(self._start, min(place.version, anchor.version) - manifests.F)
            self._settled = max(place.version, anchor.version)
        else:
            place = yield from self._newest_given(manifest)
            self._lose_place(manifest, place)
        self._repeated_to = manifest.version

    def _lose_place(self, manifest: Manifest | None = None, place: Mark | None = None) -> None:
        """Go on after a row that is still there, or else with all there is."""
        self._tell_gap("reset")
        self._anchor = place
        self._position = self._settled = self._start = place.version if place else 0
        self._anywhere = manifest is not None and place is None

    def _stands(self, manifest: Manifest, anchor: Mark) -> Operation[bool]:
        """Say whether the line of versions still leads through a row: no other row has its version."""
        if manifest.version < anchor.version:
            return False
        rows = manifest.log.rows
        if rows and anchor.version >= rows[0].version:
            row = next((row for row in rows if row.version == anchor.version), None)
        else:
            query = search.ByVersion(anchor.version)
            try:
                row = yield from find(self._ctx, self._dataset, search.in_log(manifest.log, query))
            except Damaged:
                return True  # a page that was passed already must not stop anybody
        return row is None or anchor.names(row)

    def _place_of(self, manifest: Manifest, mark: Mark) -> Operation[Mark | None]:
        """Find a row by its id, whatever its version is now."""
        query = search.ById(mark.id, mark.ts)
        row = yield from find(self._ctx, self._dataset, search.in_log(manifest.log, query))
        return Mark.of(row) if row is not None and mark.names(row) else None

    def _newest_given(self, manifest: Manifest) -> Operation[Mark | None]:
        """Find a row that was given and is still there: the newest, or nearly."""
        given = list(self._given.values())[::-1]
        step, at = 1, 0
        while at < len(given):
            place = yield from self._place_of(manifest, given[at])
            if place is not None:
                return place
            at, step = at + step, step * 2
        return None
