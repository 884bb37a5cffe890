"""Rows and page references as the manifest and its pages hold them.

The header of a manifest names what is served as an object, for readers in any language. The log holds the
same rows as arrays: a dozen of them travel with each commit.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from swapstore.errors import Corrupt
from swapstore.format import records
from swapstore.models import Ref, Row, Whole

if TYPE_CHECKING:
    from collections.abc import Iterable


def head_fields(row: Row) -> dict[str, Any]:
    """A row's fields in canonical order, as the manifest's header holds them."""
    fields = records.entry_fields(row) | {"version": row.version, "committed_at": row.committed_at}
    if row.dedupe_key is not None:
        fields["dedupe_key"] = row.dedupe_key
    return fields


def row_array(row: Row) -> list[Any]:
    """A row as the log holds it: an array. What has its usual value at the end is cut off."""
    digest = binascii.b2a_base64(bytes.fromhex(row.sha256), newline=False).rstrip(b"=").decode()
    fields = [row.version, row.id, row.ts, row.committed_at - row.ts, row.size, digest]
    codec = None if row.codec == "json" else row.codec
    more = [None, codec, records.in_order(row.labels) or None, row.dedupe_key]
    while more and more[-1] is None:
        more.pop()
    return fields + more


def row_json(row: Row) -> bytes:
    """A row as the log holds it, as JSON."""
    return records.to_json(row_array(row))


class StoredRow(msgspec.Struct, array_like=True):
    """A row as the log holds it. `after_ts`: the milliseconds from its `ts` to its commit."""

    version: Whole
    id: str
    ts: Whole
    after_ts: Whole
    size: Whole
    digest: Annotated[str, msgspec.Meta(min_length=43, max_length=43)]
    base: str | None = None
    codec: str | None = None
    labels: dict[str, str] | None = None
    dedupe_key: str | None = None


def read_rows(stored: Iterable[StoredRow], key: str) -> tuple[Row, ...]:
    """Parse the rows of the record at `key`."""
    try:
        return tuple(
            Row(
                id=row.id,
                ts=row.ts,
                size=row.size,
                sha256=binascii.a2b_base64(row.digest + "=", strict_mode=True).hex(),
                codec=row.codec or "json",
                labels=row.labels or {},
                version=row.version,
                committed_at=row.ts + row.after_ts,
                dedupe_key=row.dedupe_key,
            )
            for row in stored
        )
    except ValueError as error:
        raise Corrupt(f"{key} names a digest that is none ({error})", key=key) from error


class StoredRef(msgspec.Struct, array_like=True):
    """A page reference as it is stored. Without `last`, no version is missing. `epoch`: see `read_refs`."""

    first: Whole
    count: Whole
    min_ts: Whole
    span_ms: Whole
    last: Whole | None = None
    epoch: str | None = None


_EPOCH = re.compile(r"[0-9a-f]{1,40}")


def ref_array(ref: Ref, epoch: str) -> list[Any]:
    """A page reference as it is stored in a record of an epoch."""
    fields = [ref.first_version, ref.count, ref.min_ts, ref.max_ts - ref.min_ts]
    dense = ref.last_version == ref.first_version + ref.count - 1
    own = ref.key.rpartition(":")[2].partition(".")[0]
    more = [None if dense else ref.last_version, None if own == epoch else own]
    while more and more[-1] is None:
        more.pop()
    return fields + more


def read_refs(stored: Iterable[StoredRef], prefix: str, epoch: str, key: str) -> tuple[Ref, ...]:
    """Parse the page references in the record at `key`, whose `epoch` is that of pages that state none.

    `prefix` is the beginning of the keys of its pages.
    """
    refs = []
    for ref in stored:
        last = ref.first + ref.count - 1 if ref.last is None else ref.last
        own = epoch if ref.epoch is None else ref.epoch
        if min(ref.first, last) < 0 or _EPOCH.fullmatch(own) is None:
            raise Corrupt(
                f"{key} references a page by an invalid name, {own[:40]!r} {ref.first}-{last}", key=key
            )
        refs.append(
            Ref(
                key=f"{prefix}{own}.{ref.first}-{last}",
                count=ref.count,
                first_version=ref.first,
                last_version=last,
                min_ts=ref.min_ts,
                max_ts=ref.min_ts + ref.span_ms,
            )
        )
    return tuple(refs)
