"""The manifest: the one mutable record of a dataset, as it is stored.

A manifest is a header line, which readers of `latest` parse alone, and a body: the tail of the commit log
(`rows`) and references to pages of older rows. The log is ordered by version. How the next manifest comes
from this one is in `growth.py`, what retention takes away in `retention.py`.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any

import attrs
import msgspec

from swapstore.errors import Corrupt
from swapstore.format import records
from swapstore.format.keys import Keys
from swapstore.models import Ref, Row

F = 32  # rows in a page; the tail holds F to 2F of them
G = 8  # references in a page of references
ETAG_PREFIX = b'{"etag":"'


@attrs.frozen(kw_only=True)
class Head:
    """The header line.

    `first_version` and `floor` (a `ts`) hide what retention let go of: rows below either are not there.
    """

    etag: str
    format: int
    dataset: str
    version: int
    committed_at: int
    confirmed_at: int
    latest: Row
    pinned: Row | None
    count: int
    first_version: int
    floor: int

    @property
    def serving(self) -> Row:
        """The row that `read_latest` serves."""
        return self.pinned or self.latest

    def shows(self, row: Row) -> bool:
        """Say whether retention leaves this row in the history."""
        return row.version >= self.first_version and row.ts >= self.floor

    def opens(self, ref: Ref) -> bool:
        """Say whether retention leaves anything in the history below this reference."""
        return ref.last_version >= self.first_version and ref.max_ts >= self.floor

    def shows_all(self, ref: Ref) -> bool:
        """Say whether retention leaves all rows below this reference in the history."""
        return ref.first_version >= self.first_version and ref.min_ts >= self.floor

    @property
    def shows_everything(self) -> bool:
        """Whether nothing was ever hidden."""
        return self.first_version == 1 and self.floor == 0

    @property
    def kept(self) -> tuple[Row, ...]:
        """The rows that stay alive whatever retention says: `latest` and `pinned`."""
        if self.pinned is None or self.pinned.version == self.latest.version:
            return (self.latest,)
        return (self.latest, self.pinned)

    def keeps_alive(self, version: int) -> bool:
        """Say whether `latest` or `pinned` is the row of this version."""
        return any(row.version == version for row in self.kept)

    def keeps(self, row: Row) -> bool:
        """Say whether this row may be read: it is in the history, or `latest` or `pinned` keeps it alive."""
        return self.shows(row) or self.keeps_alive(row.version)


@attrs.frozen(kw_only=True)
class Log:
    """The body: the tail, and the references to the pages before it; both oldest first."""

    rows: tuple[Row, ...]
    pages: tuple[Ref, ...]

    @property
    def count(self) -> int:
        """How many rows there are, whatever a header says: that may be damaged."""
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
    """A manifest as it is stored, its header parsed, its body parsed when asked for.

    One that is not `complete` is a header alone: enough to read what is served, and no more. `head_size` is
    the size of the header line in bytes. `built_log` spares a manifest that was built here from being parsed.
    """

    raw: bytes
    head: Head
    key: str
    head_size: int
    complete: bool = True
    built_log: Log | None = None

    @property
    def etag(self) -> str:
        """The identity of this manifest value: `<epoch>.<version>.<nonce>`."""
        return self.head.etag

    @property
    def epoch(self) -> str:
        """The line of versions this manifest belongs to; repair and a fresh start begin a new one."""
        return self.head.etag.partition(".")[0]

    @property
    def version(self) -> int:
        """How many swaps led here."""
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
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Corrupt(f"the body of manifest {self.key} is damaged ({error})", key=self.key) from error
        prefix = Keys.beside(self.key)
        refs = tuple(records.read_ref(ref, prefix, self.key) for ref in stored.pages)
        return Log(rows=stored.rows, pages=refs)


def snapshot_fields(row: Row, head: Head) -> dict[str, Any]:
    """The fields of a row's snapshot, read through a manifest, but its payload; the labels are its own."""
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


_HEAD = msgspec.json.Decoder(Head)


class _StoredLog(msgspec.Struct):
    rows: tuple[Row, ...]
    pages: tuple[records.StoredRef, ...]


_LOG = msgspec.json.Decoder(_StoredLog)


def glimpse(raw: bytes, dataset: str, key: str, *, whole: bool) -> Manifest | None:
    """Parse the first bytes of a manifest, `whole` or not; None unless they hold its header."""
    if not raw.startswith(ETAG_PREFIX) or b"\n" not in raw:
        return None
    found = parse(raw, dataset, key)
    return found if whole else attrs.evolve(found, raw=raw[: found.head_size], complete=False)


class _Preamble(msgspec.Struct):
    format: int
    dataset: str


def prefix(etag: str) -> bytes:
    """Return the fixed prefix of the stored bytes of the manifest with this etag."""
    return ETAG_PREFIX + etag.encode() + b'"'


def parse(raw: bytes, dataset: str, key: str) -> Manifest:
    """Parse stored bytes; say clearly when they are not ours, of a newer format, or damaged."""
    if not raw.startswith(ETAG_PREFIX):
        raise Corrupt(
            f"{key} is not a swapstore manifest: something else writes to this key; "
            "use another namespace, or delete the key if it is not needed",
            key=key,
        )
    line, _ = records.split(raw, key)
    try:
        head = _HEAD.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _refuse_newer_format(line, key)
        raise Corrupt(f"the header of manifest {key} is damaged ({error})", key=key) from error
    if head.format > records.FORMAT:
        raise records.newer_format(key, head.format)
    if head.dataset != dataset:
        raise Corrupt(f"{key} holds the manifest of another dataset, {head.dataset!r}", key=key)
    if not raw.startswith(prefix(head.etag)) or head.etag.split(".")[1:2] != [str(head.version)]:
        raise Corrupt(f"the header of manifest {key} is damaged (its etag is not its version's)", key=key)
    return Manifest(raw, head, key, len(line) + 1)


def _refuse_newer_format(line: bytes, key: str) -> None:
    try:
        kind = msgspec.json.decode(line, type=_Preamble)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    if kind.format > records.FORMAT:
        raise records.newer_format(key, kind.format)


# --- building --------------------------------------------------------------------------------------


def build(head: Head, log: Log, keys: Keys, *, base: Manifest | None = None) -> Manifest:
    """Build the manifest with this header and this log. Of `base`, on which it stands, the bytes are used."""
    latest = records.row_json(head.latest)
    header = {
        "etag": head.etag,
        "format": head.format,
        "dataset": head.dataset,
        "version": head.version,
        "committed_at": head.committed_at,
        "confirmed_at": head.confirmed_at,
        "latest": msgspec.Raw(latest),
        "pinned": records.row_fields(head.pinned) if head.pinned else None,
        "count": head.count,
        "first_version": head.first_version,
        "floor": head.floor,
    }
    newest = latest if log.rows and log.rows[-1] is head.latest else None
    body = (_spliced(base, log, newest) if base else None) or records.to_json(
        {
            "rows": [records.row_fields(row) for row in log.rows],
            "pages": [records.ref_fields(ref) for ref in log.pages],
        }
    )
    line = records.pack(header)
    return Manifest(line + body, head, keys.manifest(head.dataset), len(line), built_log=log)


# No string of JSON holds an unescaped quote, so this stands once in a body: where the rows end.
_END_OF_ROWS = b'],"pages":['


def _spliced(base: Manifest, log: Log, newest: bytes | None) -> bytes | None:
    """Build the body out of that of the base, if it has the same rows, or one more; None if it does not.

    Most commits add a row and leave all else alone: to encode dozens of rows anew for that takes longer than
    all the rest.
    """
    was = base.log
    more = len(log.rows) - len(was.rows)
    if more not in {0, 1} or log.pages != was.pages or log.rows[: len(was.rows)] != was.rows:
        return None
    end = base.raw.rfind(_END_OF_ROWS)
    if end < 0:
        return None
    if not more:
        return base.raw[base.head_size :]
    row = newest or records.row_json(log.rows[-1])
    return b"%b,%b%b" % (base.raw[base.head_size : end], row, base.raw[end:])
