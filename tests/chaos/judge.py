"""What clients saw of a dataset, held against what the store has in the end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from swapstore import Gap, Row

Commit = tuple[int, str, int]  # version, id, and when it was committed
NOTHING: Commit = (0, "", 0)


@attrs.frozen
class Read:
    """What a reader got from a call that began at a moment."""

    commit: Commit
    began: float = 0.0


@attrs.define
class Seen:
    """What clients saw of a dataset.

    `acknowledged`: versions by ids; `since`: when that was. `reads`: of each reader, what it read, in order.
    `followed`: of each follower, what it returned. `torn`: snapshots whose payload is not that of their row.
    """

    acknowledged: dict[str, int] = attrs.field(factory=dict)
    since: dict[str, float] = attrs.field(factory=dict)
    reads: list[list[Read]] = attrs.field(factory=list)
    followed: list[list[Row | Gap]] = attrs.field(factory=list)
    torn: list[str] = attrs.field(factory=list)


@attrs.frozen
class Verdict:
    """What is wrong, in words that name the ids, and the figures of the table."""

    acknowledged: int = 0
    surviving: int = 0
    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    torn: tuple[str, ...] = ()
    backwards: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(
            **{
                field.name: getattr(self, field.name) + getattr(other, field.name)
                for field in attrs.fields(Verdict)
            }
        )

    def wrong(self, *, is_durable: bool) -> dict[str, tuple[str, ...]]:
        """What may not be. Without a durability, commits may be lost."""
        may_not = ("doubled", "torn", "backwards", "skipped", "damaged", *(("lost",) if is_durable else ()))
        return {name: getattr(self, name) for name in may_not if getattr(self, name)}


def fits(value: Any, id_: str) -> bool:
    """Say whether a payload is the one that a producer published under an id."""
    return isinstance(value, dict) and value["id"] == id_ and value["size"] == len(value["body"])


def judge(seen: Seen, rows: Sequence[Row], damaged: Iterable[str] = ()) -> Verdict:
    """Compare what was seen with the rows in the end, oldest first."""
    stored = {row.id: row.version for row in rows}
    ids = Counter(row.id for row in rows)
    doubled = [f"{id_} stands {count} times in the history" for id_, count in ids.items() if count > 1]
    versions = [row.version for row in rows]
    damage = [*damaged]
    if versions != sorted(set(versions)):
        damage.append(f"the versions of the history are not in order: {versions}")
    lost = []
    for id_, version in seen.acknowledged.items():
        if id_ not in stored:
            lost.append(f"{id_}, version {version}")
        elif stored[id_] != version:
            doubled.append(f"{id_} was acknowledged as version {version}, and is another one")
    commits = {(row.version, row.id, row.committed_at) for row in rows}
    backwards = [each for reads in seen.reads for each in _went_back(reads, commits, seen.since)]
    skipped = []
    for number, followed in enumerate(seen.followed):
        wrong, twice = _misled(followed)
        backwards += wrong
        doubled += twice
        given = {item.id for item in followed if isinstance(item, Row)}
        skipped += [f"follower {number} did not get {id_}" for id_ in ids if id_ not in given]
    return Verdict(
        acknowledged=len(seen.acknowledged),
        surviving=len(seen.acknowledged) - len(lost),
        lost=tuple(lost),
        doubled=tuple(doubled),
        torn=tuple(seen.torn),
        backwards=tuple(backwards),
        skipped=tuple(skipped),
        damaged=tuple(damage),
    )


def _went_back(reads: Sequence[Read], commits: set[Commit], since: dict[str, float]) -> list[str]:
    """What a reader read after something newer that was acknowledged by then and that the store still has.

    If the store itself went back, the newer commit is not in its history. Or a failover undid it before it
    was acknowledged, and its producer carried it out again.
    """
    found = []
    newest, waiting = NOTHING, list[Commit]()
    for read in reads:
        known = [commit for commit in waiting if since.get(commit[1], math.inf) < read.began]
        newest = max(newest, *known, NOTHING)
        waiting = [commit for commit in waiting if commit not in known]
        if read.commit[0] < newest[0]:
            found.append(f"a reader got version {read.commit[0]} after {newest[0]} ({newest[1]})")
        elif read.commit in commits:
            waiting.append(read.commit)
    return found


def _misled(followed: Sequence[Row | Gap]) -> tuple[list[str], list[str]]:
    """What a follower returned that was not newer, and what it returned twice, without a gap in between."""
    backwards, twice = [], []
    given, last = set[str](), 0
    for item in followed:
        if isinstance(item, Gap):
            given, last = set(), 0
            continue
        if item.version <= last:
            backwards.append(f"a follower got version {item.version} after {last}, and no gap")
        if item.id in given:
            twice.append(f"a follower got {item.id} twice, and no gap in between")
        given.add(item.id)
        last = item.version
    return backwards, twice
