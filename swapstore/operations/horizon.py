"""What retention may have taken away unseen, as pure code: where a follower has to be told of a gap.

Versions have gaps of their own: a pin, a confirmation and a prune take one and add no row. Nothing in a log
tells such a version from that of a row that was let go of. So it has to be told by where the version is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.format import manifest as manifests

if TYPE_CHECKING:
    from swapstore.format.manifest import Log, Manifest


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
