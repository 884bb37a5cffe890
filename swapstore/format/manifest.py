"""The manifest: the one mutable record of a dataset, as it is stored.

A manifest is a header line and a body. Readers of the latest parse the header line alone. The body is the
tail of the commit log (`rows`) and references to pages of older rows. The log is ordered by version.
`append.py` drafts the next manifest from this one, and `retention.py` says what leaves the log.
"""

from __future__ import annotations

import re
from functools import cached_property
from itertools import pairwise
from typing import Any

import attrs
import msgspec

from swapstore.errors import Corrupt
from swapstore.format import records
from swapstore.format import rows as arrays
from swapstore.format.keys import Keys
from swapstore.models import Ref, Row, Whole

F = 8  # rows in a page; the tail holds F to 2F of them
G = 8  # references in a page of references
RECENT = 4  # times F: so many of the newest rows never leave the log; the manifest has their dedupe keys
ETAG_PREFIX = b'{"etag":"'
_ETAG = re.compile(r"[0-9a-f]{1,40}\.([0-9]{1,20})\.[0-9a-f]{1,40}")


def recent() -> int:
    """The number of the newest rows that never leave the log."""
    return RECENT * F


def same_row(one: Row, other: Row) -> bool:
    """Whether two rows are the same commit of the same snapshot.

    A version alone does not show that: a repair may give it to another row than the header's copy names.
    """
    return (one.version, one.id) == (other.version, other.id)


@attrs.frozen(kw_only=True)
class Head:
    """The header line.

    Retention hides the rows below `first_version`, and those with a `ts` below `floor`.
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
    def kept(self) -> tuple[Row, ...]:
        """The rows that can be read whatever retention hides: `latest` and `pinned`."""
        if self.pinned is None or same_row(self.pinned, self.latest):
            return (self.latest,)
        return (self.latest, self.pinned)

    @property
    def named(self) -> tuple[Row, ...]:
        """The copies of rows that the header holds: `latest`, and `pinned` if that differs."""
        if self.pinned is None or self.pinned == self.latest:
            return (self.latest,)
        return (self.latest, self.pinned)

    def keeps_alive(self, row: Row) -> bool:
        """Whether this row is `latest` or `pinned`."""
        return any(same_row(row, kept) for kept in self.kept)

    def keeps(self, row: Row) -> bool:
        """Whether this row can be read: the history shows it, or it is `latest` or `pinned`."""
        return self.shows(row) or self.keeps_alive(row)


@attrs.frozen(kw_only=True)
class Log:
    """The body: the tail (`rows`), and the references to the pages before it; both oldest first.

    `dedupe`: dedupe keys of rows in pages, and the versions of these rows. All keys among the last `recent()`
    rows are there, and maybe older ones, whose rows may have left the log.
    """

    rows: tuple[Row, ...]
    pages: tuple[Ref, ...]
    dedupe: tuple[tuple[str, int], ...] = ()

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


@attrs.frozen(slots=False, eq=False, repr=False)
class Manifest:
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
        refs = arrays.read_refs(stored.pages, Keys.beside(self.key), self.epoch, self.key)
        return Log(rows=arrays.read_rows(stored.rows, self.key), pages=refs, dedupe=stored.dedupe)


def snapshot_fields(row: Row, head: Head) -> dict[str, Any]:
    """The fields of a row's `Snapshot`, without its payload. The labels are the row's own, not a copy."""
    return {
        "dataset": head.dataset,
        "id": row.id,
        "ts": row.ts,
        "version": row.version,
        "etag": head.etag,
        "committed_at": row.committed_at,
        "size": row.size,
        "sha256": row.sha256,
        "codec": row.codec,
        "labels": row.labels,
    }


# --- parsing ---------------------------------------------------------------------------------------


class _StoredLog(msgspec.Struct):
    rows: tuple[arrays.StoredRow, ...]
    pages: tuple[arrays.StoredRef, ...]
    dedupe: tuple[tuple[str, Whole], ...]


class _Preamble(msgspec.Struct):
    format: Whole
    dataset: str


_HEAD = msgspec.json.Decoder(Head)
_LOG = msgspec.json.Decoder(_StoredLog)


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
    return Manifest(raw, head, key, len(line) + 1)


def parse_head(raw: bytes, dataset: str, key: str, *, whole: bool) -> Manifest | None:
    """Parse the first bytes of a manifest; `whole`: they are all of it. None if they hold no whole header."""
    if not raw.startswith(ETAG_PREFIX) or b"\n" not in raw:
        return None
    found = parse(raw, dataset, key)
    return found if whole else attrs.evolve(found, raw=raw[: found.head_size], complete=False)


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
        "format": head.format,
        "dataset": head.dataset,
        "version": head.version,
        "committed_at": head.committed_at,
        "confirmed_at": head.confirmed_at,
        "latest": arrays.head_fields(head.latest),
        "pinned": arrays.head_fields(head.pinned) if head.pinned else None,
        "count": head.count,
        "first_version": head.first_version,
        "floor": head.floor,
    }
    epoch = head.etag.partition(".")[0]
    body = (_spliced(base, log) if base else None) or records.to_json(
        {
            "rows": [arrays.row_array(row) for row in log.rows],
            "pages": [arrays.ref_array(ref, epoch) for ref in log.pages],
            "dedupe": log.dedupe,
        }
    )
    line = records.pack(header)
    return Manifest(line + body, head, keys.manifest(head.dataset), len(line), built_log=log)


# A JSON string contains no unescaped quote, so a body contains this once: where the rows end.
_END_OF_ROWS = b'],"pages":['


def _spliced(base: Manifest, log: Log) -> bytes | None:
    """Build the body from the bytes of the base, if the log has the same rows or one more; else None.

    Most commits add one row and change nothing else. Encoding dozens of rows again for that would take longer
    than the rest of the publish.
    """
    was = base.log
    more = len(log.rows) - len(was.rows)
    as_before = (log.pages, log.dedupe, log.rows[: len(was.rows)]) == (was.pages, was.dedupe, was.rows)
    if more not in {0, 1} or not as_before:
        return None
    end = base.raw.rfind(_END_OF_ROWS)
    if end < 0:
        return None
    if not more:
        return base.raw[base.head_size :]
    row = arrays.row_json(log.rows[-1])
    return b"%b,%b%b" % (base.raw[base.head_size : end], row, base.raw[end:])
