"""Retention, as pure code: what it hides, and what it unlinks.

A row is hidden at once: `floor` and `first_version` in the header move up, and readers do not see rows below
either. It is unlinked later: one swap removes it from the log and gives its records the reader grace as
their TTL. That happens in bounded steps, of whole pages. The last `recent()` rows stay in the log, hidden or
not, so that repeated ids, dedupe keys and lost replies can be looked up there.

A row in the log has permanent records, hidden or not. So its id stays taken until the row is unlinked, and
no other snapshot can own those records by then.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from swapstore.format import manifest
from swapstore.structs import Struct

if TYPE_CHECKING:
    from swapstore.format.manifest import Head, Log
    from swapstore.format.pages import Page
    from swapstore.models import Ref, Row

WIDEST = 64  # with this many references, a manifest gets no more out of pages that are shown in part


class Limits(Struct, frozen=True):
    """Retention at one moment: hide rows with a `ts` below `floor`, and all but the newest `max_count`."""

    floor: int = 0
    max_count: int | None = None


def hidden(head: Head, log: Log, limits: Limits) -> Head:
    """Return the header with `floor` and `first_version` moved up to the limits. They never move down."""
    first_version = head.first_version
    if limits.max_count is not None and log.count > limits.max_count:
        first_version = max(first_version, _version_at(log, log.count - limits.max_count))
    return msgspec.structs.replace(head, floor=max(head.floor, limits.floor), first_version=first_version)


def _version_at(log: Log, index: int) -> int:
    """Return the version of the row with this index in the log, without loading a page.

    In a page whose versions have gaps, it is the version of the page's first row: this keeps a few more rows.
    """
    for ref in log.pages:
        if index < ref.count:
            return ref.first_version + (index if _is_dense(ref) else 0)
        index -= ref.count
    return log.rows[index].version


def _is_dense(ref: Ref) -> bool:
    return ref.last_version - ref.first_version + 1 == ref.count


def complete_from(log: Log) -> int:
    """Return the version from which on every row is still in the log, as far as that shows without a page.

    0: too few rows are there for any to have left.
    """
    complete = log.rows[0].version if log.rows else sys.maxsize
    room = manifest.recent() - len(log.rows)
    for ref in reversed(log.pages):
        room -= ref.count
        if room < 0:
            return complete
        complete = ref.first_version
    return 0 if room > 0 else complete


def _before_recent(head: Head, log: Log) -> list[Ref]:
    """Return the references to pages that hold none of the rows that never leave the log.

    Those that were dropped leave at any time.
    """
    dropped = [ref for ref in log.pages if ref.last_version <= head.dropped]
    room = manifest.recent() - len(log.rows)
    for at in range(len(log.pages), len(dropped), -1):
        if room <= 0:
            return list(log.pages[:at])
        room -= log.pages[at - 1].count
    return dropped


def ahead(log: Log, limits: Limits, now_ms: int) -> int:
    """Return how many rows were added since the oldest row could leave the log, were it not for its page.

    0 or less: it cannot, because the limits show it, or because it is one of the last rows. With `max_count`,
    its page leaves when there are F of them. With an age, that depends on how often snapshots are published.
    Only rows of the tail are counted then; before it is sealed, it holds more than F.
    """
    by_count = 0 if limits.max_count is None else log.count - limits.max_count
    hidden_for_ms = limits.floor - (log.pages[0].min_ts if log.pages else log.rows[0].ts)
    by_age = sum(now_ms - row.committed_at < hidden_for_ms for row in log.rows)
    return min(log.count - manifest.recent(), max(by_count, by_age))


def ripe(head: Head, log: Log, limits: Limits) -> list[Ref]:
    """Return the references to pages that can leave the log, in the order in which they should.

    A wholly hidden page can leave, unless it holds some of the last rows; the smallest ones come first. A
    page of references can be replaced by the references that it holds in two cases: if it is the oldest one
    that is hidden in part, unless the manifest would get too many references; or if `max_count` ends inside
    it, and only its references show where.
    """
    older = _before_recent(head, log)
    ordered = sorted((ref for ref in older if not head.opens(ref)), key=lambda ref: ref.count)
    left = [ref for ref in log.pages if ref.count > manifest.F and ref not in ordered]
    if left and not head.shows_all(left[0]) and len(log.pages) < WIDEST:
        ordered.append(left[0])
    ends_in = _ends_in(log, limits)
    return ordered if ends_in is None or ends_in in ordered else [*ordered, ends_in]


def _ends_in(log: Log, limits: Limits) -> Ref | None:
    """Return the page of references in which `max_count` ends, if its versions have gaps."""
    index = 0 if limits.max_count is None else log.count - limits.max_count
    for ref in log.pages:
        if index < ref.count:
            return ref if index > 0 and ref.count > manifest.F and not _is_dense(ref) else None
        index -= ref.count
    return None


def chosen(log: Log, pages: dict[str, Page], most: int) -> dict[str, Page]:
    """Return up to `most` pages: of the pages of references, as many as the manifest has room for, or one."""
    room = max(1, (WIDEST - len(log.pages)) // (manifest.G - 1))
    references = [key for key, page in pages.items() if page.pages]
    return {key: page for key, page in list(pages.items())[:most] if key not in references[room:]}


def hides_more(before: Head, after: Head, ref: Ref) -> bool:
    """Whether the later of two headers hides rows below a reference that the earlier one shows."""
    by_version = after.first_version > max(before.first_version, ref.first_version)
    by_age = after.floor > max(before.floor, ref.min_ts)
    return before.opens(ref) and (by_version or by_age)


def taken_apart(head: Head, log: Log, pages: dict[str, Page]) -> tuple[Log, list[Row], list[str]]:
    """Remove pages from the log, given their content by key.

    A page of references is replaced by its references, a hidden page of rows is removed. Rows of the tail
    leave if they were dropped. Returns the log, and the rows and the keys of the pages that left it.
    """
    older = _before_recent(head, log)
    refs: list[Ref] = []
    rows = [row for row in log.rows if row.version <= head.dropped]
    keys: list[str] = []
    for ref in log.pages:
        page = pages.get(ref.key)
        if page is None or (page.rows and (head.opens(ref) or ref not in older)):
            refs.append(ref)
            continue
        keys.append(ref.key)
        refs += page.pages
        rows += page.rows
    tail = log.rows if not rows else tuple(row for row in log.rows if row.version > head.dropped)
    return msgspec.structs.replace(log, pages=tuple(refs), rows=tail), rows, keys
