"""What became of a draft: told by the manifest that is stored now, also when a reply was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.errors import Damaged, OutcomeUnknown, ReplyLost, SwapstoreError, Unavailable
from swapstore.format import manifest, search
from swapstore.operations.operation import Operation
from swapstore.operations.steps import find, load_manifest

if TYPE_CHECKING:
    from swapstore.format.append import Draft
    from swapstore.format.manifest import Manifest
    from swapstore.models import Row
    from swapstore.operations.context import Context


@attrs.frozen
class Swapped:
    """The draft is committed."""


@attrs.frozen
class Moved:
    """Another commit came first: the draft is not committed and never will be."""

    current: Manifest | None


@attrs.frozen
class Taken:
    """A permanent record has the key of one of the draft's: this id was committed before."""

    key: str


@attrs.frozen
class Vanished:
    """A record that was there, and that only the store has, is not there any more."""

    key: str


def settle(
    ctx: Context, draft: Draft, current: Manifest | None, lost: ReplyLost | None
) -> Operation[Swapped | Moved | None]:
    """Say what became of the draft, now that `current` is stored. None: nothing yet, send it again."""
    base, ours = draft.base, draft.manifest
    if current is None:
        return None if base is None else Moved(None)
    if current.etag == ours.etag:
        return Swapped()
    if base is not None and current.etag == base.etag:
        return None
    if current.epoch != ours.epoch or current.version <= ours.version:
        return Moved(current)
    # Later versions stand on version n+1: if that row is ours, so was the commit.
    row = _in_tail(current, ours.version)
    if row is None and lost is not None:
        row = yield from _in_pages(ctx, draft, current, lost)
    if row is None and lost is not None and _may_be_gone(draft, current):
        raise unknown(draft, lost) from lost
    return Swapped() if row is not None and row == draft.row else Moved(current)


def _in_tail(current: Manifest, version: int) -> Row | None:
    return next((row for row in current.log.rows if row.version == version), None)


def _in_pages(ctx: Context, draft: Draft, current: Manifest, lost: ReplyLost) -> Operation[Row | None]:
    """Find the row in the pages, hidden or not: retention may hide what was committed a moment ago."""
    query = search.ByVersion(draft.manifest.version)
    try:
        return (yield from find(ctx, current.head.dataset, search.search(current, query, hidden=True)))
    except (Damaged, Unavailable) as error:
        raise unknown(draft, error) from lost


def _may_be_gone(draft: Draft, current: Manifest) -> bool:
    """Say whether the draft, were it committed, might have left no trace in the log.

    It leaves none without a row of its own. A row leaves the log only when it is hidden, and not while it
    is one of the last F.
    """
    if draft.row is None:
        return True
    last = current.log.rows[-manifest.F :]
    return not current.head.shows(draft.row) and bool(last) and draft.row.version < last[0].version


def ask_after_loss(ctx: Context, draft: Draft, lost: ReplyLost) -> Operation[Manifest | None]:
    """Read the manifest after a lost reply; `OutcomeUnknown` if it cannot be read."""
    try:
        return (yield from load_manifest(ctx, draft.manifest.head.dataset))
    except SwapstoreError as error:
        raise unknown(draft, error) from lost


def unknown(draft: Draft, cause: SwapstoreError) -> OutcomeUnknown:
    """Build the error for a commit whose outcome could not be learned."""
    row = draft.row
    size = len(draft.manifest.raw) + (row.size if row else 0)
    todo = f"publish again with id={row.id!r}" if row else "read the status, and repeat the call if need be"
    return OutcomeUnknown(
        f"the commit of version {draft.manifest.version} was sent and its outcome could not be learned "
        f"({cause.args[0]}); {todo}. If it persists: does the store take requests of {size:,} bytes?",
        id=row.id if row else None,
    )
