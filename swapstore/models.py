"""The nouns: what is stored, and what callers get back. Values, without behaviour beyond themselves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal

import attrs

from swapstore import arguments, codecs
from swapstore.errors import SomeFailed, SwapstoreError

Encoding = Literal["base64"]


@attrs.frozen(kw_only=True)
class Entry:
    """The description of a snapshot.

    `ts` is milliseconds since the Unix epoch (UTC), `size` the payload's length in bytes, `sha256` its
    digest in hexadecimal. `encoding` is `base64` where the id record holds the payload so, because it went
    through an endpoint that carries text alone; None: it holds the payload as it is.
    """

    id: str
    ts: int
    size: int
    sha256: str
    codec: str
    encoding: Encoding | None = None
    labels: dict[str, str]


@attrs.frozen(kw_only=True)
class Row(Entry):
    """An entry with the manifest version that committed it.

    `committed_at` is when, in ms since the Unix epoch, by the producer's clock.
    """

    version: int
    committed_at: int
    dedupe_key: str | None = None


@attrs.frozen(kw_only=True)
class Ref:
    """A reference to a page: where it is, and what versions and times it spans."""

    key: str
    count: int
    first_version: int
    last_version: int
    min_ts: int
    max_ts: int

    def spans(self, version: int) -> bool:
        """Say whether a row of this version would be below it."""
        return self.first_version <= version <= self.last_version


@attrs.frozen(kw_only=True, slots=False)
class _Payload:
    """Payload bytes, decoded the first time `value` is asked for."""

    size: int
    sha256: str
    codec: str
    raw: bytes = attrs.field(repr=False)

    @cached_property
    def value(self) -> Any:
        """The payload, decoded by its codec on first use.

        Raises `Corrupt` if the bytes are not what the codec writes.
        """
        return codecs.decode(self.raw, self.codec)


@attrs.frozen(kw_only=True, slots=False)
class Snapshot(_Payload):
    """One published value of a dataset, whole.

    `version` is the manifest version that committed it; `etag` identifies the manifest it was read
    through; `ts` and `committed_at` are milliseconds since the Unix epoch.
    """

    dataset: str
    id: str
    ts: int
    version: int
    etag: str
    committed_at: int
    labels: dict[str, str]


@attrs.frozen(kw_only=True, slots=False)
class Candidate(_Payload):
    """What is about to be published, as `validate` sees it."""

    dataset: str
    id: str
    ts: int
    labels: dict[str, str]


@attrs.frozen(kw_only=True, slots=False)
class LiveView(_Payload):
    """A value computed on one committed version, and shown only while that version is current."""

    dataset: str
    etag: str


Validator = Callable[[Candidate, Snapshot | None], str | None]
"""Accepts a candidate by returning None; refuses it by returning a reason, or by raising."""


@attrs.frozen(kw_only=True)
class Commit:
    """The outcome of a publish.

    `created` is False when the snapshot was committed before (the same id or dedupe key): the fields
    then describe that earlier commit, and `etag` the manifest as it is now. `is_latest` says whether the
    dataset's `latest` is this snapshot.
    """

    dataset: str
    version: int
    etag: str
    id: str
    ts: int
    sha256: str
    size: int
    created: bool
    is_latest: bool


class Outcomes(dict[str, "Commit | SwapstoreError"]):
    """What became of each dataset of a `publish_many`, in the order they were given."""

    @property
    def failures(self) -> dict[str, SwapstoreError]:
        """Those that were not published, and why."""
        return {name: outcome for name, outcome in self.items() if isinstance(outcome, SwapstoreError)}

    def raise_for_failures(self) -> None:
        """Raise the failure, if there is one; `SomeFailed`, which holds each, if there are several."""
        failures = self.failures
        if len(failures) == 1:
            raise next(iter(failures.values()))
        if failures:
            raise SomeFailed(failures, of=len(self))


@attrs.frozen(kw_only=True)
class Retention:
    """How much history to keep; None is no bound.

    `max_age` (a timedelta) is compared with each snapshot's `ts`, by the clock of whoever publishes or
    prunes. `max_count` is a number of commits, the newest; 1 or more. What is past a bound is hidden at
    once and let go of soon. The latest and the pinned snapshot stay, whatever their age.
    """

    max_age: timedelta | None = None
    max_count: int | None = None

    def __attrs_post_init__(self) -> None:
        arguments.retention(self.max_age, self.max_count)

    @property
    def is_unbounded(self) -> bool:
        """Whether it keeps everything."""
        return self.max_age is None and self.max_count is None

    @property
    def max_age_ms(self) -> int | None:
        """The greatest age in milliseconds."""
        return None if self.max_age is None else self.max_age // timedelta(milliseconds=1)


@attrs.frozen(kw_only=True)
class Pruned:
    """What `prune` did, and how the dataset is now.

    `let_go` is the number of snapshots that this call took out of the log; their records expire after the
    reader grace (10 minutes). `count` is what the log still holds: snapshots in the history, and the last
    32 commits whether hidden or not. Snapshots below `first_version`, or with a `ts` below `floor` (ms
    since the Unix epoch), are hidden.
    """

    dataset: str
    version: int
    etag: str
    let_go: int
    count: int
    first_version: int
    floor: int


@attrs.frozen(kw_only=True)
class Gap:
    """Commits that a follower cannot be given. It comes in their place, before the next one.

    `after` is the version up to which all was given, `resumes_at` that of the commit that comes next.
    `reason` is `retention` (commits between the two were let go of, or may have been) or `reset`: the
    dataset was flushed, restored or failed over, and what was given last is not in its history any more.
    """

    dataset: str
    after: int
    resumes_at: int
    reason: Literal["retention", "reset"]


@attrs.frozen(kw_only=True)
class Status:
    """A dataset at a glance, from one small read.

    `version` counts every swap (pins and confirmations included). `count` is the number of snapshots in the
    log, those included that retention hides and has not let go of yet. `committed_at` is when the manifest
    was last swapped, `confirmed_at` when a producer last published or confirmed (ms since the epoch).
    `serving` is what `read_latest` returns.

    `read_at` is when it was read, by this client's clock. The ages are as of then, and compare it with times
    of a producer's clock: where the two differ, the ages are wrong by as much, and may be negative. Two
    statuses are equal when they say the same of the dataset, whenever they were read.
    """

    dataset: str
    version: int
    etag: str
    committed_at: int
    confirmed_at: int
    count: int
    first_version: int
    latest: Row
    pinned: Row | None
    read_at: int = attrs.field(eq=False)

    @property
    def serving(self) -> Row:
        """The row that `read_latest` serves: the pinned one if there is one, else the latest."""
        return self.pinned or self.latest

    @property
    def bytes(self) -> int:
        """The size of the payload that `read_latest` serves, as its row says it."""
        return self.serving.size

    @property
    def age_ms(self) -> int:
        """How old the data is that `read_latest` serves: from its `ts` to `read_at`."""
        return self.read_at - self.serving.ts

    @property
    def confirmed_age_ms(self) -> int:
        """How long ago a producer last published or confirmed: from `confirmed_at` to `read_at`."""
        return self.read_at - self.confirmed_at
