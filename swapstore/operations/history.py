"""History: the rows of one manifest, newest first, a page at a time.

The walk belongs to the manifest it began on. So however slowly it is read, it shows one committed version,
each row once, and never holds more than a page of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.format import search
from swapstore.operations.lookup import own
from swapstore.operations.operation import Operation
from swapstore.operations.read import through_manifest
from swapstore.operations.steps import load_page

if TYPE_CHECKING:
    from swapstore.format.manifest import Manifest
    from swapstore.format.search import Cursor
    from swapstore.models import Row
    from swapstore.operations.context import Context


class History:
    """A walk through the rows of a dataset; nothing published: no rows."""

    def __init__(self, ctx: Context, dataset: str, *, limit: int | None, before: int | None) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._left = limit
        self._before = before
        self._rest: Cursor | None = None
        self._begun = False

    def step(self) -> Operation[list[Row] | None]:
        """Return the next rows, newest first; None: that was all."""
        if self._left == 0 or (self._begun and self._rest is None):
            return None
        if self._rest is None:
            self._begun = True
            rows = (yield from through_manifest(self._ctx, self._dataset, self._first)) or []
        else:
            rows = yield from self._walk(self._rest)
        if self._left is not None:
            rows = rows[: self._left]
            self._left -= len(rows)
        return [own(row) for row in rows]

    def _first(self, manifest: Manifest) -> Operation[list[Row]]:
        return self._walk(search.walk(manifest, before=self._before))

    def _walk(self, cursor: Cursor) -> Operation[list[Row]]:
        while True:
            rows, page_ref, rest = cursor.step()
            if page_ref is None:
                self._rest = None
                return rows
            if rows:
                self._rest = attrs.evolve(rest, ahead=(*rest.ahead, page_ref))
                return rows
            cursor = rest.opened((yield from load_page(self._ctx, self._dataset, page_ref)))
