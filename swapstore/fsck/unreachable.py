"""Keys that no manifest reaches: scan all keys, and judge those that the walks have not seen.

A key with a TTL expires by itself. A permanent record that no walk has reached was committed since the walk;
or it was lost with a manifest or a page; or it is leaked: it was never committed, or it was unlinked.

The ts record tells them apart. Its origin says for which line of versions and for which version the record
was staged. If the manifest is of the same line and does not name the record, the record is
leaked. If it is of another line, or there is none, or a page is missing, the record counts as lost, which a
repair undoes. Only a key that is proved to belong to no commit is called leaked.

A base is leaked if neither a row nor a lost snapshot needs it, which is known when all keys have been seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import ABSENT, PERMANENT, Command, Get, Scan, Ttl
from swapstore.errors import Contended, Corrupt
from swapstore.format import records, search
from swapstore.format.keys import group_name
from swapstore.format.members import parse_table
from swapstore.format.rebuild import Unnamed
from swapstore.fsck.findings import Finding, Problem
from swapstore.fsck.members import ComparedMembers, compare_members
from swapstore.fsck.rows import bytes_of, finding_of
from swapstore.fsck.walk import Expiring, Unresolved, Walk
from swapstore.protocol.load import (
    ask,
    ask_all,
    gather,
    is_base_named,
    is_page_named,
    load_manifest,
    value_of,
)
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swapstore.format.keys import Name
    from swapstore.format.manifest import Manifest
    from swapstore.format.records import Origin
    from swapstore.models import Entry, Row
    from swapstore.protocol.context import Context


SCAN_KEYS = 500  # that are scanned in one step
NOT_PUT_BACK = "it cannot be put back into the log"


class KeyScan:
    """Scans the keys of one dataset, or of all (None), and judges those that no walk has reached.

    `walks` are the walks that are done, by dataset. It adds those of datasets that are found by their keys
    alone.
    """

    def __init__(self, ctx: Context, walks: dict[str, Walk], dataset: str | None) -> None:
        self._ctx = ctx
        self._walks = walks
        self._pattern = ctx.keys.all(dataset)
        self._only = dataset
        self._cursor: str | None = ""
        self.keys = 0

    @property
    def pending(self) -> bool:
        """Whether there are more steps."""
        return self._cursor is not None

    def step(self) -> Operation[list[Finding]]:
        """Scan some more keys."""
        scanned = yield from ask(self._ctx, Scan(self._pattern, self._cursor or "", SCAN_KEYS))
        self._cursor = scanned.cursor
        self.keys += len(scanned.keys)
        found: list[Finding] = []
        names: list[Name] = []
        for key in self._unreached(scanned.keys):
            name = self._ctx.keys.parse(key)
            if name is None:
                found += self._foreign(key)
            elif name.kind != "manifest" and self._only in {None, name.dataset}:
                names.append(name)
        left: list[Name] = []
        for name in names:
            walk = yield from self._walk(name.dataset, found)
            if name.key not in walk.reached:
                left.append(name)
        ttls = yield from ask_all(self._ctx, [Ttl(name.key) for name in left])
        unreached: dict[str, list[Name]] = {}
        for name, reply in zip(left, ttls, strict=True):
            ttl = value_of(reply)
            is_temporary = name.kind in {"live", "lease", "mark"} and ttl != PERMANENT
            if ttl == ABSENT or is_temporary:
                continue
            if ttl == PERMANENT:
                unreached.setdefault(name.dataset, []).append(name)
            else:
                found.append(self._orphan(name, ttl))
        for dataset, permanent in unreached.items():
            found += yield from self._judge(self._walks[dataset], permanent)
        if not self.pending:
            for walk in self._walks.values():
                found += decide(walk)
        return found

    def _unreached(self, keys: Iterable[str]) -> list[str]:
        """Leave out the keys that a walk has reached: most. They need not be parsed, which takes longer."""
        found: list[str] = []
        for key in dict.fromkeys(keys):
            walk = self._walks.get(key[key.find("{") + 1 : key.find("}")])
            if walk is None or key not in walk.reached:
                found.append(key)
        return found

    def _walk(self, dataset: str, found: list[Finding]) -> Operation[Walk]:
        """Return the walk of a dataset. A dataset that has none yet is walked now."""
        walk = self._walks.get(dataset)
        if walk is None:
            walk = self._walks[dataset] = Walk(self._ctx, dataset)
            found += yield from walk.begin()
            while walk.pending:
                found += yield from walk.step()
        return walk

    def _orphan(self, name: Name, ttl: int) -> Finding:
        began = self._ctx.policy.staging_ttl_ms
        finding = finding_of(name.dataset, Problem.ORPHAN, name.key, expires_in_ms=ttl)
        is_record = name.kind != "live" and ttl <= began
        return attrs.evolve(finding, age_ms=began - ttl if is_record else None)

    def _foreign(self, key: str) -> list[Finding]:
        if key == self._ctx.keys.datasets():
            return []
        return [finding_of(self._only or "", Problem.FOREIGN, key)]

    def _judge(self, walk: Walk, names: list[Name]) -> Operation[list[Finding]]:
        found: list[Finding] = []
        is_dropped = walk.manifest is not None and walk.manifest.head.is_dropped
        for name in (yield from still_unreached(self._ctx, walk, names)):
            if name.kind in {"id", "ts"} and not is_dropped:
                found += yield from judge(self._ctx, walk, name)
            elif name.kind == "base":
                walk.reached.add(name.key)
                walk.damage.unclaimed[name.key] = name.rest
            elif name.kind == "member":
                walk.reached.add(name.key)
                walk.damage.unlisted_members[name.key] = name.rest
            else:
                found += note_leaked(walk, [name.key])
        return found


# --- judging permanent keys ------------------------------------------------------------------------


def still_unreached(ctx: Context, walk: Walk, names: list[Name]) -> Operation[list[Name]]:
    """Leave out keys that were committed or unlinked since the walk.

    Raises `Contended` if the manifest is of another line of versions now.
    """
    if walk.over is None:
        current = yield from load_manifest(ctx, walk.dataset)
        before = walk.manifest
        if (before and before.epoch) != (current and current.epoch):
            raise Contended(
                "the dataset was reset, repaired or first published while it was verified; verify it again",
                dataset=walk.dataset,
            )
        if current:
            walk.version = current.version
        if before and current and current.version > before.version:
            yield from _catch_up(ctx, walk, current, before.version, names)
    left = [name for name in names if name.key not in walk.reached]
    ttls = yield from ask_all(ctx, [Ttl(name.key) for name in left])
    return [name for name, ttl in zip(left, ttls, strict=True) if value_of(ttl) == PERMANENT]


def _catch_up(
    ctx: Context, walk: Walk, current: Manifest, version: int, names: Iterable[Name]
) -> Operation[None]:
    """Add the keys that later versions name to those that the walk has reached."""
    dataset = walk.dataset
    later = (*(yield from gather(ctx, dataset, search.since(current, version))), *current.head.kept)
    for row in later:
        for key in ctx.keys.records(dataset, row):
            walk.reached.add(key)
    groups = {group_name(row.id, row.sha256) for row in later if row.is_group}
    for name in names:
        if name.kind == "page":
            named = yield from is_page_named(ctx, current, name.key, name.first_version)
        else:
            named = name.kind == "base" and (yield from is_base_named(ctx, current, name.rest))
            named = named or (name.kind == "member" and name.rest in groups)
        if named:
            walk.reached.add(name.key)


def judge(ctx: Context, walk: Walk, name: Name) -> Operation[list[Finding]]:
    """Judge a permanent id or ts record that no manifest names: lost, leaked, or unresolved for now."""
    if name.key in walk.reached:
        return []  # it was judged together with the other record of its snapshot
    asked = dict.fromkeys((name.key, ctx.keys.id(walk.dataset, name.id)))
    replies = yield from ask_all(ctx, [Get(key) for key in asked])
    if replies[0] is None:
        return []  # it expired, or the store was emptied
    data = bytes_of(replies[0])
    entry = _entry_of(name, data, bytes_of(replies[-1]))
    if entry is None:
        return note_leaked(walk, [name.key], detail=_why_alone(name, data))
    id_key, ts_key = ctx.keys.records(walk.dataset, entry)
    both: list[Command[Any]] = [Get(id_key), Ttl(id_key), Get(ts_key), Ttl(ts_key)]
    stored, ttl, stored_ts, ts_ttl = yield from ask_all(ctx, both)
    if value_of(ttl if name.kind == "id" else ts_ttl) != PERMANENT:
        return []
    record, ts_record = bytes_of(stored), bytes_of(stored_ts)
    has_id, has_ts = records.states(record, entry), records.states_ts(ts_record, entry)
    origin = records.origin_in(ts_record)
    both_ttls = ((id_key, ttl, has_id), (ts_key, ts_ttl, has_ts))
    ours = {key: value_of(left) for key, left, is_ours in both_ttls if is_ours}
    permanent = [key for key, left in ours.items() if left == PERMANENT]
    if origin is not None and origin.pending:
        return note_leaked(walk, permanent or [name.key])
    is_staged = bool(ts_record) and value_of(ts_ttl) != PERMANENT  # it may have expired after it was read
    if is_staged and not _may_be_its_own(walk, origin):
        has_ts, origin = False, None
    is_unresolved = _is_unresolved(walk, origin, has_ts=has_ts, is_staged=is_staged)
    fault, parts = yield from _fault_of(ctx, walk, entry, record if has_id else None)
    row = None if fault else _altered_row(walk, entry)
    if row is not None:
        return [walk.note_altered(row, records.holding_of(record, id_key))]
    if fault or not (is_unresolved or _is_committed(walk, origin)):
        detail = f"{NOT_PUT_BACK}: {fault}" if fault else ""
        return note_leaked(walk, permanent or [name.key], detail=detail)
    walk.reached.add(id_key)
    walk.reached.add(ts_key)
    begins = {id_key: records.stated(entry), ts_key: records.stated_ts(entry)}
    temporary = [key for key, left in ours.items() if left not in {PERMANENT, ABSENT}]
    expiring = {key: begins[key] for key in temporary if has_ts or key == id_key}
    found = [] if walk.damage.candidates else _no_manifest(ctx, walk)
    is_altered = not has_ts and value_of(ts_ttl) == PERMANENT
    if is_altered:  # this swap gives it a TTL, so that the next one can write it again
        found += note_leaked(walk, [ts_key])
    needed = records.holding_of(record, id_key).base or parts.base
    base = None if needed is None else (yield from walk.bases.read([needed]))[needed]
    candidate = Unnamed(entry=entry, origin=origin, has_ts=has_ts or is_altered, base=needed)
    one = Unresolved(candidate, tuple(permanent), expiring, is_staged=is_staged, members=parts.faults)
    if base is not None and base.problem is None and not base.is_permanent:
        one = attrs.evolve(one, base=attrs.evolve(base, content=None))
    if is_unresolved:
        walk.damage.unresolved.append(one)
        return found
    return [*found, *_note_lost(walk, one, id_key)]


def _fault_of(
    ctx: Context, walk: Walk, entry: Entry, record: bytes | None
) -> Operation[tuple[str, ComparedMembers]]:
    """Return why a snapshot, or a member of a group, cannot be read, and its members. Empty: it can."""
    if record is None:
        return "it is gone", ComparedMembers()
    fault = yield from walk.bases.fault_of(record, entry)
    if fault or not entry.is_group:
        return fault, ComparedMembers()
    table = yield from walk.bases.payload_of(record, entry)
    try:
        listed = parse_table(table, ctx.keys.id(walk.dataset, entry.id))
    except Corrupt as error:
        return str(error.args[0]), ComparedMembers()
    parts = yield from compare_members(ctx, walk.dataset, entry, listed)
    if parts.gone is not None:
        gone = parts.gone.finding
        return f"{gone.key}: {gone.detail or gone.problem.meaning}", parts
    return "", parts


def _altered_row(walk: Walk, entry: Entry) -> Row | None:
    """Return the row without a record that states an entry under another id: its id was altered."""
    for row in walk.damage.gone.values():
        if records.entry_header(attrs.evolve(row, id=entry.id)) == records.entry_header(entry):
            return row
    return None


def _note_lost(walk: Walk, one: Unresolved, id_key: str) -> list[Finding]:
    """Note a committed snapshot that a repair puts back into the log."""
    entry = one.candidate.entry
    walk.damage.candidates.append(one.candidate)
    for key, header in one.expiring.items():
        walk.damage.expiring[key] = Expiring(header, 0)
    for each in one.members:
        walk.damage.expiring[each.finding.key] = Expiring(each.header, 0)
    if one.base is not None:
        walk.damage.expiring[one.base.key] = Expiring(one.base.header, 0)
    detail = (
        "" if one.candidate.is_proved else "its ts record is gone, so nothing shows that it was committed"
    )
    return [attrs.evolve(finding_of(walk.dataset, Problem.LOST, id_key, detail=detail), id=entry.id)]


def _no_manifest(ctx: Context, walk: Walk) -> list[Finding]:
    """Report that there is no manifest, now that a committed snapshot shows that there should be one."""
    if walk.manifest is not None or walk.over is not None:
        return []
    return [finding_of(walk.dataset, Problem.MANIFEST_MISSING, ctx.keys.manifest(walk.dataset))]


def _entry_of(name: Name, data: bytes, id_record: bytes) -> Entry | None:
    """Read the entry of an id or ts record, which only the id record has.

    None: the id record is not there, or corrupt, or its key names another; or the ts record, with these data,
    is of another entry.
    """
    try:
        entry = records.entry_of(id_record, name.key)
    except Corrupt:
        return None
    is_own = name.kind == "id" or (entry.ts == name.ts and records.states_ts(data, entry))
    return entry if is_own and entry.id == name.id else None


def _why_alone(name: Name, data: bytes) -> str:
    """Say that the payload of a ts record is gone, if it may have been committed."""
    origin = records.origin_in(data) if name.kind == "ts" else None
    return "" if origin is None or origin.pending else f"{NOT_PUT_BACK}: it is gone"


def _is_committed(walk: Walk, origin: Origin | None) -> bool:
    """Say whether a whole, permanent record was committed. False only if its origin disproves that.

    What was committed before the dataset was dropped is not any more.
    """
    if walk.manifest is None or origin is None:
        return True
    if origin.version <= walk.manifest.head.dropped:
        return False
    if origin.epoch != walk.manifest.epoch:
        return True
    return any(hole.last_version >= origin.version for hole in walk.damage.holes)


def _may_be_its_own(walk: Walk, origin: Origin | None) -> bool:
    """Say whether a ts record with a TTL may be the one that was committed with its id record.

    A retry stages one beside a committed id record whose own ts record was lost, for a version that it never
    gets. A page that is missing, or the manifest, keeps it from finding its row.
    """
    if origin is None or walk.manifest is None:
        return origin is not None
    if origin.epoch != walk.manifest.epoch or not walk.damage.holes:
        return True
    return any(hole.spans(origin.version) for hole in walk.damage.holes)


def _is_unresolved(walk: Walk, origin: Origin | None, *, has_ts: bool, is_staged: bool) -> bool:
    """Say whether only the other keys can show whether a record is lost or leaked.

    That is so when it was staged for a later version than the manifest's, because an older manifest may have
    been put back; and when no permanent ts record says for which version it was staged, unless a page is
    missing.
    """
    if walk.manifest is None:
        return is_staged
    if origin is None or (is_staged and origin.epoch == walk.manifest.epoch):
        return (is_staged or not has_ts) and not walk.damage.holes
    return origin.epoch == walk.manifest.epoch and origin.version > walk.version


def decide(walk: Walk) -> list[Finding]:
    """Decide which unresolved snapshots are lost and which leaked, now that all keys have been seen.

    A commit that was cut short before its swap leaves records of the very next version, and of no other. If
    there are records of later versions than that, an older manifest was put back, and all of them were
    committed.

    Nothing shows whether a whole record was committed whose ts record is gone. It is put back, so that it can
    be read. Unless an older manifest was put back, or snapshots of another epoch are lost, it is not proved:
    then it is not served.
    """
    epoch = walk.manifest.epoch if walk.manifest else ""
    others = any(c.origin and c.origin.epoch != epoch for c in walk.damage.candidates)
    unresolved, walk.damage.unresolved = walk.damage.unresolved, []
    versions = [one.candidate.origin.version for one in unresolved if one.candidate.origin]
    was_put_back = max(versions, default=0) > walk.version + 1
    found: list[Finding] = []
    for one in unresolved:
        if walk.manifest is None:
            found += _note_lost(walk, _of_known_epoch(walk, one), one.keys[0])
            continue
        candidate, is_proved = one.candidate, was_put_back or others
        if one.is_staged and is_proved and candidate.origin and not was_put_back:  # a retry has staged it
            candidate = attrs.evolve(candidate, origin=None, has_ts=False)
            one = attrs.evolve(one, expiring={})  # noqa: PLW2901
        if was_put_back or candidate.origin is None:
            candidate = attrs.evolve(candidate, is_proved=is_proved)
            found += _note_lost(walk, attrs.evolve(one, candidate=candidate), one.keys[0])
        else:
            found += note_leaked(walk, list(one.keys))
    return found + _leaked_parts(walk)


def _leaked_parts(walk: Walk) -> list[Finding]:
    """Report the bases and the members that nothing needs. A page that is lost may have had rows that do."""
    unclaimed, walk.damage.unclaimed = walk.damage.unclaimed, {}
    members, walk.damage.unlisted_members = walk.damage.unlisted_members, {}
    if walk.damage.holes:
        return []
    needed = {candidate.base for candidate in walk.damage.candidates}
    put_back = {group_name(each.entry.id, each.entry.sha256) for each in walk.damage.candidates}
    leaked = [key for key, name in unclaimed.items() if name not in needed]
    leaked += [key for key, group in members.items() if group not in put_back]
    return note_leaked(walk, leaked)


def _of_known_epoch(walk: Walk, one: Unresolved) -> Unresolved:
    """Leave out an origin whose epoch no permanent ts record has: a retry without a manifest makes one up."""
    origin = one.candidate.origin
    epochs = {candidate.origin.epoch for candidate in walk.damage.candidates if candidate.origin}
    if origin is None or origin.epoch in epochs:
        return one
    candidate = attrs.evolve(one.candidate, origin=None, has_ts=False)
    return attrs.evolve(one, candidate=candidate, expiring={})


def note_leaked(walk: Walk, keys: list[str], *, detail: str = "") -> list[Finding]:
    """Report leaked keys, and note that a repair has to give them a TTL."""
    for key in keys:
        walk.reached.add(key)
        walk.damage.leaked.append(key)
    return [finding_of(walk.dataset, Problem.LEAKED, key, detail=detail) for key in keys]
