"""One tree of errors, grouped by what a caller can do about them.

Catch a group, not a leaf:

- `InvalidInput`: the call is wrong and nothing was written. Fix the call.
- `NotFound`: the named snapshot or dataset does not exist. Name another one.
- `Refused`: the store works and refused the request; the previous version stays. Decide what you want.
- `Unavailable`: the store cannot serve now. Try again later, with the same `id` when publishing.
- `Misconfigured`: the store works, but not for this client. Waiting does not help: change the setup.
- `Damaged`: what is stored is not what was written. Somebody has to look.
- `TypeMismatch`: what was published does not fit the reader's type. Change the type, or what is published.

Two are in no group. `UnderReplicated`: the snapshot is published, and too few replicas have it. Publish the
same id again to wait again. `TooStale`: the store works, and what it serves is older than the `max_age` of a
read.

Every message says what happened and what to do next. No message contains a password, a token or a payload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from swapstore.models import Commit, Durability, Snapshot


class SwapstoreError(Exception):
    """The base class of all errors of this library. It is never raised itself.

    `dataset` and `key` name what the error is about; None if it is not about one.

    `published` is False if `publish` or `publish_many` raised or returned the error and published nothing;
    the message says so too. True: it is `UnderReplicated`. None: the call does not publish, or whether it did
    is not known; the message says which.
    """

    published: bool | None = None

    def __init__(self, message: str, *, dataset: str | None = None, key: str | None = None) -> None:
        super().__init__(message)
        self.dataset = dataset
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy any error of this library, whatever its class takes to be made."""
        return _restored, (type(self), self.args), self.__dict__

    def __str__(self) -> str:
        message = super().__str__()
        if self.published is False and "nothing was published" not in message.lower():
            message += f"{'' if message.endswith(('?', '.', '!')) else '.'} Nothing was published."
        return message if self.dataset is None else f"dataset {self.dataset!r}: {message}"


def _restored(kind: type[SwapstoreError], args: tuple[Any, ...]) -> SwapstoreError:
    return kind.__new__(kind, *args)


class SomeFailed(SwapstoreError):  # noqa: N818
    """Several datasets of a `publish_many` were not published, or are `UnderReplicated`; all others are.

    `failures` is a dict from each of these datasets to its error.
    """

    def __init__(self, failures: dict[str, SwapstoreError], *, of: int) -> None:
        reasons = "; ".join(str(error) for error in failures.values())
        too_few = sum(isinstance(error, UnderReplicated) for error in failures.values())
        what = ["were not published"] if too_few < len(failures) else []
        what += ["are on too few replicas"] if too_few else []
        super().__init__(f"{len(failures)} of {of} datasets {', or '.join(what)}: {reasons}")
        self.failures = failures


class UnderReplicated(SwapstoreError):  # noqa: N818
    """The snapshot is published, and readers see it, but on fewer replicas, or disks, than were asked for.

    Publish the same id and content again: that waits again, and publishes again what a failover has undone.

    `commit` is the commit, `durability` what was asked for, and `replicas` how many replicas were known to
    have it in time: 0 if the server could not be asked, or had it not on its own disk.
    """

    published = True

    def __init__(
        self,
        message: str,
        *,
        commit: Commit,
        durability: Durability,
        replicas: int = 0,
    ) -> None:
        super().__init__(message)
        self.commit = commit
        self.durability = durability
        self.replicas = replicas


class TooStale(SwapstoreError):  # noqa: N818
    """The store works, but what it serves is older than the `max_age` of the read. Look at the producer.

    What was published stays as it is. Or the producer's clock is more than ten seconds ahead of this one, so
    that nobody can tell the age. `age_ms` is the age in milliseconds, `max_age_ms` the bound, `version` the
    version that would be served.
    """

    def __init__(self, message: str, *, version: int = 0, age_ms: int = 0, max_age_ms: int = 0) -> None:
        super().__init__(message)
        self.version = version
        self.age_ms = age_ms
        self.max_age_ms = max_age_ms

    @classmethod
    def of(cls, found: Snapshot, now_ms: int, max_age_s: float) -> TooStale:
        """Return the error for a snapshot that was read."""
        age_ms = now_ms - min(found.confirmed_at, found.seen_at)
        if now_ms < found.confirmed_at:
            ahead = (found.confirmed_at - now_ms) / 1000
            message = (
                f"version {found.version} was published or confirmed {ahead:,.0f} s in the future, by the "
                "producer's clock, so nobody can tell whether it is too old. Set both clocks (NTP)"
            )
        else:
            message = (
                f"version {found.version} was last published or confirmed {age_ms / 1000:,.1f} s ago, and "
                f"max_age is {max_age_s:,.1f} s. The store works: see whether the producer still runs"
            )
        return cls(message, version=found.version, age_ms=age_ms, max_age_ms=int(max_age_s * 1000))


class InvalidInput(SwapstoreError, ValueError):  # noqa: N818 - the names are the library's vocabulary
    """A name, time, label, value, option or URL cannot be used. Nothing was written.

    `misused`: it is the store or the view that cannot be used: it is closed, not started, or of another event
    loop or process.
    """

    misused: bool = False

    @classmethod
    def misuse(cls, message: str) -> Self:
        """Return the error of a store or a view that is `misused`."""
        error = cls(message)
        error.misused = True
        return error


class PayloadTooLarge(InvalidInput):
    """The encoded payload exceeds `max_payload`, or a request exceeds a limit of the server or endpoint.

    `size_bytes` is the size of the payload, or of the request's whole body. `limit_bytes` is the limit; 0 if
    the endpoint does not state it. Nothing was committed.
    """

    def __init__(
        self, message: str, *, size_bytes: int = 0, limit_bytes: int = 0, key: str | None = None
    ) -> None:
        super().__init__(message, key=key)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class NotFound(SwapstoreError, LookupError):  # noqa: N818
    """The dataset, or the snapshot to pin or to roll back to, does not exist. Reads return None instead.

    Nothing was changed.
    """


class Refused(SwapstoreError):  # noqa: N818
    """The store works and refused the request. Trying again does not change that. Nothing was published."""


class Conflict(Refused):
    """`expected_version` does not hold: another publish came first. Read again, and decide again.

    `current_version` is the version of the latest snapshot now; 0 if nothing is published.
    """

    def __init__(self, message: str, *, current_version: int = 0) -> None:
        super().__init__(message)
        self.current_version = current_version


class IdConflict(Refused):
    """The id is committed with other content. Publish under a new id, or without one."""


class TooOld(Refused):
    """The snapshot's `ts` is older than retention keeps, so nobody could ever read it."""


class Rejected(Refused):
    """`validate`, or a validator of the store, rejected the candidate. The previous version stays.

    `reason` is the text that the validator returned, or raised `Rejected` with. If it raised another
    exception, `reason` is the class alone, because the message may quote the data, and `__cause__` is the
    exception. `id` is the candidate's id.
    """

    def __init__(self, message: str, *, reason: str | None = None, id: str | None = None) -> None:  # noqa: A002
        super().__init__(message)
        self.reason = message if reason is None else reason
        self.id = id


class Unavailable(SwapstoreError):  # noqa: N818
    """The store cannot be reached, timed out, is loading, or stayed busy for too long. Try again later.

    Nothing was published, except where a subclass says that this is not known. On Redis and Valkey the client
    has already tried again for as long as its `patience` lasts, where that could help.

    `again`: a driver raised it, and the same request may succeed in a moment: nothing was sent, or what was
    sent only reads. `behind`: the store answered, and does not show the `min_version` of a read.
    """

    again: bool = False
    behind: bool = False


class Throttled(Unavailable):
    """A REST endpoint received too many requests, or a quota is used up. Nothing was carried out.

    `retry_after_s` is how long the endpoint asks to wait, in seconds; None if it does not say. The client has
    already waited up to three times, for at most ten seconds each.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        dataset: str | None = None,
        key: str | None = None,
    ) -> None:
        super().__init__(message, dataset=dataset, key=key)
        self.retry_after_s = retry_after_s


class ReadOnly(Unavailable):
    """The server accepts no writes now: it is a replica, or could not save to disk. Nothing was committed."""


class StoreFull(Unavailable):
    """The store is full: `maxmemory` is reached under `noeviction`, or the disk is full.

    Nothing was committed.
    """


class Contended(Unavailable):
    """Other producers committed first in all attempts. Nothing was committed.

    Without scripts there are two more causes: another writer keeps the lease, or the id belongs to records
    that another publish left; the message says which. From `verify` and `repair`: the dataset was reset or
    repaired at the same time. Run it again.
    """


class ReplyLost(Unavailable):
    """Commands were sent and no reply came: they may have been applied, in part or in whole.

    Drivers raise it, and operations resolve the outcome. A caller gets it only from a read that kept losing
    its connection (also the first read of a publish: then nothing was committed), and from `put_live`. Both
    can be repeated.

    `cut_off`: the server closed the connection before the last command was sent in whole, so that one was
    certainly not carried out.
    """

    def __init__(self, message: str, *, cut_off: bool = False) -> None:
        super().__init__(message)
        self.cut_off = cut_off


class OutcomeUnknown(Unavailable):
    """A commit was sent, its reply was lost, and the store could not be asked for the outcome.

    After a publish, `id` is the snapshot's id. Publish again with it: that ends in one commit, whatever
    happened. After `pin`, `unpin`, `rollback` and `confirm`, `id` is None: read the status and, if necessary,
    call again.
    """

    def __init__(self, message: str, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(message)
        self.id = id


class LeaseLost(OutcomeUnknown):
    """Two writers worked at the same time although `single_writer=True` promised one.

    One of their two commits is lost, perhaps this one. Check the store, and publish again with the same id.
    """


class Misconfigured(SwapstoreError):  # noqa: N818
    """The store cannot do this for this client until somebody changes the setup. Nothing was published.

    The address is not that of a store, the credentials or rights do not suffice, or the store lacks what is
    needed. Waiting does not help.
    """


class AccessDenied(Misconfigured):
    """The store refused the credentials, or they do not allow a command or a file that is needed."""


class Unscripted(AccessDenied):
    """The endpoint does not run scripts (`EVAL`, `EVALSHA`), or not for this user. Nothing was changed."""


class Unsupported(Misconfigured):
    """The store lacks a command that is needed, or has no way to commit. Nothing was changed."""


class Damaged(SwapstoreError):  # noqa: N818
    """What is stored is not what swapstore wrote: another program, an eviction or a `DEL` changed it.

    A publish that raises it has published nothing.
    """


class PayloadMissing(Damaged):
    """The manifest references a record that does not exist."""


class Corrupt(Damaged):
    """A record's bytes differ from what its header or the manifest says, or are not a record at all."""


class UnsupportedFormat(Damaged):
    """The stored format is newer than this version of swapstore supports. Upgrade swapstore."""


class TypeMismatch(SwapstoreError):  # noqa: N818
    """A payload does not fit the type that the reader asked for: `type=` of a read, or `value_as`.

    Nothing is damaged: without a type, the value can be read as it was published. `place` is where in the
    data, such as `$.items[3].price`. `version` is the snapshot's; None: it has none yet, or the error is
    about one member. The message says what was expected there. It never has the data itself.
    """

    def __init__(
        self, message: str, *, place: str = "$", version: int | None = None, dataset: str | None = None
    ) -> None:
        super().__init__(message, dataset=dataset)
        self.place = place
        self.version = version


class StoreClosed(InvalidInput):
    """A method was called after `close()`."""

    misused = True
