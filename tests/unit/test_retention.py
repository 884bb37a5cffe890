"""What retention takes out of the log, as pure code: old pages, and never the last rows."""

from __future__ import annotations

import pytest

from swapstore.format import append, manifest, pages, records, retention
from swapstore.format.append import Retained, Stamp
from swapstore.format.keys import Keys
from swapstore.format.retention import Limits
from swapstore.models import Entry

KEYS = Keys("ns")
ONE = Limits(max_count=1)


def published(count: int) -> tuple[manifest.Manifest, dict[str, pages.Page]]:
    """A manifest with this many rows, and its pages by key."""
    base: manifest.Manifest | None = None
    stored: dict[str, pages.Page] = {}
    for number in range(1, count + 1):
        draft = append.append(
            base,
            Entry(id=f"id-{number}", ts=number, size=2, sha256=records.digest(b"{}")),
            dataset="mena",
            dedupe_key=None,
            stamp=stamp(number),
        )
        stored |= {page.ref.key: pages.parse(page.record, page.ref, "mena") for page in draft.pages}
        base = draft.manifest
    assert base is not None
    return base, stored


def stamp(number: int) -> Stamp:
    return Stamp(now_ms=number, nonce=f"{number:016x}", new_epoch="e" * 12, keys=KEYS)


def pruned(base: manifest.Manifest, stored: dict[str, pages.Page]) -> manifest.Manifest:
    """Take all out that can be, swap after swap, each time what is ripe."""
    for number in range(1000, 1010):
        head = retention.hidden(base.head, base.log, ONE)
        ripe = {ref.key: stored[ref.key] for ref in retention.ripe(head, base.log, ONE)}
        draft = append.repoint(base, stamp=stamp(number), retained=Retained(limits=ONE, pages=ripe))
        if not ripe:
            return draft.manifest
        base = draft.manifest
    pytest.fail("something stays ripe")


@pytest.mark.parametrize("count", [1, 8, 31, 32, 39, 40, 47, 48, 71, 72, 73, 79, 80, 103, 104, 700])
def test_the_last_rows_stay(count: int) -> None:
    """A dedupe key, an id or a lost reply is looked up among the last rows, and one of them is gone."""
    base, stored = published(count)
    log = pruned(base, stored).log
    assert log.rows == base.log.rows, "nothing leaves from the tail"
    least = min(count, manifest.recent())
    assert least <= log.count < least + manifest.F, "whole pages leave, and all that can"
    first = log.pages[0].first_version if log.pages else log.rows[0].version
    assert (first, log.rows[-1].version) == (count - log.count + 1, count)


@pytest.mark.parametrize(
    ("count", "complete"),
    [(1, 0), (31, 0), (32, 1), (33, 9), (39, 9), (40, 9), (41, 17), (71, 41), (72, 65), (88, 65), (96, 65)],
)
def test_where_the_log_is_complete(count: int, complete: int) -> None:
    """A follower, or a lost commit, takes a row that left the log for one that never was."""
    base, stored = published(count)
    assert retention.complete_from(base.log) == complete
    left = pruned(base, stored).log
    first = left.pages[0].first_version if left.pages else left.rows[0].version
    after = retention.complete_from(left)
    assert after <= complete, "a page of references that was opened shows more"
    assert after == 0 or first <= after


def test_a_log_of_which_rows_left_is_not_complete_from_its_beginning() -> None:
    """A row that was unlinked is taken for one that never was, because the log is short."""
    base, stored = published(40)
    left = pruned(base, stored).log
    assert left.count == manifest.recent()
    assert retention.complete_from(left) == 9
