"""The part of a `Store` that looks after what is stored: retention, and whether all is as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.errors import InvalidInput
from swapstore.face import Face
from swapstore.models import Retention
from swapstore.operations import retain

if TYPE_CHECKING:
    from swapstore.models import Pruned


class Upkeep(Face):
    """What an operator, or a cron job of theirs, calls now and then."""

    def prune(self, dataset: str, *, retention: Retention | None = None) -> Pruned:
        """Apply retention now: hide what is past its bounds, and let go of all that can be let go of.

        `retention` is the store's own unless given. Publishing does the same a little at a time; this is
        for bounds that have become tighter, and for datasets that nobody publishes to. Raises `NotFound`
        when nothing is published.
        """
        with self._about(dataset) as name:
            if retention is not None and not isinstance(retention, Retention):
                raise InvalidInput(f"retention must be a Retention, not {type(retention).__name__}")
            return self._run(retain.prune(self._context, name, retain.limits(self._context, retention)))
