"""The public nouns: what is stored, and what callers get. Immutable values without I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal

import attrs
import msgspec

from swapstore import arguments, codecs, decoders
from swapstore.codecs import Codec
from swapstore.errors import Corrupt, InvalidInput, SomeFailed, SwapstoreError

if TYPE_CHECKING:
    from typing_extensions import TypeForm, TypeVar

    T = TypeVar("T", default=Any)
    V_co = TypeVar("V_co", covariant=True, default=Any)  # so that a plain `Snapshot` is a `Snapshot[Any]`
else:
    from typing import TypeVar

    T, V_co = TypeVar("T"), TypeVar("V_co", covariant=True)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST = 2**53 - 1  # every reader of JSON keeps whole numbers exact up to this one
GROUP = "group"  # the codec of a group: its payload is the table of its members
MOST_MEMBERS = 1000
CLOCKS_AGREE_MS = 10_000  # two machines with NTP differ by less
Compression = Literal["none", "zstd", "delta"]
Whole = Annotated[int, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]  # of stored records, which may be damaged


class _Dated:
    """What has a `ts`."""

    __slots__ = ()
    ts: int

    @property
    def when(self) -> datetime:
        """The moment that the data describes, `ts`, as an aware datetime in UTC.

        Raises `Corrupt` for a damaged `ts` that is outside the years 1 to 9999.
        """
        try:
            return _EPOCH + timedelta(milliseconds=self.ts)
        except OverflowError as error:
            raise Corrupt(f"ts {self.ts} is outside the years 1 to 9999: the record is damaged") from error


@attrs.frozen(kw_only=True)
class Entry(_Dated):
    """The description of a snapshot.

    `ts` is the moment that the data describes, in milliseconds since the Unix epoch (UTC); `when` is the same
    as an aware datetime. `size` is the payload's length in bytes, `sha256` its digest in hexadecimal.
    """

    id: str
    ts: Whole
    size: Whole
    sha256: str
    codec: str = "json"
    labels: dict[str, str] = attrs.field(factory=dict)

    @property
    def is_group(self) -> bool:
        """Whether it is a `Group` of members."""
        return self.codec == GROUP


@attrs.frozen(kw_only=True)
class Row(Entry):
    """An entry with the manifest version that committed it.

    `committed_at` is the time of that commit, in milliseconds since the Unix epoch, by the producer's clock.
    `base` names the content that its payload may be stored as a difference from. It says nothing about the
    snapshot, so rows that differ in it alone are equal.
    """

    version: Whole
    committed_at: Whole
    dedupe_key: str | None = None
    base: str | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen(kw_only=True)
class Ref:
    """A reference to a page: its key, how many rows it leads to, and which versions and times they span.

    `bases`: the first and the last version that brought a base of a row below. None: no row below has one.
    """

    key: str
    count: int
    first_version: int
    last_version: int
    min_ts: int
    max_ts: int
    bases: tuple[int, int] | None = None

    def spans(self, version: int) -> bool:
        """Whether a row of this version belongs below this reference."""
        return self.first_version <= version <= self.last_version


@attrs.frozen(kw_only=True, slots=False)
class _Payload(Generic[V_co]):
    """Payload bytes, decoded at the first use of `value`."""

    size: int
    sha256: str
    codec: str
    raw: bytes = attrs.field(repr=False)

    @cached_property
    def value(self) -> V_co:
        """The payload, decoded by its codec at first use.

        Raises `Corrupt` if the codec cannot decode the bytes.
        """
        value: V_co = codecs.decode(self.raw, self.codec)
        return value

    def value_as(self, type: TypeForm[T]) -> T:  # noqa: A002
        """Return the value as this type, decoded from the payload bytes.

        `type`: an attrs class, a dataclass, a msgspec struct, a TypedDict, a pydantic model (version 2), or
        what is made of them, such as `list[Country]` or `Country | None`. It is decoded at each call, and
        checked as msgspec, or pydantic, checks it.

        Raises `TypeMismatch`, which names the place in the data, if the payload does not fit, `InvalidInput`
        if nothing can be decoded to this type, and `Corrupt` if the codec cannot decode the bytes.
        """
        raw, codec = self._encoded()
        what, dataset = self._what.format(self), getattr(self, "dataset", None)
        version = getattr(self, "version", None)
        value: T = decoders.decode(raw, codec, type, what=what, dataset=dataset, version=version)
        return value

    _what = "the payload"  # in errors

    def _encoded(self) -> tuple[bytes, str]:
        """Return the whole value as bytes, and their codec."""
        return self.raw, self.codec


@attrs.frozen(kw_only=True, slots=False)
class Snapshot(_Payload[V_co], _Dated):
    """One published value of a dataset. `Snapshot[T]`: its value is a `T`; see `type=` of the reads.

    `version` is the manifest version that committed it. `etag` is the etag of the manifest that it was read
    through. `ts` and `committed_at` are in milliseconds since the Unix epoch; `when` is `ts` as an aware
    datetime. `raw` is the payload bytes, checked against `sha256`; `value` is the decoded payload.

    `confirmed_at` is when a producer last said that this is current, by its own clock: of the latest, when it
    last published or confirmed; of any other snapshot, `committed_at`. `seen_at` is when the store last
    showed the manifest with this `etag`, by this client's clock. `stale`: the store could not be read, and
    this is what it showed then; see `stale_if_error`. All in milliseconds; `==` ignores these three.
    """

    dataset: str
    id: str
    ts: int
    version: int
    etag: str
    committed_at: int
    labels: dict[str, str]
    confirmed_at: int = attrs.field(default=0, eq=False)
    seen_at: int = attrs.field(default=0, eq=False)
    stale: bool = attrs.field(default=False, eq=False)

    _what = "version {0.version}"

    @cached_property  # of a `Group` it is a field, which takes its place
    def members(self) -> Mapping[str, Member]:
        """The members of a group, by name. Empty: it is no `Group`."""
        return {}


@attrs.frozen(kw_only=True, slots=False)
class Member(_Payload[Any]):
    """A member of a group: its name, and a payload of its own."""

    name: str

    _what = "member {0.name!r}"


@attrs.frozen(kw_only=True, slots=False)
class Group(Snapshot[dict[str, Any]]):
    """A snapshot of named members, which were published together: `group["EG"].value`.

    `value` maps the names to the decoded members. So `value_as`, and `type=` of a read, take the type of the
    whole mapping, such as `dict[str, Country]` or a TypedDict; a member has a `value_as` of its own. `raw` is
    the table of the members: their sizes, digests and codecs; `size` and `sha256` are those of the table. If
    only some members were read, `members` has these, and `raw` is empty.
    """

    members: Mapping[str, Member] = attrs.field(repr=lambda members: f"<{len(members)} members>")

    @cached_property
    def value(self) -> dict[str, Any]:
        """The decoded members, by name. Raises `Corrupt` if one of them cannot be decoded."""
        return {name: member.value for name, member in self.members.items()}

    def _encoded(self) -> tuple[bytes, str]:
        return _as_object(self.members)

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)


@attrs.frozen(kw_only=True, slots=False)
class Candidate(_Payload[Any], _Dated):
    """A snapshot that is not published yet: the argument of `validate`.

    `ts_is_default`: the publish named no `ts`, so it is now, or that of the latest if this is later.
    `members`: those of a group, by name; its `value` maps the names to their values.
    """

    dataset: str
    id: str
    ts: int
    labels: dict[str, str]
    ts_is_default: bool = False
    members: Mapping[str, Member] = attrs.field(factory=dict)

    @cached_property
    def value(self) -> Any:
        """The value: of a group, the values of its members by name."""
        if self.members:
            return {name: member.value for name, member in self.members.items()}
        return super().value

    _what = "the candidate"

    def _encoded(self) -> tuple[bytes, str]:
        return _as_object(self.members) if self.members else super()._encoded()


@attrs.frozen(kw_only=True, slots=False)
class LiveView(_Payload[Any]):
    """A value that was computed from one version, and is returned only while that version is current.

    `etag` is the etag of the manifest of that version.
    """

    dataset: str
    etag: str

    _what = "the live view"


def _as_object(members: Mapping[str, Member]) -> tuple[bytes, str]:
    """Return the members of a group as one JSON object, and its codec."""
    for name, member in members.items():
        if member.codec != "json":
            raise InvalidInput(
                f"member {name!r} has the codec {member.codec!r}, and only JSON can be decoded to a type; "
                "use the .raw of each member"
            )
    parts = (b"%b:%b" % (msgspec.json.encode(name), member.raw) for name, member in members.items())
    return b"{%b}" % b",".join(parts), "json"


Validator = Callable[[Candidate, Snapshot | None], str | None]
"""Accepts a candidate by returning None. Refuses it by returning a reason, or by raising."""


@attrs.frozen
class Item:
    """A value for `publish_many`, with options of its own.

    The options are those of `publish`. One that is None is that of the whole `publish_many`. Labels replace
    those of the whole call, and are not added to them.
    """

    value: Any = attrs.field(repr=False)
    id: str | None = attrs.field(default=None, kw_only=True)
    ts: int | datetime | None = attrs.field(default=None, kw_only=True)
    labels: Mapping[str, str] | None = attrs.field(default=None, kw_only=True)
    count: int | None = attrs.field(default=None, kw_only=True)
    dedupe_key: str | None = attrs.field(default=None, kw_only=True)
    expected_version: int | None = attrs.field(default=None, kw_only=True)
    validate: Validator | None = attrs.field(default=None, kw_only=True)
    codec: Codec | None = attrs.field(default=None, kw_only=True)
    default: Callable[[Any], Any] | None = attrs.field(default=None, kw_only=True)


@attrs.frozen(kw_only=True)
class Commit(_Dated):
    """The outcome of a publish.

    `version` is the manifest version that committed the snapshot, and `etag` the etag of that manifest.
    `created` is False if an earlier commit has the same id or dedupe key: the fields then describe that
    commit, and `etag` the current manifest. `is_latest`: this snapshot is the dataset's latest. `ts` is in
    milliseconds since the Unix epoch, `when` the same as an aware datetime, `size` in bytes. `replicas` is
    how many replicas have the commit, if the publish asked for a `Durability`; None: it did not.
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
    replicas: int | None = None


class Outcomes(dict[str, "Commit | SwapstoreError"]):
    """The outcome of each dataset of a `publish_many`, in the given order: its `Commit`, or its error."""

    @property
    def failures(self) -> dict[str, SwapstoreError]:
        """The datasets whose publish raised an error, and their errors.

        They were not published, except where the error is `UnderReplicated`.
        """
        return {name: outcome for name, outcome in self.items() if isinstance(outcome, SwapstoreError)}

    def raise_for_failures(self) -> None:
        """Raise the error if one dataset failed, and `SomeFailed` with all errors if several did."""
        failures = self.failures
        if len(failures) == 1:
            raise next(iter(failures.values()))
        if failures:
            raise SomeFailed(failures, of=len(self))


@attrs.frozen(kw_only=True)
class Retention:
    """How much history to keep. None means no bound.

    `max_age` (a timedelta of 1 ms or more) is compared with each snapshot's `ts`, by the clock of the client
    that publishes or prunes. `max_count` is how many of the newest commits to keep; 1 or more. A snapshot
    past a bound is hidden at once and unlinked soon after. The latest and the pinned snapshot can always be
    read, whatever their age. Raises `InvalidInput` for an invalid bound.

    If the last commit is longer ago than `max_ahead` of `connect`, the client's clock may be wrong, so it is
    compared with the store's, and refused if it is ahead. A store without a clock (a SQLite file, some REST
    endpoints) cannot show that. There, ages are counted from `max_ahead` after the last commit at most. To
    prune a dataset there that nobody publishes to any more, connect with `max_ahead=None`.
    """

    max_age: timedelta | None = None
    max_count: int | None = None

    def __attrs_post_init__(self) -> None:
        arguments.retention(self.max_age, self.max_count)

    @property
    def max_age_ms(self) -> int | None:
        """`max_age` in milliseconds."""
        return None if self.max_age is None else self.max_age // timedelta(milliseconds=1)


@attrs.frozen(kw_only=True)
class Timeout:
    """How long a call waits for the store, in seconds. None: the default for this kind of store.

    - `connect`: to make a connection (default: 5), or until one of those in use is free (default: 10).
    - `reply`: the longest silence while a request is sent or its reply is awaited. Bytes that flow end the
      silence, so a large transfer may take longer. On SQLite: the wait for a lock. Default: 10.
    - `total`: what one call may wait in vain, over all its requests: the requests that fail, the pauses
      before another attempt, and waits for another writer. Then nothing more is sent, and the call ends with
      `Unavailable`, or with `OutcomeUnknown` if a commit may have been carried out. Requests that are
      answered do not count, however many there are. Default: 10 over REST; no bound on other stores.

    Raises `InvalidInput` for anything but a positive number of seconds, at most 366 days.
    """

    connect: float | None = None
    reply: float | None = None
    total: float | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("connect", "reply", "total"):
            if getattr(self, name) is not None:
                arguments.timeout_s(getattr(self, name), f"the time-out {name}")

    @classmethod
    def of(cls, value: Any) -> Timeout:
        """Return a `Timeout`: the given one, or from a number of seconds that bounds everything.

        Raises `InvalidInput` for any other value.
        """
        if value is None or isinstance(value, Timeout):
            return value or cls()
        seconds = arguments.timeout_s(value, "timeout")
        return cls(connect=seconds, reply=seconds, total=seconds)


DURABILITY_TIMEOUT_S = 1.0
REPLICAS_FSYNC_S = 3.0  # replicas report what is on their disks once a second


def _default_timeout(durability: Durability) -> float:
    return REPLICAS_FSYNC_S if durability.fsync and durability.replicas else DURABILITY_TIMEOUT_S


@attrs.frozen(kw_only=True)
class Durability:
    """Where a commit must be before a publish is acknowledged. On Redis and Valkey.

    - `replicas`: how many replicas must have it; 1 or more. 0: none, only with `fsync`.
    - `fsync`: on disk, and not only in memory: on the disk of the primary, and on the disks of that many
      replicas. The servers need an append-only file (`appendonly yes`), and Redis 7.2 or Valkey.
    - `timeout`: how long to wait for that, in seconds; shorter than `Timeout.reply`. Default: 1. With `fsync`
      and replicas: 3, because replicas report what is on their disks once a second.

    Too few in time: `UnderReplicated`. The snapshot is published all the same. Raises `InvalidInput` for
    anything else.
    """

    replicas: int = 1
    fsync: bool = False
    timeout: float = attrs.field(default=attrs.Factory(_default_timeout, takes_self=True))

    def __attrs_post_init__(self) -> None:
        arguments.durability(self.replicas, self.fsync, self.timeout)

    @classmethod
    def of(cls, value: Any) -> Durability:
        """Return the given `Durability`. Raises `InvalidInput` for any other value."""
        if isinstance(value, Durability):
            return value
        raise InvalidInput(
            f"durability must be a Durability (replicas=, fsync=, timeout=), not {type(value).__name__}"
        )

    @property
    def timeout_ms(self) -> int:
        """`timeout` in milliseconds; 1 or more, because 0 is no bound to a server."""
        return max(1, int(self.timeout * 1000))


@attrs.frozen(kw_only=True)
class Gap:
    """What `follow` returns in place of commits that it cannot return, right before the next commit.

    `after` is the version up to which every commit was returned, `resumes_at` the version of the next commit.
    `reason` is `retention` if commits between the two were unlinked, or may have been. It is `reset` if the
    dataset was flushed, restored or failed over, and the commit that was returned last is no longer in its
    history; or if the `after` of `follow` is greater than every version that there is.
    """

    dataset: str
    after: int
    resumes_at: int
    reason: Literal["retention", "reset"]


@attrs.frozen(kw_only=True)
class Status:
    """A summary of a dataset, from one small read.

    `version` is the manifest's version; it counts every swap, including pins and confirmations. `count` is
    the number of snapshots in the log, including hidden ones that are not unlinked yet. Versions below
    `first_version` are not in the history. `committed_at` is when the manifest was last swapped,
    `confirmed_at` when a producer last published or confirmed. `latest` is the row of the latest snapshot,
    `pinned` that of the pinned one or None.

    `read_at` is when this status was read, by this client's clock; `==` ignores it. The ages compare it with
    times of a producer's clock. If the clocks differ, the ages are wrong by the difference, and may be
    negative. All times are in milliseconds since the Unix epoch.
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
        """The row of the snapshot that `read_latest` returns: `pinned` if there is one, else `latest`."""
        return self.pinned or self.latest

    @property
    def bytes(self) -> int:
        """The size in bytes of the payload that is served, according to its row."""
        return self.serving.size

    @property
    def age_ms(self) -> int:
        """The age of the served data in milliseconds: `read_at` minus its `ts`."""
        return self.read_at - self.serving.ts

    @property
    def confirmed_age_ms(self) -> int:
        """The milliseconds since a producer last published or confirmed: `read_at` minus `confirmed_at`."""
        return self.read_at - self.confirmed_at
