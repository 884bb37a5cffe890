"""Whether a publish may use permanent records that no version names.

Where a commit takes several commands, one that was cut leaves such records. Whoever publishes the same id,
time and content again finds them, and may use them unless they are being unlinked: then their TTL would take
them away once they are committed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.protocol.commit import origin_of
from swapstore.protocol.load import find_id
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from swapstore.format.append import Draft
    from swapstore.protocol.context import Context


def is_free(ctx: Context, draft: Draft) -> Operation[bool]:
    """Say whether no row of the base, hidden or not, names the id that a draft publishes."""
    if draft.base is None or draft.row is None:
        return True
    return (yield from find_id(ctx, draft.base, draft.row.id, hidden=True)) is None


def may_adopt(ctx: Context, draft: Draft) -> Operation[bool]:
    """Say whether permanent records of the same id, time and content may be used by this draft.

    A record that was in the log once may have its TTL on the way. What the log does not hide it has not let
    go of; for which version a record was written is in the ts record.
    """
    if not (yield from is_free(ctx, draft)):
        return False
    if draft.base is None or draft.row is None:
        return True
    head = draft.base.head
    origin = yield from origin_of(ctx, head.dataset, draft.row)
    if origin is None:
        return False
    is_other_line = origin.epoch != draft.base.epoch or origin.version > head.version
    return is_other_line or (origin.version >= head.first_version and draft.row.ts >= head.floor)
