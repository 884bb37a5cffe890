"""What verify finds and what repair does about it. Values, with the words a person reads."""

from __future__ import annotations

import enum

import attrs


class Problem(enum.Enum):
    """What is the matter with a key; `wrong` unless it goes away by itself."""

    MANIFEST_MISSING = "manifest-missing"
    MANIFEST_DAMAGED = "manifest-damaged"
    MANIFEST_EXPIRING = "manifest-expiring"
    COUNT_WRONG = "count-wrong"
    LATEST_WRONG = "latest-wrong"
    PAGE_MISSING = "page-missing"
    PAGE_DAMAGED = "page-damaged"
    PAGE_EXPIRING = "page-expiring"
    RECORD_MISSING = "record-missing"
    RECORD_DAMAGED = "record-damaged"
    RECORD_EXPIRING = "record-expiring"
    TS_MISSING = "ts-missing"
    TS_DAMAGED = "ts-damaged"
    TS_EXPIRING = "ts-expiring"
    LOST = "lost"
    LEAKED = "leaked"
    NAME_MISSING = "name-missing"
    ORPHAN = "orphan"
    FOREIGN = "foreign"

    @property
    def wrong(self) -> bool:
        """Whether something has to be done about it."""
        return self not in {Problem.ORPHAN, Problem.FOREIGN}

    @property
    def meaning(self) -> str:
        """What it means for those who read and publish."""
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
        "what is stored is no manifest of this dataset: nobody can read or publish",
        "replaces it with one rebuilt from the committed records, in a new epoch",
    ),
    Problem.MANIFEST_EXPIRING: ("the manifest has a TTL: the dataset will vanish", _PERSISTS),
    Problem.COUNT_WRONG: ("the manifest counts other than its rows", "counts again"),
    Problem.LATEST_WRONG: (
        "what the manifest serves is not in its own log",
        "serves the newest snapshot of the log",
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
        "drops its row, and lets the altered record expire: the payload cannot be brought back",
    ),
    Problem.RECORD_EXPIRING: ("the payload of a committed snapshot has a TTL: it will vanish", _PERSISTS),
    Problem.TS_MISSING: (
        "the ts record of a committed snapshot is gone: it could not be rebuilt from",
        "writes it again",
    ),
    Problem.TS_DAMAGED: (
        "the ts record of a committed snapshot was altered: it could not be rebuilt from",
        "writes it again",
    ),
    Problem.TS_EXPIRING: ("the ts record of a committed snapshot has a TTL: it will vanish", _PERSISTS),
    Problem.LOST: (
        "a committed snapshot that no manifest names: it is whole, and cannot be read",
        "names it again",
    ),
    Problem.LEAKED: (
        "a permanent key that was never committed, or was let go of: nobody reads it, and it stays for ever",
        "gives it a TTL of a day",
    ),
    Problem.NAME_MISSING: ("the dataset is not on the list of names: it is not listed", "lists it"),
    Problem.ORPHAN: (
        "left by a publish that did not commit, or let go of and kept for slow readers: it expires by itself",
        "nothing",
    ),
    Problem.FOREIGN: ("a key among swapstore's that swapstore did not write: it is never read", "nothing"),
}


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that verify found.

    `version` and `id` name the snapshot it is about, where there is one. `detail` says what was seen.
    `expires_in_ms` and `age_ms` are known for what expires; the age is that of a staged record, or the time
    since one was let go of.
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
        """Whether something has to be done about it."""
        return self.problem.wrong


@attrs.frozen(kw_only=True)
class Progress:
    """How far verify has come: the dataset it is at, rows compared, rows there are, keys looked at."""

    dataset: str
    rows: int
    total: int
    keys: int


@attrs.frozen(kw_only=True)
class Repair:
    """What repair did, or (`applied` is False) would do, to one dataset.

    `findings` is what was wrong; `dropped` are the ids of snapshots whose payload is gone, `restored` those
    that are named again; `left` is what could not be mended. `version` is the manifest's after it (None:
    there is none).
    """

    dataset: str
    applied: bool
    findings: tuple[Finding, ...]
    dropped: tuple[str, ...]
    restored: tuple[str, ...]
    left: tuple[Finding, ...]
    version: int | None
