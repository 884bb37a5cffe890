"""How a store commits where no script runs, as tests name it."""

from __future__ import annotations

import enum

from swapstore.protocol.commit import Committer
from swapstore.protocol.scriptless.committer import ByCompareAndSet, UnderLease


class Way(enum.Enum):
    """The two committers without scripts."""

    COMPARE = "compare-and-set"
    LEASE = "a plain SET under a lease"

    @property
    def committer(self) -> type[Committer]:
        return ByCompareAndSet if self is Way.COMPARE else UnderLease
