"""Whether a manifest names something.

What cannot be disproved, because a page is damaged, counts as named: a record too many is found by verify,
one too few is a loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.errors import Damaged
from swapstore.format import search
from swapstore.operations.operation import Operation
from swapstore.operations.steps import find

if TYPE_CHECKING:
    from swapstore.format.manifest import Manifest
    from swapstore.operations.context import Context


def is_in_log(ctx: Context, current: Manifest, version: int) -> Operation[bool]:
    """Say whether the log itself, hidden or not, holds the row of a version."""
    searching = search.in_log(current.log, search.ByVersion(version))
    try:
        return (yield from find(ctx, current.head.dataset, searching)) is not None
    except Damaged:
        return True


def is_row_named(ctx: Context, current: Manifest, version: int) -> Operation[bool]:
    """Say whether the header or the log names the row of a version."""
    return current.head.keeps_alive(version) or (yield from is_in_log(ctx, current, version))


def is_page_named(ctx: Context, current: Manifest, key: str, first_version: int) -> Operation[bool]:
    """Say whether the log names a page, whose first row has this version."""
    try:
        return (yield from find(ctx, current.head.dataset, search.is_named(current, key, first_version)))
    except Damaged:
        return True
