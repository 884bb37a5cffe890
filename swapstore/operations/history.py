"""History: the rows of one manifest, newest first, a page at a time.

The walk belongs to the manifest it began on. So however slowly it is read, it shows one committed version,
each row once, and never holds more than a page of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore import search
from swapstore.models import Row
from swapstore.operations.lookup import own
from swapstore.operations.read import through_manifest
from swapstore.operations.steps import Operation, load_page

if TYPE_CHECKING:
    from swapstore.manifest import Manifest
    from swapstore.operations.context import Context
    from swapstore.search import Cursor


@attrs.frozen
class Stretch:
    """Some rows, newest first, and where to go on (None: that was all)."""

    rows: list[Row]
    rest: Cursor | None


def begin_history(ctx: Context, dataset: str, *, before: int | None) -> Operation[Stretch]:
    """Read the first stretch. Nothing published: no rows."""

    def view(manifest: Manifest) -> Operation[Stretch]:
        return _walk(ctx, dataset, search.walk(manifest, before=before))

    return (yield from through_manifest(ctx, dataset, view)) or Stretch([], None)


def go_on(ctx: Context, dataset: str, cursor: Cursor) -> Operation[Stretch]:
    """Read the next stretch."""
    return (yield from _walk(ctx, dataset, cursor))


def _walk(ctx: Context, dataset: str, cursor: Cursor) -> Operation[Stretch]:
    while True:
        rows, page_ref, rest = cursor.step()
        if page_ref is None:
            return Stretch(list(map(own, rows)), None)
        if rows:
            return Stretch(list(map(own, rows)), attrs.evolve(rest, ahead=(*rest.ahead, page_ref)))
        cursor = rest.opened((yield from load_page(ctx, dataset, page_ref)))
