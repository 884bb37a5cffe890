"""Findings: the problems that verify finds, what each one means, and what a repair does about it."""

from __future__ import annotations

import enum

import attrs


class Problem(enum.Enum):
    """What verify found about a key. `wrong` is false for what needs no repair."""

    MANIFEST_MISSING = "manifest-missing"
    MANIFEST_DAMAGED = "manifest-damaged"
    MANIFEST_EXPIRING = "manifest-expiring"
    COUNT_WRONG = "count-wrong"
    LATEST_WRONG = "latest-wrong"
    ROW_DAMAGED = "row-damaged"
    PAGE_MISSING = "page-missing"
    PAGE_DAMAGED = "page-damaged"
    PAGE_EXPIRING = "page-expiring"
    RECORD_MISSING = "record-missing"
    RECORD_DAMAGED = "record-damaged"
    RECORD_BASELESS = "record-baseless"
    RECORD_EXPIRING = "record-expiring"
    TS_MISSING = "ts-missing"
    TS_DAMAGED = "ts-damaged"
    TS_EXPIRING = "ts-expiring"
    BASE_MISSING = "base-missing"
    BASE_DAMAGED = "base-damaged"
    BASE_EXPIRING = "base-expiring"
    IN_FORCE_WRONG = "in-force-wrong"
    LOST = "lost"
    LEAKED = "leaked"
    NAME_MISSING = "name-missing"
    ORPHAN = "orphan"
    FOREIGN = "foreign"

    @property
    def wrong(self) -> bool:
        """Whether it has to be repaired."""
        return self not in {Problem.ORPHAN, Problem.FOREIGN}

    @property
    def meaning(self) -> str:
        """What it means for readers and producers."""
        return _WORDS[self][0]

    @property
    def remedy(self) -> str:
        """What repair does about it."""
        return _WORDS[self][1]


_PERSISTS = "makes it permanent again"

_WORDS = {
    Problem.MANIFEST_MISSING: (
        "records are committed, but there is no manifest: readers see nothing published",
        "rebuilds the manifest from the committed records, in a new epoch",
    ),
    Problem.MANIFEST_DAMAGED: (
        "the stored value is not a manifest of this dataset: nobody can read or publish",
        "replaces it with one rebuilt from the committed records, in a new epoch",
    ),
    Problem.MANIFEST_EXPIRING: ("the manifest has a TTL: the dataset will vanish", _PERSISTS),
    Problem.COUNT_WRONG: ("the manifest's count is not the number of its rows", "counts the rows again"),
    Problem.LATEST_WRONG: (
        "the manifest serves a snapshot that is not in its own log, or that the log describes otherwise",
        "serves what the log says of that snapshot, or else the newest snapshot of the log",
    ),
    Problem.ROW_DAMAGED: (
        "a row of the log was altered: the snapshot is whole, and the row states something else",
        "corrects the row after the snapshot's own records",
    ),
    Problem.PAGE_MISSING: (
        "a page of the log is gone: that part of the history cannot be read",
        "rebuilds it from the committed records, in a new epoch",
    ),
    Problem.PAGE_DAMAGED: (
        "a page of the log was altered: that part of the history cannot be read",
        "rebuilds it from the committed records, in a new epoch",
    ),
    Problem.PAGE_EXPIRING: ("a page of the log has a TTL: that part of the history will vanish", _PERSISTS),
    Problem.RECORD_MISSING: (
        "the payload of a committed snapshot is gone: reading it fails",
        "drops its row: the payload cannot be brought back",
    ),
    Problem.RECORD_DAMAGED: (
        "the payload of a committed snapshot was altered: reading it fails",
        "drops its row, and gives the altered record a TTL: the payload cannot be brought back",
    ),
    Problem.RECORD_BASELESS: (
        "a committed snapshot is stored as a difference from a base that is lost: reading it fails",
        "drops its row: the payload cannot be brought back",
    ),
    Problem.RECORD_EXPIRING: ("the payload of a committed snapshot has a TTL: it will vanish", _PERSISTS),
    Problem.TS_MISSING: (
        "the ts record of a committed snapshot is gone: a lost manifest could not be rebuilt from it",
        "writes it again",
    ),
    Problem.TS_DAMAGED: (
        "the ts record of a committed snapshot was altered: a lost manifest could not be rebuilt from it",
        "writes it again",
    ),
    Problem.TS_EXPIRING: ("the ts record of a committed snapshot has a TTL: it will vanish", _PERSISTS),
    Problem.BASE_MISSING: (
        "a base is gone: the snapshots that are stored as differences from it cannot be read",
        "drops these snapshots, and no others",
    ),
    Problem.BASE_DAMAGED: (
        "a base was altered: the snapshots that are stored as differences from it cannot be read",
        "drops these snapshots, and no others; gives the base a TTL",
    ),
    Problem.BASE_EXPIRING: (
        "a base has a TTL: the snapshots that are stored as differences from it will become unreadable",
        _PERSISTS,
    ),
    Problem.IN_FORCE_WRONG: (
        "the base in force cannot be read, or the manifest's numbers about it cannot be",
        "takes it out of force: the next publish with compression brings a new one",
    ),
    Problem.LOST: (
        "a committed snapshot that no manifest names: it is whole, and cannot be read",
        "puts it back into the log",
    ),
    Problem.LEAKED: (
        "a permanent key that was never committed, or was unlinked: nobody reads it, and it never expires",
        "gives it a TTL of a day",
    ),
    Problem.NAME_MISSING: (
        "the dataset is not on the list of names: `datasets` does not show it",
        "adds it to the list",
    ),
    Problem.ORPHAN: (
        "left by a publish that did not commit, or unlinked and kept for slow readers: it expires by itself",
        "nothing",
    ),
    Problem.FOREIGN: (
        "a key in swapstore's namespace that swapstore did not write: it is never read",
        "nothing",
    ),
}


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that verify found.

    `version` and `id` name the snapshot, if the key belongs to one. `detail` says what was seen; it may be
    empty. `expires_in_ms` is the TTL of a key that has one. `age_ms` is the time since such a key was staged
    or unlinked, if that is known.
    """

    problem: Problem
    dataset: str
    key: str
    version: int | None = None
    id: str | None = None
    detail: str = ""
    expires_in_ms: int | None = None
    age_ms: int | None = None

    @property
    def wrong(self) -> bool:
        """Whether it has to be repaired."""
        return self.problem.wrong


@attrs.frozen(kw_only=True)
class Progress:
    """How far verify has come.

    `dataset` is the one that is being compared, empty while all keys are scanned. `rows` of `total` rows of
    the datasets begun so far are compared; `keys` are scanned after that.
    """

    dataset: str
    rows: int
    total: int
    keys: int


@attrs.frozen(kw_only=True)
class Repair:
    """What a repair did to one dataset, or would do (`applied` is False).

    `findings` is everything that was wrong. `dropped` are the ids of snapshots whose payload is gone,
    `restored` those of snapshots that are in the log again. `left` is what could not be repaired. `version`
    is that of the manifest after the repair; None: there is no readable manifest. `pin_unknown`: the manifest
    is rebuilt from records, which do not tell of a pin or a rollback; if there was one, it is gone.
    """

    dataset: str
    applied: bool
    findings: tuple[Finding, ...]
    dropped: tuple[str, ...]
    restored: tuple[str, ...]
    left: tuple[Finding, ...]
    version: int | None
    pin_unknown: bool = False
