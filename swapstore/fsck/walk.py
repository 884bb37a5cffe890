"""Walk one dataset from its manifest: compare everything that it names with what is stored.

The walk goes in steps, oldest pages first. It holds a batch of pages, and remembers 16 bytes for each row.
It notes in `Damage` what a repair has to know.

A dataset may be published to during the walk. So before something is reported, the manifest is read again:
what it does not name any more is not damage. A record that seems damaged is read once more, because a replica
may lag.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs

from swapstore.commands import PERMANENT, Command, Failed, Get, Members, Ttl
from swapstore.errors import Contended, Corrupt, Damaged, UnsupportedFormat
from swapstore.format import manifest, pages, records, reseal, search
from swapstore.format.pages import Page
from swapstore.format.rebuild import Unnamed
from swapstore.fsck.findings import Finding, Problem
from swapstore.fsck.keyset import Keyset
from swapstore.protocol.commit import Record
from swapstore.protocol.load import ask_all, find, is_page_named, is_row_named, load_manifest, value_of
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from swapstore.format.manifest import Head, Manifest
    from swapstore.models import Entry, Ref, Row
    from swapstore.protocol.context import Context


CHUNK_BYTES = 4 * 1024 * 1024  # of payloads that are read in one batch
CHUNK_ROWS = 32


class Walk:
    """The walk of one dataset: call `begin`, then `step` while it is `pending`."""

    def __init__(self, ctx: Context, dataset: str) -> None:
        self._ctx = ctx
        self.dataset = dataset
        self.manifest: Manifest | None = None
        self.over: bytes | None = None  # the corrupt bytes that are stored instead of a manifest
        self.head: Head | None = None  # of the manifest, even if its log is corrupt
        self.reached = Keyset()  # keys that the manifest names, and keys that were judged since
        self.damage = Damage()
        self.rows = 0  # how many rows of the log were compared
        self.version = 0  # of the manifest when it was last read
        self._ahead: list[Ref] = []  # the next one last
        self._tail: tuple[Row, ...] | None = None  # compared after all pages
        self._served_in_log: list[Row] = []  # rows of the log with the version or the id of what is served
        self._page_unlinked = False  # retention unlinked a page before it was read

    @property
    def total(self) -> int:
        """How many rows the log has, according to the manifest."""
        return self.manifest.head.count if self.manifest else 0

    @property
    def pending(self) -> bool:
        """Whether there are more steps."""
        return bool(self._ahead) or self._tail is not None

    # --- the manifest ------------------------------------------------------------------------------

    def begin(self) -> Operation[list[Finding]]:
        """Read the manifest, and check its TTL and the dataset's name on the list of names."""
        keys = self._ctx.keys
        key = keys.manifest(self.dataset)
        asked: list[Command[Any]] = [Get(key), Ttl(key), Members(keys.datasets())]
        stored, ttl, names = yield from ask_all(self._ctx, asked)
        found = self._parse(key, stored)
        if self.manifest is None:
            return found
        if value_of(ttl) != PERMANENT:
            self.damage.manifest_wrong = True
            found.append(
                finding_of(self.dataset, Problem.MANIFEST_EXPIRING, key, expires_in_ms=value_of(ttl))
            )
        if self.dataset not in value_of(names):
            self.damage.unlisted = True
            found.append(finding_of(self.dataset, Problem.NAME_MISSING, keys.datasets()))
        log = self.manifest.log
        self._ahead, self._tail = [*reversed(log.pages)], log.rows
        return found

    def _parse(self, key: str, stored: bytes | Failed | None) -> list[Finding]:
        if stored is None:
            return []
        try:
            raw = value_of(stored)
        except Corrupt as error:  # a value of another type
            return self._corrupt(key, b"", error)
        try:
            parsed = manifest.parse(raw, self.dataset, key)
            self.head = parsed.head
            _ = parsed.log
        except UnsupportedFormat:
            raise
        except Damaged as error:
            return self._corrupt(key, raw, error)
        if not parsed.log.in_order:
            return self._corrupt(key, raw, Corrupt("the versions in its log are not in order", key=key))
        self.manifest = parsed
        self.version = parsed.version
        return []

    def _corrupt(self, key: str, raw: bytes, error: Damaged) -> list[Finding]:
        self.over = raw
        return [finding_of(self.dataset, Problem.MANIFEST_DAMAGED, key, detail=error.args[0])]

    # --- the log -----------------------------------------------------------------------------------

    def step(self) -> Operation[list[Finding]]:
        """Compare the next batch of pages, or the tail."""
        refs = search.batch(self._ahead)
        if refs:
            del self._ahead[-len(refs) :]
            found = yield from self._check_pages(refs)
        else:
            tail, self._tail = self._tail or (), None
            found = yield from self._check_rows(tail)
        if not self.pending:
            found += yield from self._check_served()
        return found

    def _check_pages(self, refs: Sequence[Ref]) -> Operation[list[Finding]]:
        replies = yield from self._read(refs)
        found: list[Finding] = []
        rows: list[Row] = []
        below: list[Ref] = []
        for ref, stored, ttl in zip(refs, replies[::2], replies[1::2], strict=True):
            self.reached.add(ref.key)
            page, wrong = yield from self._check_page(ref, stored, value_of(ttl))
            found += wrong
            rows += page.rows
            below += page.pages
        self._ahead += reversed(below)
        return found + (yield from self._check_rows(rows))

    def _read(self, refs: Sequence[Ref]) -> Operation[list[Any]]:
        """Read pages and their TTLs in one round trip."""
        commands: list[Command[Any]] = []
        for ref in refs:
            commands += [Get(ref.key), Ttl(ref.key)]
        return ask_all(self._ctx, commands)

    def _check_page(
        self, ref: Ref, stored: bytes | Failed | None, ttl: int, *, again: bool = False
    ) -> Operation[tuple[Page, list[Finding]]]:
        """Parse a page. What cannot be read has no rows. `again`: it was read twice."""
        try:
            record = value_of(stored)
            if record is None:
                return (yield from self._hole(Problem.PAGE_MISSING, ref, "", again=again))
            page = pages.parse(record, ref, self.dataset)
        except UnsupportedFormat:
            raise
        except Damaged as error:
            return (yield from self._hole(Problem.PAGE_DAMAGED, ref, error.args[0], again=again))
        if ttl == PERMANENT or (yield from self._instead_of(ref)) is not None:
            return page, []
        header = Record.of(ref.key, record).header
        self.damage.expiring[ref.key] = Expiring(header, ref.first_version, is_page=True)
        return page, [finding_of(self.dataset, Problem.PAGE_EXPIRING, ref.key, expires_in_ms=ttl)]

    def _hole(
        self, problem: Problem, ref: Ref, detail: str, *, again: bool
    ) -> Operation[tuple[Page, list[Finding]]]:
        """Note a page that cannot be read. If retention has unlinked it, return what is named instead."""
        instead = yield from self._instead_of(ref)
        if instead is not None:
            self._page_unlinked = True
            return Page(pages=tuple(instead)), []
        if not again:  # a replica may lag
            stored, ttl = yield from self._read([ref])
            return (yield from self._check_page(ref, stored, value_of(ttl), again=True))
        self.damage.holes.append(ref)
        span = f"versions {ref.first_version} to {ref.last_version}"
        found = finding_of(self.dataset, problem, ref.key, detail=f"{span}: {detail}" if detail else span)
        return Page(), [found]

    def _check_rows(self, rows: Sequence[Row]) -> Operation[list[Finding]]:
        found: list[Finding] = []
        for chunk in chunks(rows):
            for row, faults in (yield from compare(self._ctx, self.dataset, chunk)):
                self._note_reached(row)
                if faults and (yield from self._is_still_named(row.version)):
                    # Read it once more: a replica may lag.
                    ((_, again),) = yield from compare(self._ctx, self.dataset, [row])
                    found += yield from self._judge_row(row, again)
            self.rows += len(chunk)
        return found

    def _note_reached(self, row: Row) -> None:
        for key in self._ctx.keys.records(self.dataset, row):
            self.reached.add(key)
        served = self.manifest.head.named if self.manifest else ()
        if any(row.version == other.version or row.id == other.id for other in served):
            self._served_in_log.append(row)

    def _check_served(self) -> Operation[list[Finding]]:
        """Check `latest` and `pinned`, which retention may have taken out of the log, and the count."""
        assert self.manifest is not None  # noqa: S101 - there is a log
        head, key, found = self.manifest.head, self.manifest.key, list[Finding]()
        is_all_seen = not self.damage.holes and not self._page_unlinked
        for row in head.named:
            alike = [
                other for other in self._served_in_log if row.id == other.id or row.version == other.version
            ]
            if row in alike:
                continue
            if alike:  # the log has it otherwise, and the log decides
                self.damage.misnamed[row.version, row.id] = max(alike, key=partial(_likeness, row))
            else:
                found += yield from self._check_rows([row])
                self.rows -= 1
                in_hole = any(ref.spans(row.version) for ref in self.damage.holes)
                is_lost = head.shows(row) and is_all_seen
                if (in_hole or is_lost) and row.version not in self.damage.gone:
                    candidate = Unnamed.of(self.damage.as_recorded(row), self.manifest.epoch)
                    self.damage.candidates.append(attrs.evolve(candidate, is_served=not is_lost))
            if alike or (head.shows(row) and is_all_seen):
                found.append(finding_of(self.dataset, Problem.LATEST_WRONG, key, row=row))
        if self.rows != head.count and is_all_seen:
            self.damage.manifest_wrong = True
            detail = f"its count is {head.count}, its log has {self.rows} rows"
            found.append(finding_of(self.dataset, Problem.COUNT_WRONG, key, detail=detail))
        return found

    def _judge_row(self, row: Row, faults: list[Finding]) -> Operation[list[Finding]]:
        """Note the findings on a row; or, if its records contradict it together, that the row was altered."""
        if any(finding.problem is Problem.RECORD_DAMAGED for finding in faults):
            entry = yield from recorded(self._ctx, self.dataset, row)
            if entry is not None and not (yield from self._has_own_row(entry, row)):
                return [self.note_altered(row, entry)]
        return self._note_damage(row, faults)

    def _has_own_row(self, entry: Entry, row: Row) -> Operation[bool]:
        """Say whether the log has another row for an entry: its id was published again."""
        assert self.manifest is not None  # noqa: S101 - there is a row
        query = search.ById(entry.id, entry.ts, besides=row.version)
        try:
            other = yield from find(self._ctx, self.dataset, search.in_log(self.manifest.log, query))
        except Damaged:
            return False
        return other is not None and records.entry_header(other) == records.entry_header(entry)

    def note_altered(self, row: Row, entry: Entry) -> Finding:
        """Note that a row was altered, and what it has to state."""
        for known in (self.damage.gone, self.damage.without_ts, self.damage.held_ts):
            known.pop(row.version, None)
        self.damage.corrected[row.version] = entry
        keys = self._ctx.keys
        for key in keys.records(self.dataset, entry):
            self.reached.add(key)
        was, states = records.entry_fields(row), records.entry_fields(entry)
        differs = [name for name in {**was, **states} if was.get(name) != states.get(name)]
        finding = finding_of(self.dataset, Problem.ROW_DAMAGED, keys.manifest(self.dataset), row=row)
        return attrs.evolve(finding, id=entry.id, detail=f"its {' and '.join(differs)} was altered")

    def _note_damage(self, row: Row, faults: list[Finding]) -> list[Finding]:
        """Note what a repair has to know about the findings on a row."""
        damage = self.damage
        for finding in faults:
            match finding.problem:
                case Problem.RECORD_MISSING | Problem.RECORD_DAMAGED:
                    damage.gone[row.version] = row
                case Problem.RECORD_EXPIRING | Problem.TS_EXPIRING:
                    damage.expiring[finding.key] = Expiring(records.stated(row), row.version)
                case Problem.TS_DAMAGED if finding.expires_in_ms is None:
                    damage.held_ts[row.version] = row
                case Problem.TS_MISSING | Problem.TS_DAMAGED:
                    damage.without_ts[row.version] = row
        return faults

    def _is_still_named(self, version: int) -> Operation[bool]:
        """Say whether the log or the header still names the row of this version."""
        assert self.manifest is not None  # noqa: S101 - there is a log
        current = yield from self._current()
        if current.etag == self.manifest.etag:
            return True
        return (yield from is_row_named(self._ctx, current, version))

    def _instead_of(self, ref: Ref) -> Operation[list[Ref] | None]:
        """Return None if the log still names a page, else the pages that it names instead.

        Retention replaces a page of references by those that it holds. Where history is stored anew, another
        page takes its place.
        """
        current = yield from self._current()
        if (yield from is_page_named(self._ctx, current, ref.key, ref.first_version)):
            return None
        within = reseal.pages_within(current.log, ref.first_version, ref.last_version)
        return (yield from find(self._ctx, self.dataset, within))

    def _current(self) -> Operation[Manifest]:
        """Read the manifest again. Raises `Contended` if it is of another line of versions."""
        assert self.manifest is not None  # noqa: S101 - there is a log
        current = yield from load_manifest(self._ctx, self.dataset)
        if current is None or current.epoch != self.manifest.epoch:
            raise Contended(
                "the dataset was reset or repaired while it was verified; verify it again",
                dataset=self.dataset,
            )
        return current


# --- what a repair has to know ---------------------------------------------------------------------


@attrs.frozen
class Expiring:
    """A record that should have no TTL: its header, and the version of the row that names it (0: none)."""

    header: bytes
    version: int
    is_page: bool = False


@attrs.frozen
class Unresolved:
    """A permanent snapshot that is later than the manifest, or whose version is unknown.

    It is lost or leaked: that is decided when all keys have been seen. `keys` are those of its keys that are
    permanent, `expiring` those that have a TTL. `is_staged`: its ts record has a TTL, so a retry may have
    staged it.
    """

    candidate: Unnamed
    keys: tuple[str, ...]
    expiring: tuple[str, ...]
    is_staged: bool = False


@attrs.define
class Damage:
    """What a repair has to know about the findings on one dataset."""

    gone: dict[int, Row] = attrs.field(factory=dict)  # rows whose payload is gone, by version
    without_ts: dict[int, Row] = attrs.field(factory=dict)  # rows whose ts record has to be written
    held_ts: dict[int, Row] = attrs.field(factory=dict)  # rows whose ts record is altered and permanent
    expiring: dict[str, Expiring] = attrs.field(factory=dict)  # keys to make permanent
    leaked: list[str] = attrs.field(factory=list)  # permanent keys that belong to no commit
    holes: list[Ref] = attrs.field(factory=list)  # pages that cannot be read
    candidates: list[Unnamed] = attrs.field(factory=list)  # lost snapshots, to be put back into the log
    unresolved: list[Unresolved] = attrs.field(factory=list)
    corrected: dict[int, Entry] = attrs.field(factory=dict)  # what altered rows have to say, by version
    # Rows of the log, by version and id of the header's copy that differs from them.
    misnamed: dict[tuple[int, str], Row] = attrs.field(factory=dict)
    manifest_wrong: bool = False  # it has a TTL, or a wrong count: any swap repairs that
    unlisted: bool = False  # not on the list of names

    def as_recorded(self, row: Row) -> Row:
        """Return a row as its own records state it."""
        entry = self.corrected.get(row.version)
        return row if entry is None else attrs.evolve(row, **attrs.asdict(entry, recurse=False))


# --- rows and their records ------------------------------------------------------------------------


def compare(ctx: Context, dataset: str, rows: Sequence[Row]) -> Operation[list[tuple[Row, list[Finding]]]]:
    """Compare rows with their records: there, whole, the same, and permanent. Returns each row's findings."""
    commands: list[Command[Any]] = []
    for row in rows:
        id_key, ts_key = ctx.keys.records(dataset, row)
        commands += [Get(id_key), Ttl(id_key), Get(ts_key), Ttl(ts_key)]
    replies = yield from ask_all(ctx, commands)
    found = []
    for index, row in enumerate(rows):
        record, ttl, ts_record, ts_ttl = replies[4 * index : 4 * index + 4]
        faults = [
            *_of_id(ctx, dataset, row, record, value_of(ttl)),
            *_of_ts(ctx, dataset, row, ts_record, value_of(ts_ttl)),
        ]
        found.append((row, faults))
    return found


def _of_id(ctx: Context, dataset: str, row: Row, reply: bytes | Failed | None, ttl: int) -> list[Finding]:
    key = ctx.keys.id(dataset, row.id)
    try:
        record = value_of(reply)
        if record is None:
            return [finding_of(dataset, Problem.RECORD_MISSING, key, row=row)]
        records.payload_of(record, row, key)
    except UnsupportedFormat:
        raise
    except Damaged as error:
        return [finding_of(dataset, Problem.RECORD_DAMAGED, key, row=row, detail=error.args[0])]
    if ttl == PERMANENT:
        return []
    return [finding_of(dataset, Problem.RECORD_EXPIRING, key, row=row, expires_in_ms=ttl)]


def _of_ts(ctx: Context, dataset: str, row: Row, reply: bytes | Failed | None, ttl: int) -> list[Finding]:
    key = ctx.keys.ts(dataset, row.ts, row.id)
    if reply is None:
        return [finding_of(dataset, Problem.TS_MISSING, key, row=row)]
    if not _is_ts_of(row, bytes_of(reply), key):
        expires = None if ttl == PERMANENT else ttl
        return [finding_of(dataset, Problem.TS_DAMAGED, key, row=row, expires_in_ms=expires)]
    if ttl == PERMANENT:
        return []
    return [finding_of(dataset, Problem.TS_EXPIRING, key, row=row, expires_in_ms=ttl)]


def _likeness(one: Row, other: Row) -> int:
    """Count the fields in which two rows are equal."""
    return sum(getattr(one, field.name) == getattr(other, field.name) for field in attrs.fields(type(one)))


def _is_ts_of(row: Row, record: bytes, key: str) -> bool:
    """Say whether a ts record is a row's. Its origin is never later than the row: see `records.Origin`."""
    if not records.states(record, row):
        return False
    _, origin = records.read_ts(record, key)
    return origin is not None and origin.version <= row.version


def recorded(ctx: Context, dataset: str, row: Row) -> Operation[Entry | None]:
    """Return what the id record of a row states, if the row is what was altered, and not the record.

    A row, its id record and its ts record state the same. Two of them outvote the third. An id record whose
    payload has the size and the digest that it states outvotes a row that no ts record agrees with.
    """
    key, own_key = ctx.keys.records(dataset, row)
    commands: list[Command[Any]] = [Get(key), Ttl(key), Get(own_key)]
    stored, ttl, own = yield from ask_all(ctx, commands)
    record = bytes_of(stored)
    try:
        entry = records.entry_of(record, key)
    except Corrupt:
        return None
    agrees = records.states(bytes_of(own), row)
    if entry.id != row.id or agrees or not records.is_whole(record, entry):
        return None
    ts_key = ctx.keys.ts(dataset, entry.ts, entry.id)
    told: list[Command[Any]] = [Get(ts_key), Ttl(ts_key)]
    ts_record, ts_ttl = yield from ask_all(ctx, told)
    if value_of(ts_ttl) != PERMANENT or not records.states(bytes_of(ts_record), entry):
        return entry if value_of(ttl) == PERMANENT else None
    origin = records.origin_in(bytes_of(ts_record))
    is_later = origin is not None and origin.version > row.version  # the id was published again
    return None if is_later else entry


def bytes_of(reply: bytes | Failed | None) -> bytes:
    """Return the value of a key. Empty: there is none, or it is of another type. Raises other refusals."""
    try:
        return value_of(reply) or b""
    except Corrupt:
        return b""


def finding_of(
    dataset: str,
    problem: Problem,
    key: str,
    *,
    row: Row | None = None,
    detail: str = "",
    expires_in_ms: int | None = None,
) -> Finding:
    """Build a finding about a key, and about the row that names it, if there is one."""
    return Finding(
        problem=problem,
        dataset=dataset,
        key=key,
        version=row.version if row else None,
        id=row.id if row else None,
        detail=detail,
        expires_in_ms=expires_in_ms,
    )


def chunks(rows: Sequence[Row]) -> list[list[Row]]:
    """Split rows into chunks, so that reading their payloads takes a bounded amount of memory."""
    split: list[list[Row]] = []
    room = 0
    for row in rows:
        if not split or room < row.size or len(split[-1]) == CHUNK_ROWS:
            split.append([])
            room = CHUNK_BYTES
        split[-1].append(row)
        room -= row.size
    return split
