"""Permanent records that no survey has seen: they were committed meanwhile, lost with a manifest, or leaked.

A record says in its origin (the body of its ts record) which line of versions it was staged for. Under a
manifest of the same line that does not name it, it was never committed, or let go of. Under another, or
none, or one with a hole, it was committed: nothing else makes a record permanent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import ABSENT, PERMANENT, Command, Get, Scan, Ttl
from swapstore.errors import Contended, Corrupt
from swapstore.format import records, search
from swapstore.format.rebuild import Candidate
from swapstore.fsck.findings import Finding, Problem
from swapstore.fsck.walk import Expiring, Later, Survey, bytes_of, finding_of
from swapstore.protocol.load import ask, ask_all, find, is_page_named, load_manifest, value_of
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swapstore.format.keys import Name
    from swapstore.format.manifest import Manifest
    from swapstore.format.records import Origin
    from swapstore.models import Entry
    from swapstore.protocol.context import Context


def still_unknown(ctx: Context, survey: Survey, suspects: list[Name]) -> Operation[list[Name]]:
    """Leave out what was committed, or let go of, since the survey."""
    if survey.over is None:
        current = yield from load_manifest(ctx, survey.dataset)
        before = survey.manifest
        if (before and before.epoch) != (current and current.epoch):
            raise Contended(
                "the dataset was reset, repaired or first published while it was looked at; look again",
                dataset=survey.dataset,
            )
        if current:
            survey.version = current.version
        if before and current and current.version > before.version:
            yield from _catch_up(ctx, survey, current, before.version, suspects)
    unknown = [name for name in suspects if name.key not in survey.known]
    ttls = yield from ask_all(ctx, [Ttl(name.key) for name in unknown])
    return [name for name, ttl in zip(unknown, ttls, strict=True) if value_of(ttl) == PERMANENT]


def _catch_up(
    ctx: Context, survey: Survey, current: Manifest, version: int, suspects: Iterable[Name]
) -> Operation[None]:
    """Learn what later versions name."""
    dataset = survey.dataset
    for row in (*(yield from find(ctx, dataset, search.since(current, version))), *current.head.kept):
        for key in ctx.keys.records(dataset, row):
            survey.known.add(key)
    for name in suspects:
        if name.kind != "page":
            continue
        if (yield from is_page_named(ctx, current, name.key, name.first_version)):
            survey.known.add(name.key)


def judge(ctx: Context, survey: Survey, name: Name) -> Operation[list[Finding]]:
    """Say what a permanent id or ts record is that nobody names, and note it for a repair."""
    if name.key in survey.known:
        return []  # its other half was judged
    (reply,) = yield from ask_all(ctx, [Get(name.key)])
    if reply is None:
        return []  # it was let go of, or the store was emptied, since
    entry, origin = _entry_of(name, bytes_of(reply))
    if entry is None:
        return leaked(survey, [name.key])
    id_key, ts_key = ctx.keys.records(survey.dataset, entry)
    both: list[Command[Any]] = [Get(id_key), Ttl(id_key), Get(ts_key), Ttl(ts_key)]
    stored, ttl, stored_ts, ts_ttl = yield from ask_all(ctx, both)
    if value_of(ttl if name.kind == "id" else ts_ttl) != PERMANENT:
        return []
    record, ts_record = bytes_of(stored), bytes_of(stored_ts)
    header = records.entry_header(entry)
    has_ts = ts_record.startswith(header)
    if has_ts and origin is None:
        _, origin = records.read_ts(ts_record, ts_key)
    permanent = [
        key
        for key, left, ours in ((id_key, ttl, record), (ts_key, ts_ttl, ts_record))
        if value_of(left) == PERMANENT and ours.startswith(header)
    ]
    if origin is not None and origin.pending:
        return leaked(survey, permanent or [name.key])
    is_open = _is_open(survey, origin, has_ts=has_ts)
    if not records.is_whole(record, entry) or not (is_open or _is_committed(survey, origin)):
        return leaked(survey, permanent or [name.key])
    expiring = []
    for key, left, ours in ((id_key, ttl, record), (ts_key, ts_ttl, ts_record)):
        survey.known.add(key)
        if value_of(left) not in {PERMANENT, ABSENT} and ours.startswith(header):
            expiring.append(key)
    found = [] if survey.damage.candidates else _no_manifest(ctx, survey)
    is_altered = not has_ts and value_of(ts_ttl) == PERMANENT
    if is_altered:  # once it has a TTL it can be written again: in the next swap
        found += leaked(survey, [ts_key])
    candidate = Candidate(entry=entry, origin=origin, has_ts=has_ts or is_altered)
    one = Later(candidate, tuple(permanent), tuple(expiring))
    if is_open:
        survey.damage.later.append(one)
        return found
    return [*found, *_lost(survey, one, id_key)]


def _lost(survey: Survey, one: Later, id_key: str) -> list[Finding]:
    """Note a committed snapshot that a repair names again."""
    entry = one.candidate.entry
    survey.damage.candidates.append(one.candidate)
    for key in one.expiring:
        survey.damage.expiring[key] = Expiring(records.entry_header(entry), 0)
    return [attrs.evolve(finding_of(survey.dataset, Problem.LOST, id_key), id=entry.id)]


def _no_manifest(ctx: Context, survey: Survey) -> list[Finding]:
    if survey.manifest is not None or survey.over is not None:
        return []
    return [finding_of(survey.dataset, Problem.MANIFEST_MISSING, ctx.keys.manifest(survey.dataset))]


def _entry_of(name: Name, record: bytes) -> tuple[Entry | None, Origin | None]:
    """Read the entry of an id or ts record, if it is the one that the key names."""
    try:
        entry = records.entry_of(record, name.key)
        origin = records.read_ts(record, name.key)[1] if name.kind == "ts" else None
    except Corrupt:
        return None, None
    named = (entry.ts, entry.id) == name.ts_and_id if name.kind == "ts" else entry.id == name.rest
    return (entry, origin) if named else (None, None)


def _is_committed(survey: Survey, origin: Origin | None) -> bool:
    """Say whether a whole, permanent record was committed; false only if that is disproved."""
    if survey.manifest is None or origin is None or origin.epoch != survey.manifest.epoch:
        return True
    return any(hole.last_version >= origin.version for hole in survey.damage.holes)


def _is_open(survey: Survey, origin: Origin | None, *, has_ts: bool) -> bool:
    """Say whether the other keys have to tell what a record is.

    That is so when it was staged for a later version than there is, for the manifest may have gone back; and
    without a ts record to say what it was staged for, unless rows are missing.
    """
    if survey.manifest is None:
        return False
    if origin is None:
        return not has_ts and not survey.damage.holes
    return origin.epoch == survey.manifest.epoch and origin.version > survey.version


def decide(survey: Survey) -> list[Finding]:
    """Say, once all keys were seen, what the records of later versions are, and those without an origin.

    A commit that was cut before its swap leaves records of the very next version, and of no other. Records
    beyond that were committed, and those before them too: somebody put an older manifest back. What has no
    origin was committed if the manifest has gone back, or stands where one of another epoch was lost.
    """
    epoch = survey.manifest.epoch if survey.manifest else ""
    others = any(c.origin and c.origin.epoch != epoch for c in survey.damage.candidates)
    later, survey.damage.later = survey.damage.later, []
    versions = [one.candidate.origin.version for one in later if one.candidate.origin]
    went_back = max(versions, default=0) > survey.version + 1
    found: list[Finding] = []
    for one in later:
        if went_back or (others and one.candidate.origin is None):
            found += _lost(survey, one, one.keys[0])
        else:
            found += leaked(survey, list(one.keys))
    return found


def leaked(survey: Survey, keys: list[str]) -> list[Finding]:
    """Note keys that a repair gives a TTL."""
    for key in keys:
        survey.known.add(key)
        survey.damage.leaked.append(key)
    return [finding_of(survey.dataset, Problem.LEAKED, key) for key in keys]


# --- sweep -------------------------------------------------------------------------------------
#
# A sweep: every key of a dataset, or of all, that no survey has seen; on its way out, or forgotten.
#
# What has a TTL goes away by itself. What has none was committed: perhaps since the survey, perhaps under a
# manifest that is lost. Only what is proved to belong to no commit is called leaked.


SCAN_KEYS = 500


class Sweep:
    """Goes through the keys, in steps."""

    def __init__(self, ctx: Context, surveys: dict[str, Survey], dataset: str | None) -> None:
        self._ctx = ctx
        self._surveys = surveys
        self._pattern = ctx.keys.all(dataset)
        self._only = dataset
        self._cursor: str | None = ""
        self.keys = 0

    @property
    def pending(self) -> bool:
        """Whether there are more steps."""
        return self._cursor is not None

    def step(self) -> Operation[list[Finding]]:
        """Look at some more keys."""
        scanned = yield from ask(self._ctx, Scan(self._pattern, self._cursor or "", SCAN_KEYS))
        self._cursor = scanned.cursor
        self.keys += len(scanned.keys)
        found: list[Finding] = []
        names: list[Name] = []
        for key in dict.fromkeys(scanned.keys):
            name = self._ctx.keys.parse(key)
            if name is None:
                found += self._foreign(key)
            elif name.kind != "manifest" and self._only in {None, name.dataset}:
                names.append(name)
        ttls = yield from ask_all(self._ctx, [Ttl(name.key) for name in names])
        suspects: dict[str, list[Name]] = {}
        for name, reply in zip(names, ttls, strict=True):
            survey = yield from self._survey(name.dataset, found)
            ttl = value_of(reply)
            passing = name.kind in {"live", "lease"} and ttl != PERMANENT
            if name.key in survey.known or ttl == ABSENT or passing:
                continue
            if ttl == PERMANENT:
                suspects.setdefault(name.dataset, []).append(name)
            else:
                found.append(self._orphan(name, ttl))
        for dataset, suspected in suspects.items():
            found += yield from self._resolve(self._surveys[dataset], suspected)
        if not self.pending:
            for survey in self._surveys.values():
                found += decide(survey)
        return found

    def _survey(self, dataset: str, found: list[Finding]) -> Operation[Survey]:
        """Return the dataset's survey; make it when its keys are the first that is seen of it."""
        survey = self._surveys.get(dataset)
        if survey is None:
            survey = self._surveys[dataset] = Survey(self._ctx, dataset)
            found += yield from survey.begin()
            while survey.pending:
                found += yield from survey.step()
        return survey

    def _orphan(self, name: Name, ttl: int) -> Finding:
        began = self._ctx.policy.staging_ttl_ms
        finding = finding_of(name.dataset, Problem.ORPHAN, name.key, expires_in_ms=ttl)
        is_record = name.kind != "live" and ttl <= began
        return attrs.evolve(finding, age_ms=began - ttl if is_record else None)

    def _foreign(self, key: str) -> list[Finding]:
        if key == self._ctx.keys.datasets():
            return []
        return [finding_of(self._only or "", Problem.FOREIGN, key)]

    def _resolve(self, survey: Survey, suspects: list[Name]) -> Operation[list[Finding]]:
        found: list[Finding] = []
        for name in (yield from still_unknown(self._ctx, survey, suspects)):
            if name.kind in {"id", "ts"}:
                found += yield from judge(self._ctx, survey, name)
            else:
                found += leaked(survey, [name.key])
        return found
