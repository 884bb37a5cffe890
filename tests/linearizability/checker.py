"""Checks whether a recorded history is linearizable: pure code, from events and final rows to violations.

In general the question is hard; here it is easy, because the store numbers its writes. A publish writes
version v and a read sees version v, so every call has a rank: (v, 0) for the publish, (v, 1) for reads of
it. A history is linearizable if and only if no call that ended before another began has a higher rank: a
cycle of "ended before" and "has a lower rank" would need such a pair. That one rule (`_real_time`) finds
stale reads, reads from the future, publishes out of order and clients that overtake each other.

The other rules ensure that the numbers have a meaning: the final rows are dense, hold every acknowledged
publish under its version, and nothing that was never written; one version has one etag; what was read is
what was published. They assume that the dataset sees publishes only (no pins, no confirmations),
with the default `ts`, so that the newest version is always the one served.

A publish with an unknown outcome is judged by the final rows: it happened at any time after it
began, or not at all. Several publishes of one id count as one, committed between the first start and the
first acknowledgement (or within the call that got `created`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import attrs

from tests.linearizability.events import Event, Rows


@attrs.frozen
class Claim:
    """A call that took effect at one moment between its start and its end."""

    start: float
    end: float
    rank: tuple[int, int]
    event: Event

    @property
    def is_read(self) -> bool:
        return self.rank[1] == 1


def violations(events: Iterable[Event], rows: Rows) -> list[str]:
    """Return what is wrong with a history; an empty list: it is linearizable."""
    ordered = sorted(events, key=lambda event: event.start)
    publishes: dict[str, list[Event]] = defaultdict(list)
    for event in ordered:
        if event.kind == "publish" and event.id is not None:
            publishes[event.id].append(event)
    reads = [event for event in ordered if event.kind == "read" and event.outcome == "ok"]
    return [
        *_dense(rows),
        *_explained(publishes, rows),
        *_acknowledged(publishes, rows),
        *_created_once(publishes),
        *_values(reads, publishes, rows),
        *_etags(ordered),
        *_real_time([*_writes(publishes, rows), *_observations(ordered)]),
        *_within_clients(ordered),
    ]


def _acks(attempts: Sequence[Event]) -> list[Event]:
    return [attempt for attempt in attempts if attempt.outcome == "ok"]


# --- the final rows ---------------------------------------------------------------------------------


def _dense(rows: Rows) -> Iterator[str]:
    versions = [version for version, _ in rows]
    if versions != list(range(1, len(rows) + 1)):
        yield f"version gap: the history holds the versions {versions}"
    ids = [identifier for _, identifier in rows]
    if len(set(ids)) != len(ids):
        yield f"committed twice: {sorted({each for each in ids if ids.count(each) > 1})}"


def _explained(publishes: dict[str, list[Event]], rows: Rows) -> Iterator[str]:
    for version, identifier in rows:
        attempts = publishes.get(identifier, [])
        if not attempts:
            yield f"unexplained: version {version} holds {identifier}, which nobody published"
        elif all(attempt.outcome == "failed" for attempt in attempts):
            yield f"failed yet committed: version {version} holds {identifier}: {attempts[-1]}"


def _acknowledged(publishes: dict[str, list[Event]], rows: Rows) -> Iterator[str]:
    told: dict[int, str] = {}
    for identifier, attempts in publishes.items():
        for ack in _acks(attempts):
            if (ack.version, identifier) not in rows:
                yield f"acknowledged and lost: {ack}"
            if told.setdefault(ack.version, identifier) != identifier:
                yield f"duplicate version: {told[ack.version]} was told the same as {ack}"


def _created_once(publishes: dict[str, list[Event]]) -> Iterator[str]:
    for identifier, attempts in publishes.items():
        acks = _acks(attempts)
        if sum(ack.created for ack in acks) > 1:
            yield f"created twice: {identifier}"
        for ack in acks:
            if not ack.created and not any(
                attempt.start < ack.start and (attempt.outcome == "unknown" or attempt.created)
                for attempt in attempts
            ):
                yield f"told that it was there before, by nobody: {ack}"


# --- what was read ---------------------------------------------------------------------------------------


def _values(reads: Iterable[Event], publishes: dict[str, list[Event]], rows: Rows) -> Iterator[str]:
    committed = set(rows)
    for read in reads:
        if read.version != read.seen:
            yield f"served another version than the newest: {read}"
        if read.id is None:
            continue
        if (read.version, read.id) not in committed:
            yield f"read what was never committed: {read}"
        attempts = publishes.get(read.id, [])
        if not attempts or attempts[0].value != read.value:
            yield f"read a value that no publish wrote: {read}: {read.value!r}"


def _etags(events: Iterable[Event]) -> Iterator[str]:
    etags: dict[int, str] = {}
    epochs: set[str] = set()
    for event in events:
        if event.etag:
            epochs.add(event.etag.split(".")[0])
            if etags.setdefault(event.seen, event.etag) != event.etag:
                yield f"two manifests of one version: {etags[event.seen]} and {event}"
        if event.created and event.seen != event.version:
            yield f"created a version under the etag of another: {event}"
    if len(epochs) > 1:
        yield f"more than one epoch: {sorted(epochs)}"


# --- time ------------------------------------------------------------------------------------------------


def _writes(publishes: dict[str, list[Event]], rows: Rows) -> Iterator[Claim]:
    """One claim for each committed id, as narrow as the replies about it allow."""
    committed = {identifier: version for version, identifier in rows}
    for identifier, attempts in publishes.items():
        acks = _acks(attempts)
        if acks:
            first = min(acks, key=lambda ack: ack.end)
            start = next((ack.start for ack in acks if ack.created), attempts[0].start)
            yield Claim(start, first.end, (first.version, 0), first)
        elif identifier in committed:
            yield Claim(attempts[0].start, math.inf, (committed[identifier], 0), attempts[0])


def _observations(events: Iterable[Event]) -> Iterator[Claim]:
    """What the store showed: to reads, and to publishes that were committed already."""
    for event in events:
        if event.outcome == "ok" and (event.kind == "read" or not event.created):
            yield Claim(event.start, event.end, (event.seen, 1), event)


def _real_time(claims: Sequence[Claim]) -> Iterator[str]:
    """Go through the starts, with the newest publish and the newest read that ended before each."""
    ended = iter(sorted(claims, key=lambda claim: claim.end))
    upcoming = next(ended, None)
    newest: dict[bool, Claim] = {}
    for claim in sorted(claims, key=lambda claim: claim.start):
        while upcoming is not None and upcoming.end < claim.start:
            before = newest.setdefault(upcoming.is_read, upcoming)
            newest[upcoming.is_read] = max(before, upcoming, key=lambda each: each.rank)
            upcoming = next(ended, None)
        for before in newest.values():
            if before.rank > claim.rank:
                yield f"{_name(before, claim)}: {before.event} came before {claim.event}"


def _name(before: Claim, after: Claim) -> str:
    match before.is_read, after.is_read:
        case False, False:
            return "publishes out of order"
        case False, True:
            return "stale read"
        case True, False:
            return "read from the future"
        case _:
            return "reads out of order"


def _within_clients(events: Iterable[Event]) -> Iterator[str]:
    last: dict[str, Event] = {}
    for event in events:
        if event.outcome == "ok":
            before = last.get(event.client)
            if before is not None and event.seen < before.seen:
                yield f"back in time within a client: {event} after {before}"
            last[event.client] = event
