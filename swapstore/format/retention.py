"""What retention hides, and what it lets go of, as pure code.

Hiding is at once: `floor` and `first_version` in the header move up, and what lies below either is not
there for a reader. Letting go takes it out of the log, in the same swap that gives its records the reader
grace as their TTL. That is done in bounded steps: hidden rows of the tail, then whole pages. A row stays in
the log while it is one of the last F, hidden or not, so that a dedupe key and a lost reply find it.

A row in the log has permanent records, hidden or not. So its id is taken until the row is let go of, and
nothing that is let go of can be somebody else's by then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.format import manifest

if TYPE_CHECKING:
    from swapstore.format.manifest import Head, Log
    from swapstore.format.pages import Page
    from swapstore.models import Ref, Row

WIDEST = 64  # references in a manifest, beyond which no page is opened that is still shown in part


@attrs.frozen
class Limits:
    """Retention at a moment: rows with a `ts` below `floor` go, and all but the newest `max_count`."""

    floor: int = 0
    max_count: int | None = None


def hidden(head: Head, log: Log, limits: Limits) -> Head:
    """Move `floor` and `first_version` up to the limits; they never move down."""
    first_version = head.first_version
    if limits.max_count is not None and log.count > limits.max_count:
        first_version = max(first_version, _version_at(log, log.count - limits.max_count))
    return attrs.evolve(head, floor=max(head.floor, limits.floor), first_version=first_version)


def _version_at(log: Log, index: int) -> int:
    """Return the version of the row with this index in the log, without loading a page.

    In a page whose versions have gaps it is that of the page's first row: some more rows are kept then.
    """
    for ref in log.pages:
        if index < ref.count:
            return ref.first_version + (index if _is_dense(ref) else 0)
        index -= ref.count
    return log.rows[index].version


def _is_dense(ref: Ref) -> bool:
    return ref.last_version - ref.first_version + 1 == ref.count


def trimmed(head: Head, log: Log) -> tuple[Log, list[Row]]:
    """Take the hidden rows out of the tail, but for the last F. Returns the log and the rows."""
    old, last = log.rows[: -manifest.F], log.rows[-manifest.F :]
    gone = [row for row in old if not head.shows(row)]
    if not gone:
        return log, []
    return attrs.evolve(log, rows=(*(row for row in old if head.shows(row)), *last)), gone


def ripe(head: Head, log: Log, limits: Limits) -> list[Ref]:
    """Return the references to pages that can be taken apart, those first that set most free.

    A page that is wholly hidden goes. A page of references makes room for those that it holds when it is
    the oldest that is hidden in part, unless the manifest would grow too wide, or when `max_count` ends
    somewhere in it and only they tell where.
    """
    ordered = sorted((ref for ref in log.pages if not head.opens(ref)), key=lambda ref: ref.count)
    left = [ref for ref in log.pages if ref.count > manifest.F and head.opens(ref)]
    if left and not head.shows_all(left[0]) and len(log.pages) < WIDEST:
        ordered.append(left[0])
    ends_in = _ends_in(log, limits)
    return ordered if ends_in is None or ends_in in ordered else [*ordered, ends_in]


def _ends_in(log: Log, limits: Limits) -> Ref | None:
    """Return the page of references that `max_count` cuts, if its own numbers do not tell where."""
    index = 0 if limits.max_count is None else log.count - limits.max_count
    for ref in log.pages:
        if index < ref.count:
            return ref if index > 0 and ref.count > manifest.F and not _is_dense(ref) else None
        index -= ref.count
    return None


def chosen(log: Log, pages: dict[str, Page], most: int) -> dict[str, Page]:
    """Return so many of the pages, and of those of references only as many as there is room for, or one."""
    room = max(1, (WIDEST - len(log.pages)) // (manifest.G - 1))
    references = [key for key, page in pages.items() if page.pages]
    return {key: page for key, page in list(pages.items())[:most] if key not in references[room:]}


def hides_more(before: Head, after: Head, ref: Ref) -> bool:
    """Say whether the later of two headers hides rows below a reference that the earlier one shows."""
    by_version = after.first_version > max(before.first_version, ref.first_version)
    by_age = after.floor > max(before.floor, ref.min_ts)
    return before.opens(ref) and (by_version or by_age)


def taken_apart(head: Head, log: Log, pages: dict[str, Page]) -> tuple[Log, list[Row], list[str]]:
    """Take pages that are ripe out of the log, given what they hold by their keys.

    A page of references is replaced by them; a page of rows goes. Returns the log, the rows that left it,
    and the keys of the pages that left it.
    """
    refs: list[Ref] = []
    rows: list[Row] = []
    keys: list[str] = []
    for ref in log.pages:
        page = pages.get(ref.key)
        if page is None or (page.rows and head.opens(ref)):
            refs.append(ref)
            continue
        keys.append(ref.key)
        refs += page.pages
        rows += page.rows
    return attrs.evolve(log, pages=tuple(refs)), rows, keys
