"""The two ways to commit without scripts, by the names that tests use."""

from __future__ import annotations

import enum

from swapstore.protocol.commit import Committer
from swapstore.protocol.scriptless.committer import ByCompareAndSet, UnderLease


class Way(enum.Enum):
    """Compare-and-set, or a lease."""

    COMPARE = "compare-and-set"
    LEASE = "a plain SET under a lease"

    @property
    def committer(self) -> type[Committer]:
        return ByCompareAndSet if self is Way.COMPARE else UnderLease
