"""Adoption: whether a publish may use permanent records that no version names.

Where a commit takes several commands, a publish that is cut short leaves such records. A publish of the same
id, `ts` and content finds them. It may use them, unless they are being unlinked: then a TTL that is set late
would remove them after they are committed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.protocol.commit import read_origin
from swapstore.protocol.load import find_id
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from swapstore.format.append import Draft
    from swapstore.protocol.context import Context


def is_free(ctx: Context, draft: Draft) -> Operation[bool]:
    """Say whether the id that a draft publishes is free: no row of the base names it, hidden or not."""
    if draft.base is None or draft.row is None:
        return True
    return (yield from find_id(ctx, draft.base, draft.row.id, hidden=True)) is None


def may_adopt(ctx: Context, draft: Draft) -> Operation[bool]:
    """Say whether this draft may use permanent records of the same id, `ts` and content.

    The ts record says for which version they were written. Their row was never in this log if that version is
    of another epoch, or later than the base. If the log would still show that version and `ts`, the row was
    not unlinked. Otherwise the command that gives the records a TTL may still be under way.
    """
    if not (yield from is_free(ctx, draft)):
        return False
    if draft.base is None or draft.row is None:
        return True
    head = draft.base.head
    origin = yield from read_origin(ctx, head.dataset, draft.row)
    if origin is None:
        return False
    is_other_line = origin.epoch != draft.base.epoch or origin.version > head.version
    return is_other_line or (origin.version >= head.first_version and draft.row.ts >= head.floor)
