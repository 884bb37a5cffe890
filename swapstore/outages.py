"""Outages: what the readers of one client, who have something else to serve, find out about them.

A reader that fails notes an outage: of the whole store, or of its dataset if the store has shown anything to
any reader since it began (one shard of a cluster is down, or one payload is too large for the time-out).
While an outage lasts, one caller at a time tries whether it is over. The others do not wait for that.

Each change is one step of a dict, which is atomic, so threads need no lock, and tasks share with threads.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Self

from swapstore.structs import Struct

if TYPE_CHECKING:
    from swapstore.errors import Unavailable

_ALL = ""  # in place of the name of a dataset: no reader gets an answer


class _Outage(Struct, frozen=True, eq=False):
    """What the last attempt failed with, and how often the store had answered until then."""

    place: str
    error: Unavailable
    answers: int


class Outages:
    """The outages that one client knows of, and who tries whether they are over.

    `answers` counts the times that the store has shown a reader a manifest, `failures` the attempts that
    failed.
    """

    def __init__(self) -> None:
        self.answers = 0
        self.failures = 0
        self._noted: dict[str, _Outage] = {}
        self._trying: dict[str, Attempt] = {}

    def tried(self, dataset: str, now: float) -> Unavailable | None:
        """Return what the last attempt failed with, if another caller makes the next one at this moment."""
        outage = self._of(dataset)
        attempt = None if outage is None else self._trying.get(outage.place)
        return None if outage is None or attempt is None or attempt.until < now else copy(outage.error)

    def _of(self, dataset: str) -> _Outage | None:
        """Return the outage that concerns a dataset. None: nobody knows of one."""
        outage = self._noted.get(_ALL)
        if outage is not None and outage.answers == self.answers:
            return outage
        return self._noted.get(dataset)

    def _is_claimed(self, outage: _Outage, attempt: Attempt, now: float) -> bool:
        """Let an attempt be the only one in an outage, or say that another one is."""
        claimed = self._trying.setdefault(outage.place, attempt)
        if claimed is not attempt and claimed.until < now:  # it was cut off where it could not say so
            self._trying[outage.place] = claimed = attempt
        return claimed is not attempt


class Attempt:
    """One caller's attempt to read one dataset or several. A context manager.

    `until` (monotonic seconds): it has certainly ended by then. `came`: how many attempts had failed when the
    caller came, if it has waited for others since.
    """

    def __init__(self, outages: Outages, until: float, came: int | None = None) -> None:
        self.until = until
        self._outages = outages
        self._answers = outages.answers
        self._came = outages.failures if came is None else came

    def refused(self, dataset: str, now: float) -> Unavailable | None:
        """Return an error if this caller must not try: another one does, or has while this one waited."""
        outages = self._outages
        outage = outages._of(dataset)  # noqa: SLF001 - of this file
        if outage is None or not (outages.failures != self._came or outages._is_claimed(outage, self, now)):  # noqa: SLF001
            return None
        return copy(outage.error)

    def failed(self, dataset: str, error: Unavailable) -> None:
        """Note the outage that this attempt has met."""
        outages = self._outages
        answers = outages.answers
        place = _ALL if answers == self._answers else dataset
        outages._noted[place] = _Outage(place, copy(error), answers)  # noqa: SLF001
        outages.failures += 1

    def succeeded(self, dataset: str) -> None:
        """Note that the dataset can be read."""
        self._outages._noted.pop(dataset, None)  # noqa: SLF001

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.until = float("-inf")  # first of all: an interrupt may come during the rest
        trying = self._outages._trying  # noqa: SLF001
        for place in [place for place, attempt in list(trying.items()) if attempt is self]:
            trying.pop(place, None)
