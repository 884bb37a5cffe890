"""What retention may have taken away unseen, as pure code: where a follower has to be told of a gap.

Versions have gaps of their own: a pin, a confirmation and a prune take one and add no row. Nothing in a log
tells such a version from that of a row that was let go of. So it has to be told by where the version is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore import manifest as manifests

if TYPE_CHECKING:
    from swapstore.manifest import Log, Manifest


def may_lack_rows(manifest: Manifest, after: int, until: int) -> bool:
    """Say whether rows between two versions, which the log does not hold, may have been let go of.

    - The last F rows never leave the log: from the oldest of them on nothing is lacking.
    - A row is let go of only when it is hidden. `first_version` hides what is below it, and `floor` what is
      old: that is let go of from the old end.

    A snapshot that came late (a backfill) can be old in the midst of younger ones. If it is hidden and let
    go of before a follower that is more than F commits behind comes by, nothing tells that it was there.
    """
    head, log = manifest.head, manifest.log
    first = after + 1
    if first >= until or first >= _whole_from(manifest):
        return False
    return first < head.first_version or (head.floor > 0 and first < _oldest(log, until))


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
