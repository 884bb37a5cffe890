"""Pages: immutable records that hold older rows, or references to such pages.

The same run always seals into the same bytes under the same key, in every process. So two producers that
seal at the same time do not disturb each other, and a page can be cached permanently.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore.errors import Corrupt, PayloadMissing
from swapstore.format import bases, manifest, records
from swapstore.models import Ref, Row, Whole
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.format.keys import Keys


class Page(Struct, frozen=True, kw_only=True):
    """A sealed run of rows (level 0) or of references to pages one level below."""

    rows: tuple[Row, ...] = ()
    pages: tuple[Ref, ...] = ()


class SealedPage(Struct, frozen=True):
    """A page's record, ready to be staged, and the reference to it."""

    ref: Ref
    record: bytes


class _PageHeader(msgspec.Struct):
    page: str
    format: Whole
    dataset: str
    size: Whole
    sha256: str


class _StoredPage(msgspec.Struct):
    rows: tuple[manifest.StoredRow, ...] = ()
    pages: tuple[manifest.StoredRef, ...] = ()


_PAGE = msgspec.json.Decoder(_StoredPage)


def seal(
    items: Sequence[Row] | Sequence[Ref], *, level: int, dataset: str, epoch: str, keys: Keys
) -> SealedPage:
    """Seal a run of rows, or of references, into a page. The same run gives the same bytes."""
    ref, body = _seal_rows(items) if level == 0 else _seal_refs(items, epoch)
    name = f"{epoch}.{ref.first_version}-{ref.last_version}"
    ref = attrs.evolve(ref, key=keys.page(dataset, name))
    header = {
        "page": name,
        "format": records.FORMAT,
        "dataset": dataset,
        "size": len(body),
        "sha256": records.digest(body),
    }
    return SealedPage(ref, records.pack(header, body))


def _seal_rows(rows: Sequence[Any]) -> tuple[Ref, bytes]:
    times = [row.ts for row in rows]
    ref = Ref(
        key="",
        count=len(rows),
        first_version=rows[0].version,
        last_version=rows[-1].version,
        min_ts=min(times),
        max_ts=max(times),
        bases=bases.span(rows),
    )
    return ref, records.to_json({"rows": manifest.row_arrays(rows)})


def _seal_refs(refs: Sequence[Any], epoch: str) -> tuple[Ref, bytes]:
    ref = Ref(
        key="",
        count=sum(below.count for below in refs),
        first_version=refs[0].first_version,
        last_version=refs[-1].last_version,
        min_ts=min(below.min_ts for below in refs),
        max_ts=max(below.max_ts for below in refs),
        bases=bases.span(refs),
    )
    return ref, records.to_json({"pages": [manifest.ref_array(below, epoch) for below in refs]})


def parse(record: bytes, ref: Ref, dataset: str) -> Page:
    """Parse a page's record and check it against its reference.

    Raises `Corrupt` if the bytes are damaged or belong to another page, or if they have other bounds than the
    reference states; `UnsupportedFormat` if the format is newer.
    """
    line, body = records.split(record, ref.key)
    try:
        header = msgspec.json.decode(line, type=_PageHeader)
        if header.format > records.FORMAT:
            raise records.newer_format(ref.key, header.format)
        if header.dataset != dataset or not ref.key.endswith(f":{header.page}"):
            raise Corrupt(f"{ref.key} holds another page than its reference says", key=ref.key)
        records.check_body(body, header.size, header.sha256, ref.key)
        stored = _PAGE.decode(body)
    except records.UNREADABLE as error:
        raise Corrupt(f"{ref.key} is not a page of a swapstore manifest ({error})", key=ref.key) from error
    beside, _, name = ref.key.rpartition(":")
    page = Page(
        rows=manifest.read_rows(stored.rows, ref.key),
        pages=manifest.read_refs(stored.pages, f"{beside}:", name.partition(".")[0], ref.key),
    )
    _check_bounds(page, ref)
    return page


def _check_bounds(page: Page, ref: Ref) -> None:
    """Raise `Corrupt` unless a page has the bounds of its reference, and its versions ascend.

    What a page references has fewer rows than the page, so a search ends, also in pages that somebody forged.
    """
    spans = [(row.version, row.version, row.ts, row.ts, 1) for row in page.rows] or [
        (below.first_version, below.last_version, below.min_ts, below.max_ts, below.count)
        for below in page.pages
    ]
    in_order = all(first <= last for first, last, *_ in spans) and all(
        last < first for (_, last, *_), (first, *_) in pairwise(spans)
    )
    said = (ref.first_version, ref.last_version, ref.min_ts, ref.max_ts, ref.count, ref.bases)
    held = spans and (
        spans[0][0],
        spans[-1][1],
        min(span[2] for span in spans),
        max(span[3] for span in spans),
        sum(span[4] for span in spans),
        bases.span(page.rows or page.pages),
    )
    is_smaller = all(0 < below.count < ref.count for below in page.pages)
    if not in_order or held != said or not is_smaller:
        raise Corrupt(
            f"{ref.key} holds other versions, times or bases than its reference states", key=ref.key
        )


def missing(ref: Ref) -> PayloadMissing:
    """Build the error for a page that is referenced and does not exist."""
    return PayloadMissing(
        f"the page {ref.key} (versions {ref.first_version} to {ref.last_version}) does not exist: it was "
        "deleted or evicted, so that part of the history cannot be read; run swapstore repair",
        key=ref.key,
    )
