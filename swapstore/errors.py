"""One tree of errors, grouped by what a caller would do about them.

Catch a group, not a leaf:

- `InvalidInput`: the call is wrong; nothing was written; fix the call.
- `NotFound`: what was named is not there.
- `Refused`: the store works and said no; the last good version stays; decide what you want.
- `Unavailable`: the store cannot serve now; try again later (with the same `id` when publishing).
- `Damaged`: what is stored is not what was written; somebody has to look.

Every message says what happened and what to do next; none carries a password, a token or a payload.
"""

from __future__ import annotations


class SwapstoreError(Exception):
    """The base of everything this library raises; never raised itself.

    `dataset` and `key` name what the error is about, where there is such a thing.
    """

    def __init__(self, message: str, *, dataset: str | None = None, key: str | None = None) -> None:
        super().__init__(message)
        self.dataset = dataset
        self.key = key

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.dataset is None else f"dataset {self.dataset!r}: {message}"


class SomeFailed(SwapstoreError):  # noqa: N818
    """Several datasets of a `publish_many` were not published. `failures` holds the error of each."""

    def __init__(self, failures: dict[str, SwapstoreError], *, of: int) -> None:
        said = "; ".join(str(error) for error in failures.values())
        super().__init__(f"{len(failures)} of {of} datasets were not published: {said}")
        self.failures = failures


class InvalidInput(SwapstoreError, ValueError):  # noqa: N818 - the names are the library's vocabulary
    """An argument, name, value or URL cannot be used. Nothing was written."""


class PayloadTooLarge(InvalidInput):
    """The encoded payload exceeds `max_payload`, or a request what an endpoint takes. Figures are in bytes.

    Of a request over REST `size_bytes` is the whole of its body. `limit_bytes` is 0 when it is not told.
    """

    def __init__(
        self, message: str, *, size_bytes: int = 0, limit_bytes: int = 0, key: str | None = None
    ) -> None:
        super().__init__(message, key=key)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class NotFound(SwapstoreError, LookupError):  # noqa: N818
    """The snapshot to pin or to roll back to, or the dataset itself, is not there."""


class Refused(SwapstoreError):  # noqa: N818
    """The store said no, for a reason that trying again does not change."""


class Conflict(Refused):
    """`expected_version` does not hold: the dataset moved since the caller read it.

    `current_version` is the version of the latest snapshot now (0: nothing is published).
    """

    def __init__(self, message: str, *, current_version: int = 0) -> None:
        super().__init__(message)
        self.current_version = current_version


class IdConflict(Refused):
    """The id is already committed with other content. Ids name one content for ever."""


class TooOld(Refused):
    """The snapshot's `ts` is older than retention keeps: nobody could read it."""


class Rejected(Refused):
    """`validate`, or a validator of the store, refused the candidate; the last good version stays.

    `reason` is what it said: the text that it returned or raised `Rejected` with, or the class of another
    exception (whose message may quote the data). `id` is that of the candidate.
    """

    def __init__(self, message: str, *, reason: str | None = None, id: str | None = None) -> None:  # noqa: A002
        super().__init__(message)
        self.reason = message if reason is None else reason
        self.id = id


class Unavailable(SwapstoreError):  # noqa: N818
    """The store cannot be reached, timed out, is loading, or is busy beyond the bound."""


class AccessDenied(Unavailable):
    """The store refused the credentials, or they do not allow a command that is needed."""


class Unscripted(AccessDenied):
    """The endpoint does not run scripts (EVAL, EVALSHA), or not for this user. The command had no effect."""


class Unsupported(Unavailable):
    """The store cannot do what is needed, and trying again changes nothing."""


class Throttled(Unavailable):
    """The store was asked too often, or a quota is used up. Nothing was carried out.

    `retry_after_s` is how long it asks to be left alone, in seconds (None: it does not say). Short waits are
    waited out before this is raised.
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
    """The store takes no writes: a replica, a read-only file, or writes stopped after a failed save."""


class StoreFull(Unavailable):
    """The store has no room: `maxmemory` with `noeviction`, or a full disk. Nothing was committed."""


class Contended(Unavailable):
    """Other producers committed first, every time, for as long as this publish was willing to try."""


class LeaseLost(Unavailable):
    """Two writers were at work at once although `single_writer=True` promised one: a commit is lost.

    Which one, only the store tells: look at it, and publish again.
    """


class ReplyLost(Unavailable):
    """Commands were sent and no reply came: they may have been applied, in part or in whole.

    Drivers raise it; operations settle it. It reaches a caller from a read that kept losing its connection
    (the first read of a publish too: then nothing was committed), and from `put_live`, which can simply be
    called again.
    """


class OutcomeUnknown(Unavailable):
    """A commit was sent, its reply was lost, and the store could not be asked what became of it.

    Publish again with the same `id` (it is in `id`): whatever happened, that ends in one commit.
    """

    def __init__(self, message: str, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(message)
        self.id = id


class Damaged(SwapstoreError):  # noqa: N818
    """What is stored is not what swapstore wrote."""


class PayloadMissing(Damaged):
    """The manifest names a record that is not there."""


class Corrupt(Damaged):
    """A record's bytes differ from what its header or the manifest says, or are not a record."""


class UnsupportedFormat(Damaged):
    """The stored format is newer than this version of swapstore reads. Upgrade swapstore."""


class StoreClosed(InvalidInput):
    """The store was closed before the call."""
