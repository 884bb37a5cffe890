"""What an operator does to what is served: checked, and handed to the operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore import checks
from swapstore.calls.about import about
from swapstore.migration import mirror
from swapstore.protocol import pointers

if TYPE_CHECKING:
    from swapstore.models import Status
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation


class Steering:
    """The calls of operators."""

    _context: Context

    def pin(self, dataset: str, *, id: str) -> Operation[Status]:  # noqa: A002
        """Serve this snapshot to every reader of the latest until `unpin`; publishing goes on behind it.

        Raises `NotFound` unless the id is committed, `PayloadMissing` or `Corrupt` if it cannot be read.
        """
        with about(dataset) as name:
            return (
                yield from mirror.after(
                    self._context, pointers.pin(self._context, name, checks.snapshot_id(id))
                )
            )

    def unpin(self, dataset: str) -> Operation[Status]:
        """Serve the latest snapshot again. Harmless when nothing is pinned."""
        with about(dataset) as name:
            return (yield from mirror.after(self._context, pointers.unpin(self._context, name)))

    def rollback(self, dataset: str, *, id: str) -> Operation[Status]:  # noqa: A002
        """Make this snapshot the latest, until a publish that is not older than it.

        Snapshots after it stay in the history. Raises like `pin`.
        """
        with about(dataset) as name:
            return (
                yield from mirror.after(
                    self._context, pointers.rollback(self._context, name, checks.snapshot_id(id))
                )
            )
