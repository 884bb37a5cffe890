"""Rewriting a log: new pages in the place of those that are damaged, under names of a new epoch."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, TypeVar

import attrs

from swapstore.format import append, manifest, pages
from swapstore.operations.operation import Operation
from swapstore.operations.steps import load_page

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from swapstore.format.manifest import Log
    from swapstore.format.pages import Page, SealedPage
    from swapstore.models import Ref, Row
    from swapstore.operations.context import Context

T = TypeVar("T")


@attrs.frozen
class _Place:
    """What stands in the place of a page, and the keys of the pages that it replaces."""

    refs: tuple[Ref, ...]
    replaced: tuple[str, ...]


class Rewriter:
    """Rewrites what is wrong in a log, and remembers it: a page that was rewritten once is not again.

    `gone` are versions to leave out; `filled` are the rows for pages that cannot be read, by their keys;
    `wrong` are versions below every page that has to be rewritten.
    """

    def __init__(
        self,
        ctx: Context,
        dataset: str,
        epoch: str,
        *,
        gone: Mapping[int, Row],
        filled: Mapping[str, Sequence[Row]],
        wrong: Iterable[int],
    ) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._epoch = epoch
        self._gone = gone
        self._filled = filled
        self._wrong = sorted(wrong)
        self._places: dict[str, _Place] = {}
        self._pages: dict[str, SealedPage] = {}

    def mended(self, log: Log) -> Operation[tuple[tuple[Ref, ...], tuple[str, ...]]]:
        """Return the references of a log, mended, and the keys of the pages that are replaced."""
        refs: list[Ref] = []
        replaced: list[str] = []
        for ref in log.pages:
            place = yield from self._place(ref)
            refs += place.refs
            replaced += place.replaced
        return (self._narrowed(refs) if replaced else log.pages), tuple(replaced)

    def _place(self, ref: Ref) -> Operation[_Place]:
        at = bisect_left(self._wrong, ref.first_version)
        if at == len(self._wrong) or self._wrong[at] > ref.last_version:
            return _Place((ref,), ())
        if ref.key not in self._places:
            self._places[ref.key] = yield from self._rewrite(ref)
        return self._places[ref.key]

    def _rewrite(self, ref: Ref) -> Operation[_Place]:
        rows = self._filled.get(ref.key)
        if rows is None:
            page = yield from load_page(self._ctx, self._dataset, ref)
            if page.pages:
                below: list[_Place] = []
                for child in page.pages:
                    below += [(yield from self._place(child))]
                refs = tuple(child for place in below for child in place.refs)
                return _Place(refs, (ref.key, *(key for place in below for key in place.replaced)))
            rows = [row for row in page.rows if row.version not in self._gone]
        size = manifest.F
        return _Place(tuple(self._seal(rows[at : at + size]) for at in range(0, len(rows), size)), (ref.key,))

    def _seal(self, rows: Sequence[Row]) -> Ref:
        page = pages.seal(rows, level=0, dataset=self._dataset, epoch=self._epoch, keys=self._ctx.keys)
        self._pages[page.ref.key] = page
        return page.ref

    def _narrowed(self, refs: Iterable[Ref]) -> tuple[Ref, ...]:
        """Seal references that rewriting has spread out."""
        narrow: tuple[Ref, ...] = ()
        for ref in refs:
            narrow, sealed = append.sealed_refs(
                (*narrow, ref), dataset=self._dataset, epoch=self._epoch, keys=self._ctx.keys
            )
            self._pages.update({page.ref.key: page for page in sealed})
        return narrow

    def grown(self, log: Log, rows: Iterable[Row]) -> Log:
        """Append rows, sealing as a publish would."""
        for row in rows:
            log, sealed = append.sealed_log(
                attrs.evolve(log, rows=(*log.rows, row)),
                dataset=self._dataset,
                epoch=self._epoch,
                keys=self._ctx.keys,
            )
            self._pages.update({page.ref.key: page for page in sealed})
        return log

    def new_pages(self, log: Log) -> tuple[SealedPage, ...]:
        """The new pages that a log names, directly or through others."""
        found: dict[str, SealedPage] = {}
        ahead = list(log.pages)
        while ahead:
            page = self._pages.get(ahead.pop().key)
            if page is not None:
                found[page.ref.key] = page
                ahead += pages.parse(page.record, page.ref, self._dataset).pages
        return tuple(found.values())

    def search(self, searching: Generator[Ref, Page, T]) -> Operation[T]:
        """Run a search on a log whose new pages are not stored yet."""
        try:
            ref = next(searching)
            while True:
                at_hand = self._pages.get(ref.key)
                if at_hand is not None:
                    page = pages.parse(at_hand.record, ref, self._dataset)
                else:
                    page = yield from load_page(self._ctx, self._dataset, ref)
                ref = searching.send(page)
        except StopIteration as stop:
            found: T = stop.value
            return found
