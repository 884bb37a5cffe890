"""The manifest: the one mutable record of a dataset, as it is stored.

A manifest is a header line and a body. Readers of the latest parse the header line alone. The body is the
tail of the commit log (`rows`) and references to pages of older rows. The log is ordered by version.
`append.py` drafts the next manifest from this one, and `retention.py` says what leaves the log.
"""

from __future__ import annotations

import binascii
import re
from functools import cached_property
from itertools import pairwise
from operator import is_
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from swapstore.errors import Corrupt
from swapstore.format import records
from swapstore.format.encodings import InForce
from swapstore.format.keys import Keys, check_base
from swapstore.models import Ref, Row, Whole
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

F = 8  # rows in a page; the tail holds F to 2F of them
G = 8  # references in a page of references
RECENT = 4  # times F: so many of the newest rows never leave the log; the manifest has their dedupe keys
ETAG_PREFIX = b'{"etag":"'
DROPPED_BYTES = 128  # of a manifest tell whether its dataset was dropped
_DROPPED = re.compile(rb'\{"etag":"[^"]*","dropped":')
_ETAG = re.compile(r"[0-9a-f]{1,40}\.([0-9]{1,20})\.[0-9a-f]{1,40}")


def recent() -> int:
    """The number of the newest rows that never leave the log."""
    return RECENT * F


def same_row(one: Row, other: Row) -> bool:
    """Whether two rows are the same commit of the same snapshot.

    A version alone does not show that: a repair may give it to another row than the header's copy names.
    """
    return (one.version, one.id) == (other.version, other.id)


class Head(Struct, frozen=True, kw_only=True):
    """The header line.

    Retention hides the rows below `first_version`, and those with a `ts` below `floor`. Rows up to `dropped`
    were dropped: they are hidden, and do not count as committed any more.
    """

    etag: str
    format: Whole
    dataset: str
    version: Whole
    committed_at: Whole
    confirmed_at: Whole
    latest: Row
    pinned: Row | None
    count: Whole
    first_version: Whole
    floor: Whole
    dropped: Whole = 0

    @property
    def is_dropped(self) -> bool:
        """Whether nothing is published, because the dataset was dropped and not published to since."""
        return self.latest.version <= self.dropped

    @property
    def serving(self) -> Row:
        """The row that `read_latest` serves."""
        return self.pinned or self.latest

    def shows(self, row: Row) -> bool:
        """Whether the history shows this row: retention does not hide it."""
        return row.version >= self.first_version and row.ts >= self.floor

    def opens(self, ref: Ref) -> bool:
        """Whether the history may show a row below this reference."""
        return ref.last_version >= self.first_version and ref.max_ts >= self.floor

    def shows_all(self, ref: Ref) -> bool:
        """Whether the history shows every row below this reference."""
        return ref.first_version >= self.first_version and ref.min_ts >= self.floor

    @property
    def shows_everything(self) -> bool:
        """Whether retention has never hidden anything."""
        return self.first_version == 1 and self.floor == 0

    @property
    def copies(self) -> tuple[Row, ...]:
        """The copies of rows that the header holds, whether they are equal or not."""
        if self.is_dropped:
            return ()
        return (self.latest,) if self.pinned is None else (self.latest, self.pinned)

    @property
    def kept(self) -> tuple[Row, ...]:
        """The rows that can be read whatever retention hides: `latest` and `pinned`."""
        if self.is_dropped:
            return ()
        if self.pinned is None or same_row(self.pinned, self.latest):
            return (self.latest,)
        return (self.latest, self.pinned)

    @property
    def named(self) -> tuple[Row, ...]:
        """The copies of rows that the header holds: `latest`, and `pinned` if that differs."""
        if self.is_dropped:
            return ()
        if self.pinned is None or self.pinned == self.latest:
            return (self.latest,)
        return (self.latest, self.pinned)

    def keeps_alive(self, row: Row) -> bool:
        """Whether this row is `latest` or `pinned`."""
        return any(same_row(row, kept) for kept in self.kept)

    def keeps(self, row: Row) -> bool:
        """Whether this row can be read: the history shows it, or it is `latest` or `pinned`."""
        return self.shows(row) or self.keeps_alive(row)


class Log(Struct, frozen=True, kw_only=True):
    """The body: the tail (`rows`), and the references to the pages before it; both oldest first.

    `dedupe`: dedupe keys of rows in pages, and the versions of these rows. All keys among the last `recent()`
    rows are there, and maybe older ones, whose rows may have left the log.
    `base`: the base in force, with which the next snapshot may be encoded.
    `erased`: the versions of the rows that were erased last. Without them, a follower whose last row was
    erased would find that the store has gone back.
    """

    rows: tuple[Row, ...]
    pages: tuple[Ref, ...]
    dedupe: tuple[tuple[str, int], ...] = ()
    base: InForce | None = None
    erased: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """The number of rows, counted: the header's own count may be damaged."""
        return sum(ref.count for ref in self.pages) + len(self.rows)

    @property
    def in_order(self) -> bool:
        """Whether the versions ascend."""
        spans = [(ref.first_version, ref.last_version) for ref in self.pages]
        spans += [(row.version, row.version) for row in self.rows]
        return all(first <= last for first, last in spans) and all(
            before[1] < after[0] for before, after in pairwise(spans)
        )


class Manifest(Struct, frozen=True, dict=True, eq=False):
    """A manifest as it is stored. Its header is parsed, its body is parsed on first use.

    `head_size` is the size of the header line in bytes. If `complete` is False, only the header was read:
    enough to read what is served. `built_log` is the body of a manifest that was built here, so it need not
    be parsed.
    """

    raw: bytes
    head: Head
    key: str
    head_size: int
    complete: bool = True
    built_log: Log | None = None

    @property
    def etag(self) -> str:
        """The identity of this manifest: `<epoch>.<version>.<nonce>`."""
        return self.head.etag

    @property
    def epoch(self) -> str:
        """The sequence of versions that this manifest belongs to; a repair or a new dataset starts one."""
        return self.head.etag.partition(".")[0]

    @property
    def version(self) -> int:
        """The number of swaps in this epoch, including the one that made this manifest."""
        return self.head.version

    @cached_property
    def serving_fields(self) -> dict[str, Any]:
        """The fields of the snapshot that is served, without its payload."""
        return snapshot_fields(self.head.serving, self.head)

    @cached_property
    def log(self) -> Log:
        """The body, parsed on first use."""
        if self.built_log is not None:
            return self.built_log
        _, body = records.split(self.raw, self.key)
        try:
            stored = _LOG.decode(body)
        except records.UNREADABLE as error:
            raise Corrupt(f"the body of manifest {self.key} is damaged ({error})", key=self.key) from error
        refs = read_refs(stored.pages, Keys.beside(self.key), self.epoch, self.key)
        base = None if stored.base is None else InForce(*stored.base)
        check_base(base.name if base else None, self.key)
        rows = read_rows(stored.rows, self.key)
        return Log(rows=rows, pages=refs, dedupe=stored.dedupe, base=base, erased=stored.erased)


def snapshot_fields(row: Row, head: Head) -> dict[str, Any]:
    """The fields of a row's `Snapshot`, without its payload. The labels are the row's own, not a copy."""
    return {
        "dataset": head.dataset,
        "id": row.id,
        "ts": row.ts,
        "version": row.version,
        "etag": head.etag,
        "committed_at": row.committed_at,
        "confirmed_at": head.confirmed_at if same_row(row, head.latest) else row.committed_at,
        "size": row.size,
        "sha256": row.sha256,
        "codec": row.codec,
        "labels": row.labels,
    }


# --- rows and references, as they are stored ---------------------------------------------------------
#
# The header names what is served as an object, for readers in any language. The log and its pages hold rows
# as arrays: a dozen of them travel with each commit.


def head_fields(row: Row) -> dict[str, Any]:
    """A row's fields in canonical order, as the manifest's header holds them."""
    fields = records.entry_fields(row) | {"version": row.version, "committed_at": row.committed_at}
    if row.dedupe_key is not None:
        fields["dedupe_key"] = row.dedupe_key
    if row.base is not None:
        fields["base"] = row.base
    return fields


def row_array(row: Row, before: str | None) -> list[Any]:
    """A row as the log holds it: an array. What has its usual value at the end is cut off.

    `before`: the base of the row before it, which is its own unless it says otherwise.
    """
    digest = binascii.b2a_base64(bytes.fromhex(row.sha256), newline=False).rstrip(b"=").decode()
    fields = [row.version, row.id, row.ts, row.committed_at - row.ts, row.size, digest]
    base = None if row.base == before else row.base or ""
    codec = None if row.codec == "json" else row.codec
    more = [base, codec, records.in_order(row.labels) or None, row.dedupe_key]
    while more and more[-1] is None:
        more.pop()
    return fields + more


def row_arrays(rows: Sequence[Row]) -> list[list[Any]]:
    """A list of rows as the log holds it."""
    return [
        row_array(row, before) for row, before in zip(rows, (None, *(r.base for r in rows)), strict=False)
    ]


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
    rows: list[Row] = []
    base: str | None = None
    try:
        for row in stored:
            if row.base is not None:
                base = row.base or None
                check_base(base, key)
            rows.append(
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
                    base=base,
                )
            )
    except ValueError as error:
        raise Corrupt(f"{key} names a digest that is none ({error})", key=key) from error
    return tuple(rows)


class StoredRef(msgspec.Struct, array_like=True):
    """A page reference as it is stored. Without `last`, no version is missing. `epoch`: see `read_refs`.

    `to_first_base` leads from the first version to the first that brought a base of a row below,
    `to_last_base` from the last version to the last.
    """

    first: Whole
    count: Whole
    min_ts: Whole
    span_ms: Whole
    last: Whole | None = None
    epoch: str | None = None
    to_first_base: int | None = None
    to_last_base: int | None = None


_EPOCH = re.compile(r"[0-9a-f]{1,40}")


def ref_array(ref: Ref, epoch: str) -> list[Any]:
    """A page reference as it is stored in a record of an epoch."""
    fields = [ref.first_version, ref.count, ref.min_ts, ref.max_ts - ref.min_ts]
    dense = ref.last_version == ref.first_version + ref.count - 1
    own = ref.key.rpartition(":")[2].partition(".")[0]
    more: list[Any] = [None if dense else ref.last_version, None if own == epoch else own]
    if ref.bases is not None:
        more += [ref.first_version - ref.bases[0], ref.last_version - ref.bases[1]]
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
        of_bases = None
        if ref.to_first_base is not None and ref.to_last_base is not None:
            of_bases = (ref.first - ref.to_first_base, last - ref.to_last_base)
        refs.append(
            Ref(
                key=f"{prefix}{own}.{ref.first}-{last}",
                count=ref.count,
                first_version=ref.first,
                last_version=last,
                min_ts=ref.min_ts,
                max_ts=ref.min_ts + ref.span_ms,
                bases=of_bases,
            )
        )
    return tuple(refs)


# --- parsing ---------------------------------------------------------------------------------------


class _StoredLog(msgspec.Struct):
    rows: tuple[StoredRow, ...]
    pages: tuple[StoredRef, ...]
    dedupe: tuple[tuple[str, Whole], ...]
    erased: tuple[Whole, ...] = ()
    base: tuple[str, Whole, Whole, Whole, Whole] | None = None


class _Preamble(msgspec.Struct):
    format: Whole
    dataset: str


_HEAD = msgspec.json.Decoder(Head)
_LOG = msgspec.json.Decoder(_StoredLog)


def may_be_dropped(begin: bytes) -> bool:
    """Whether the first `DROPPED_BYTES` of a manifest tell of a drop. It may have been published to since."""
    return _DROPPED.match(begin) is not None


def prefix(etag: str) -> bytes:
    """Return the first bytes of the stored manifest with this etag, and of no other manifest."""
    return ETAG_PREFIX + etag.encode() + b'"'


def parse(raw: bytes, dataset: str, key: str) -> Manifest:
    """Parse a stored manifest.

    Raises `Corrupt` if another program wrote the key, if the bytes are damaged, or if the manifest is of
    another dataset; `UnsupportedFormat` if the format is newer.
    """
    if not raw.startswith(ETAG_PREFIX):
        raise Corrupt(
            f"{key} is not a swapstore manifest: something else writes to this key; "
            "use another namespace, or delete the key if it is not needed",
            key=key,
        )
    line, _ = records.split(raw, key)
    try:
        head = _HEAD.decode(line)
    except records.UNREADABLE as error:
        _refuse_newer_format(line, key)
        raise Corrupt(f"the header of manifest {key} is damaged ({error})", key=key) from error
    if head.format > records.FORMAT:
        raise records.newer_format(key, head.format)
    if head.dataset != dataset:
        raise Corrupt(f"{key} holds the manifest of another dataset, {head.dataset!r}", key=key)
    etag = _ETAG.fullmatch(head.etag)
    if not raw.startswith(prefix(head.etag)) or etag is None or etag[1] != str(head.version):
        raise Corrupt(f"the header of manifest {key} is damaged (its etag is not its version's)", key=key)
    for row in head.copies:
        check_base(row.base, key)
    return Manifest(raw, head, key, len(line) + 1)


def parse_head(raw: bytes, dataset: str, key: str, *, whole: bool) -> Manifest | None:
    """Parse the first bytes of a manifest; `whole`: they are all of it. None if they hold no whole header."""
    if not raw.startswith(ETAG_PREFIX) or b"\n" not in raw:
        return None
    found = parse(raw, dataset, key)
    return found if whole else msgspec.structs.replace(found, raw=raw[: found.head_size], complete=False)


def _refuse_newer_format(line: bytes, key: str) -> None:
    """Raise `UnsupportedFormat` if a header that does not parse belongs to a newer format."""
    try:
        preamble = msgspec.json.decode(line, type=_Preamble)
    except records.UNREADABLE:
        return
    if preamble.format > records.FORMAT:
        raise records.newer_format(key, preamble.format)


# --- building --------------------------------------------------------------------------------------


def build(head: Head, log: Log, keys: Keys, *, base: Manifest | None = None) -> Manifest:
    """Build the manifest with this header and log. The bytes of `base`, its predecessor, are reused."""
    header = {
        "etag": head.etag,
        **({"dropped": head.dropped} if head.dropped else {}),
        "format": head.format,
        "dataset": head.dataset,
        "version": head.version,
        "committed_at": head.committed_at,
        "confirmed_at": head.confirmed_at,
        "latest": head_fields(head.latest),
        "pinned": head_fields(head.pinned) if head.pinned else None,
        "count": head.count,
        "first_version": head.first_version,
        "floor": head.floor,
    }
    epoch = head.etag.partition(".")[0]
    body = (_spliced(base, log) if base else None) or records.to_json(
        {
            "rows": row_arrays(log.rows),
            "pages": [ref_array(ref, epoch) for ref in log.pages],
            "dedupe": log.dedupe,
            **({"erased": log.erased} if log.erased else {}),
            "base": _in_force(log),
        }
    )
    line = records.pack(header)
    return Manifest(line + body, head, keys.manifest(head.dataset), len(line), built_log=log)


def _in_force(log: Log) -> list[Any] | None:
    base = log.base
    return None if base is None else [base.name, base.size, base.sum, base.count, base.last]


# A JSON string contains no unescaped quote, so a body contains the first of these once. The last time that it
# contains the other is at its end; a label may be called so, too.
_END_OF_ROWS = b'],"pages":['
_BASE = b',"base":'


def _spliced(base: Manifest, log: Log) -> bytes | None:
    """Build the body from the bytes of the base, if the log has the same rows or one more; else None.

    Most commits add one row and change nothing else. Encoding dozens of rows again for that would take longer
    than the rest of the publish.
    """
    was = base.log
    more = len(log.rows) - len(was.rows)
    are_others = (log.pages, log.dedupe, log.erased) != (was.pages, was.dedupe, was.erased)
    if more not in {0, 1} or not was.rows or are_others or not all(map(is_, log.rows, was.rows)):
        return None
    raw = base.raw
    end_of_rows, end = raw.rfind(_END_OF_ROWS), raw.rfind(_BASE)
    if not 0 < end_of_rows < end:
        return None
    row = b""
    if more:
        before = log.rows[-2].base if len(log.rows) > 1 else None
        row = b",%b" % records.to_json(row_array(log.rows[-1], before))
    in_force = records.to_json(_in_force(log))
    return b"%b%b%b%b%b}" % (raw[base.head_size : end_of_rows], row, raw[end_of_rows:end], _BASE, in_force)
