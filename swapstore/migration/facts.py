"""What an import tells, as it happens."""

from __future__ import annotations

import enum

import attrs


class Kind(enum.StrEnum):
    """What can be found."""

    DANGLING = "dangling"  # something names a payload that is not there
    UNINDEXED = "unindexed"  # a payload that no index names
    UNREADABLE = "unreadable"  # not JSON, another type of value, or a name or time that cannot be
    REFUSED = "refused"  # the store holds something else under this id, or keeps nothing so old
    LATEST = "latest"  # the old pointer does not name the new latest


@attrs.frozen(kw_only=True)
class Finding:
    """Something in the source that is not as it should be, and whether its snapshot is imported.

    `key` is the key of the source that it is about. `dataset`, `id` and `ts` (ms since the Unix epoch) are
    None where they are not known.
    """

    step: str = "finding"
    kind: Kind
    dataset: str | None = None
    id: str | None = None
    ts: int | None = None
    key: str
    imported: bool = False
    detail: str

    @property
    def is_damage(self) -> bool:
        """Whether something of the source is lost, or did not come over."""
        return self.kind in {Kind.DANGLING, Kind.UNREADABLE} or (
            self.kind is Kind.UNINDEXED and not self.imported
        )


@attrs.frozen(kw_only=True)
class RegionDone:
    """A region is through.

    `created` snapshots were published, `already` were in the store, `left_out` could not be imported.
    `latest` is the id of the dataset's latest snapshot now, `old_latest` what the old pointer holds.
    """

    step: str = "region"
    dataset: str
    created: int = 0
    already: int = 0
    left_out: int = 0
    latest: str | None = None
    old_latest: str | None = None


@attrs.frozen
class Planned:
    """The source is read through, and so many snapshots are to be imported."""

    total: int


@attrs.frozen
class Tried:
    """One more snapshot of this dataset was imported, found there already, or left out."""

    dataset: str


Fact = Planned | Tried | Finding | RegionDone
