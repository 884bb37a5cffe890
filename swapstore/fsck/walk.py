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
from swapstore.format.keys import group_name
from swapstore.format.pages import Page
from swapstore.format.rebuild import Unnamed
from swapstore.fsck.bases import Bases, StoredBase, wrong_numbers
from swapstore.fsck.findings import Finding, Problem
from swapstore.fsck.keyset import Keyset
from swapstore.fsck.members import ComparedMembers, MemberFault, compare_members, fault_of_base
from swapstore.fsck.rows import Compared, chunks, compare, finding_of, recorded
from swapstore.protocol.commit import Record
from swapstore.protocol.load import ask_all, find, is_page_named, is_row_named, load_manifest, value_of
from swapstore.protocol.members import load_table
from swapstore.protocol.operation import Operation
from swapstore.protocol.unlink import members_of_base

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from swapstore.format.encodings import InForce
    from swapstore.format.manifest import Head, Manifest
    from swapstore.models import Entry, Ref, Row
    from swapstore.protocol.context import Context


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
        self.bases = Bases(ctx, dataset)
        self.rows = 0  # how many rows of the log were compared
        self.version = 0  # of the manifest when it was last read
        self._ahead: list[Ref] = []  # the next one last
        self._tail: tuple[Row, ...] | None = None  # compared after all pages
        self._served_in_log: list[Row] = []  # rows of the log with the version or the id of what is served
        self._page_unlinked = False  # retention unlinked a page before it was read
        self._last_base = ""  # the one that was added to `reached` last

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
        if self.dataset not in value_of(names) and not self.manifest.head.is_dropped:
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
            found += yield from self._check_in_force()
            found += [each.finding(self.dataset) for each in self.damage.lost_bases.values()]
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
            self._note_reached(chunk)
            for each in (yield from compare(self._ctx, self.dataset, chunk, self.bases)):
                row = each.row
                if row.base is not None or each.base is not None:
                    yield from self._note_bases(row.base, each.base)
                if each.faults and (yield from self._is_still_named(row.version)):
                    # Read it once more: a replica may lag.
                    (again,) = yield from compare(self._ctx, self.dataset, [row], self.bases, again=True)
                    found += yield from self._judge_row(again)
                if row.is_group and row.version not in self.damage.gone:
                    found += yield from self._check_members(row)
            self.rows += len(chunk)
        return found

    def _check_members(self, row: Row) -> Operation[list[Finding]]:
        """Check the members of a group whose table can be read."""
        assert self.manifest is not None  # noqa: S101 - there is a log
        ctx, dataset = self._ctx, self.dataset
        try:
            listed = yield from load_table(ctx, self.manifest, row)
        except Damaged:  # its row was altered, or it has been unlinked since
            return []
        for name in listed:
            self.reached.add(ctx.keys.member(dataset, group_name(row.id, row.sha256), name))
        compared = yield from compare_members(ctx, dataset, row, listed, row)
        found: list[Finding] = []
        if compared.faults and (yield from self._is_still_named(row.version)):
            compared = yield from compare_members(ctx, dataset, row, listed, row)  # a replica may lag
            found = self._note_members(row, compared)
        for key in compared.base_keys:  # the table of the base may be lost, and nobody else names them
            self.reached.add(key)
        if compared.base not in {None, row.base} and (yield from self._is_still_named(row.version)):
            found += yield from self._note_other_base(row, compared.base or "")
        return found

    def _note_members(self, row: Row, compared: ComparedMembers) -> list[Finding]:
        """Note what a repair has to know about the members of a group. Returns the findings that are new."""
        if compared.gone is not None:
            self.damage.gone[row.version] = row
            return [each.finding for each in compared.faults if each.is_gone]
        found: list[Finding] = []
        for each in compared.faults:
            key = each.finding.key
            if key not in self.damage.expiring:  # other groups may need the same base
                found.append(each.finding)
            self.damage.expiring[key] = Expiring(each.header, row.version)
        return found

    def _note_base(self, name: str) -> Operation[None]:
        for key in (
            self._ctx.keys.base(self.dataset, name),
            *(yield from members_of_base(self._ctx, self.dataset, name)),
        ):
            self.reached.add(key)

    def _note_reached(self, rows: Sequence[Row]) -> None:
        records_of, dataset = self._ctx.keys.records, self.dataset
        self.reached.update(key for row in rows for key in records_of(dataset, row))
        served = self.manifest.head.named if self.manifest else ()
        versions, ids = {row.version for row in served}, {row.id for row in served}
        self._served_in_log += [row for row in rows if row.version in versions or row.id in ids]

    def _note_bases(self, named: str | None, needed: StoredBase | None) -> Operation[None]:
        for name in (named, None if needed is None else needed.name):
            if name is not None and name != self._last_base:
                yield from self._note_base(name)
                self._last_base = name

    def _check_served(self) -> Operation[list[Finding]]:
        """Check `latest` and `pinned`, which retention may have taken out of the log, and the count."""
        assert self.manifest is not None  # noqa: S101 - there is a log
        head, key, found = self.manifest.head, self.manifest.key, list[Finding]()
        is_all_seen = not self.damage.holes and not self._page_unlinked
        for row in head.named:
            alike = [
                other for other in self._served_in_log if row.id == other.id or row.version == other.version
            ]
            if any(row == other and row.base == other.base for other in alike):
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

    def _judge_row(self, compared: Compared) -> Operation[list[Finding]]:
        """Note the findings on a row; or, if its records contradict it together, that the row was altered."""
        row, faults = compared.row, compared.faults
        if any(finding.problem is Problem.RECORD_DAMAGED for finding in faults):
            entry = yield from recorded(self._ctx, self.dataset, row, self.bases)
            if entry is not None and not (yield from self._has_own_row(entry, row)):
                return [self.note_altered(row, entry)]
        found = self._note_damage(compared)
        if any(finding.problem is Problem.ROW_DAMAGED for finding in faults) and compared.base is not None:
            found += yield from self._note_other_base(row, compared.base.name)
        return found

    def _note_other_base(self, row: Row, name: str) -> Operation[list[Finding]]:
        """Note that a row names another base than its record, unless it has been stored anew since."""
        query = search.ByVersion(row.version)
        current = yield from self._current()
        try:
            now = yield from find(self._ctx, self.dataset, search.search(current, query, hidden=True))
        except Damaged:
            now = None
        if now is not None and now.base == name:
            return []
        self.damage.corrected[row.version] = {"base": name}
        finding = finding_of(self.dataset, Problem.ROW_DAMAGED, current.key, row=row)
        return [attrs.evolve(finding, detail=f"its base is {name}")]

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
        fields = attrs.asdict(entry, recurse=False)
        fields.pop("encoding", None)
        self.damage.corrected[row.version] = fields
        keys = self._ctx.keys
        for key in keys.records(self.dataset, entry):
            self.reached.add(key)
        was, states = records.entry_fields(row), records.entry_fields(entry)
        differs = [name for name in {**was, **states} if was.get(name) != states.get(name)]
        finding = finding_of(self.dataset, Problem.ROW_DAMAGED, keys.manifest(self.dataset), row=row)
        return attrs.evolve(finding, id=entry.id, detail=f"its {' and '.join(differs)} was altered")

    def _note_damage(self, compared: Compared) -> list[Finding]:
        """Note what a repair has to know about the findings on a row. Returns those that are new."""
        damage, row, base = self.damage, compared.row, compared.base
        found: list[Finding] = []
        for finding in compared.faults:
            match finding.problem:
                case Problem.RECORD_MISSING | Problem.RECORD_DAMAGED:
                    damage.gone[row.version] = row
                case Problem.RECORD_BASELESS if base is not None:
                    damage.gone[row.version] = row
                    damage.lost_bases.setdefault(base.name, LostBase(base)).note(row)
                case Problem.RECORD_EXPIRING:
                    damage.expiring[finding.key] = Expiring(records.stated(row), row.version)
                case Problem.TS_EXPIRING:
                    damage.expiring[finding.key] = Expiring(records.stated_ts(row), row.version)
                case Problem.BASE_EXPIRING if base is not None:
                    is_known = finding.key in damage.expiring
                    damage.expiring[finding.key] = Expiring(base.header, row.version)
                    if is_known:
                        continue
                case Problem.TS_DAMAGED if finding.expires_in_ms is None:
                    damage.held_ts[row.version] = row
                case Problem.TS_MISSING | Problem.TS_DAMAGED:
                    damage.without_ts[row.version] = row
                case Problem.ROW_DAMAGED:
                    continue  # see `_note_other_base`
            found.append(finding)
        return found

    def _check_in_force(self) -> Operation[list[Finding]]:
        """Check the base in force, unless another one is by now."""
        assert self.manifest is not None  # noqa: S101 - there is a log
        in_force = self.manifest.log.base
        if in_force is None:
            return []
        name, version = in_force.name, self.manifest.version
        stored = (yield from self.bases.read([name]))[name]
        yield from self._note_base(name)
        wrong = yield from self._wrong_with(in_force, stored, version)
        if stored.is_permanent and not wrong:
            return []
        current = yield from self._current()
        if current.log.base is None or current.log.base.name != name:
            return []
        stored = (yield from self.bases.read([name], again=True))[name]  # a replica may lag
        wrong = yield from self._wrong_with(in_force, stored, version)
        found: list[Finding] = []
        if stored.problem is None and not stored.is_permanent and stored.key not in self.damage.expiring:
            self.damage.expiring[stored.key] = Expiring(stored.header, 0)
            found.append(
                finding_of(self.dataset, Problem.BASE_EXPIRING, stored.key, expires_in_ms=stored.ttl)
            )
        if wrong:
            self.damage.not_in_force = name
            detail = f"its base in force is {name}: {wrong}"
            found.append(finding_of(self.dataset, Problem.IN_FORCE_WRONG, current.key, detail=detail))
        if stored.problem is Problem.BASE_DAMAGED:
            self.damage.lost_bases.setdefault(name, LostBase(stored))
        return found

    def _wrong_with(self, in_force: InForce, stored: StoredBase, version: int) -> Operation[str]:
        """Return why a base cannot be in force. Empty: it can."""
        wrong = stored.fault or wrong_numbers(in_force, stored, version)
        if wrong or stored.content is None:
            return wrong
        return (yield from fault_of_base(self._ctx, self.dataset, stored.content))

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
    """A record that should have no TTL: how it begins, and the version of the row that names it (0: none)."""

    header: bytes
    version: int
    is_page: bool = False


@attrs.frozen
class Unresolved:
    """A permanent snapshot that is later than the manifest, or whose version is unknown.

    It is lost or leaked: that is decided when all keys have been seen. `keys` are those of its keys that are
    permanent; `expiring` those that have a TTL, each with the beginning of its record; `base` its base if
    that has one; `members` the members of a group that have one. `is_staged`: its ts record has a TTL, so a
    retry may have staged it.
    """

    candidate: Unnamed
    keys: tuple[str, ...]
    expiring: Mapping[str, bytes]
    is_staged: bool = False
    base: StoredBase | None = None
    members: Sequence[MemberFault] = ()


@attrs.define
class LostBase:
    """A base that cannot be read, and how many rows need it: those of the versions from `first` to `last`."""

    stored: StoredBase
    rows: int = 0
    first: int = 0
    last: int = 0

    def note(self, row: Row) -> None:
        """Note a row that needs it."""
        self.rows += 1
        self.first = min(self.first or row.version, row.version)
        self.last = max(self.last, row.version)

    def finding(self, dataset: str) -> Finding:
        """Return the finding about the base itself."""
        assert self.stored.problem is not None  # noqa: S101 - it is lost
        cost = f"needed by {self.rows} snapshots of versions {self.first} to {self.last}"
        detail = f"{cost if self.rows else 'no snapshot needs it'}: {self.stored.fault}"
        left = None if self.stored.ttl < 0 else self.stored.ttl
        return finding_of(dataset, self.stored.problem, self.stored.key, detail=detail, expires_in_ms=left)


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
    lost_bases: dict[str, LostBase] = attrs.field(factory=dict)  # bases that cannot be read, by name
    unclaimed: dict[str, str] = attrs.field(factory=dict)  # names of bases that no row names, by key
    unlisted_members: dict[str, str] = attrs.field(factory=dict)  # names of groups that no row names, by key
    not_in_force: str | None = None  # the base that is in force and cannot be
    # What altered rows have to state: the fields that may differ, by version.
    corrected: dict[int, dict[str, Any]] = attrs.field(factory=dict)
    # Rows of the log, by version and id of the header's copy that differs from them.
    misnamed: dict[tuple[int, str], Row] = attrs.field(factory=dict)
    manifest_wrong: bool = False  # it has a TTL, or a wrong count: any swap repairs that
    unlisted: bool = False  # not on the list of names

    def as_recorded(self, row: Row) -> Row:
        """Return a row as its own records state it."""
        return attrs.evolve(row, **self.corrected.get(row.version, {}))


def _likeness(one: Row, other: Row) -> int:
    """Count the fields in which two rows are equal."""
    return sum(getattr(one, field.name) == getattr(other, field.name) for field in attrs.fields(type(one)))
