"""The manifest: the one mutable record of a dataset, as pure code.

A manifest is a header line, which readers of `latest` parse alone, and a body: the tail of the commit log
(`rows`) and references to pages of older rows. The log is ordered by version and only ever appended to.
When the tail reaches 2F rows, the oldest F are sealed into a page; when a level of references reaches 2F,
the oldest F of them are sealed into a page one level up. So the manifest stays a few KB at any depth, and
the same rows always seal into the same bytes under the same key.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore import records
from swapstore.errors import Corrupt
from swapstore.models import Entry, Ref, Row
from swapstore.pages import SealedPage, seal

if TYPE_CHECKING:
    from swapstore.keys import Keys

F = 32
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

    def keeps(self, row: Row) -> bool:
        """Say whether this row may be read: it is in the history, or `latest` or `pinned` keeps it alive."""
        return self.shows(row) or row.version in {self.latest.version, self.serving.version}


@attrs.frozen(kw_only=True)
class Log:
    """The body: the tail, oldest first, and the references of each level, oldest first."""

    rows: tuple[Row, ...]
    pages: tuple[tuple[Ref, ...], ...]


@attrs.frozen(slots=False, eq=False, repr=False)
class Manifest:
    """A manifest as it is stored, its header parsed, its body parsed when asked for."""

    raw: bytes
    head: Head
    key: str

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
    def log(self) -> Log:
        """The body, parsed on first use."""
        _, body = records.split(self.raw, self.key)
        try:
            return _LOG.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Corrupt(f"the body of manifest {self.key} is damaged ({error})", key=self.key) from error


_HEAD = msgspec.json.Decoder(Head)
_LOG = msgspec.json.Decoder(Log)


class _Kind(msgspec.Struct):
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
    return Manifest(raw, head, key)


def _refuse_newer_format(line: bytes, key: str) -> None:
    try:
        kind = msgspec.json.decode(line, type=_Kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    if kind.format > records.FORMAT:
        raise records.newer_format(key, kind.format)


# --- the next manifest -----------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Draft:
    """The manifest that a swap would make current, and what it stands on.

    `row` is what a publish adds; `pages` are the pages sealed by it.
    """

    base: Manifest | None
    manifest: Manifest
    row: Row | None = None
    pages: tuple[SealedPage, ...] = ()


def append(
    base: Manifest | None,
    entry: Entry,
    *,
    dataset: str,
    dedupe_key: str | None,
    now_ms: int,
    nonce: str,
    new_epoch: str,
    keys: Keys,
) -> Draft:
    """Add a snapshot to the log. `new_epoch` is used only when there is no manifest yet.

    `latest` is the row with the greatest `ts`, the later commit among equals, so a snapshot older than
    the current latest joins the history and leaves `latest` alone.
    """
    version = base.version + 1 if base else 1
    epoch = base.epoch if base else new_epoch
    row = Row(
        **attrs.asdict(entry, recurse=False), version=version, committed_at=now_ms, dedupe_key=dedupe_key
    )
    log = base.log if base else Log(rows=(), pages=())
    log, sealed = _sealed(attrs.evolve(log, rows=(*log.rows, row)), dataset=dataset, epoch=epoch, keys=keys)
    head = Head(
        etag=f"{epoch}.{version}.{nonce}",
        format=records.FORMAT,
        dataset=dataset,
        version=version,
        committed_at=now_ms,
        confirmed_at=now_ms,
        latest=base.head.latest if base and base.head.latest.ts > row.ts else row,
        pinned=base.head.pinned if base else None,
        count=base.head.count + 1 if base else 1,
        first_version=base.head.first_version if base else 1,
        floor=base.head.floor if base else 0,
    )
    return Draft(base=base, manifest=_build(head, log, keys), row=row, pages=sealed)


def repoint(base: Manifest, *, now_ms: int, nonce: str, keys: Keys, **changes: Any) -> Draft:
    """Swap the header alone: `latest`, `pinned` or `confirmed_at` change, the log stays."""
    version = base.version + 1
    etag = f"{base.epoch}.{version}.{nonce}"
    head = attrs.evolve(base.head, etag=etag, version=version, committed_at=now_ms, **changes)
    return Draft(base=base, manifest=_build(head, base.log, keys))


def _sealed(log: Log, *, dataset: str, epoch: str, keys: Keys) -> tuple[Log, tuple[SealedPage, ...]]:
    """Seal what has reached 2F, from the tail upwards, as far as it goes."""
    rows, pages = log.rows, list(log.pages)
    if len(rows) < 2 * F:
        return log, ()
    page = seal(rows[:F], level=0, dataset=dataset, epoch=epoch, keys=keys)
    sealed = [page]
    rows = rows[F:]
    level = 0
    while True:
        refs = (*(pages[level] if level < len(pages) else ()), page.ref)
        pages[level : level + 1] = [refs]
        if len(refs) < 2 * F:
            return Log(rows=rows, pages=tuple(pages)), tuple(sealed)
        page = seal(refs[:F], level=level + 1, dataset=dataset, epoch=epoch, keys=keys)
        sealed.append(page)
        pages[level] = refs[F:]
        level += 1


def _build(head: Head, log: Log, keys: Keys) -> Manifest:
    header = {
        "etag": head.etag,
        "format": head.format,
        "dataset": head.dataset,
        "version": head.version,
        "committed_at": head.committed_at,
        "confirmed_at": head.confirmed_at,
        "latest": records.row_fields(head.latest),
        "pinned": records.row_fields(head.pinned) if head.pinned else None,
        "count": head.count,
        "first_version": head.first_version,
        "floor": head.floor,
    }
    body = {
        "rows": [records.row_fields(row) for row in log.rows],
        "pages": [[records.ref_fields(ref) for ref in level] for level in log.pages],
    }
    manifest = Manifest(records.pack(header, records.to_json(body)), head, keys.manifest(head.dataset))
    manifest.__dict__["log"] = log  # it is known already: spare the warm publish a parse
    return manifest
