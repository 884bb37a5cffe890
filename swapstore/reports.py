"""What the calls of operators report: what they have removed, stored anew, or copied."""

from __future__ import annotations

from typing import Literal

import attrs

from swapstore.models import Compression


@attrs.frozen(kw_only=True)
class Pruned:
    """What `prune` did, and the state of the dataset after it.

    `let_go` is how many snapshots this call took out of the log; their records expire after the reader grace
    of 10 minutes. `count` is how many snapshots the log still holds: those in the history, the last 32
    commits, and hidden ones that share a page with others. Snapshots with a version below `first_version`,
    or with a `ts` below `floor` (milliseconds since the Unix epoch), are hidden.
    """

    dataset: str
    version: int
    etag: str
    let_go: int
    count: int
    first_version: int
    floor: int


@attrs.frozen(kw_only=True)
class Recompressed:
    """What `recompress` did, and the state of the dataset after it.

    `stored_anew` is how many snapshots are stored in another way now. Their records took `bytes_before`
    bytes, and take `bytes_after`, new bases included. `unreadable` is how many snapshots stay as they were
    because they, or their page of the log, cannot be read. `left` is how many of those that were there when
    it began come after the limit.
    """

    dataset: str
    version: int
    etag: str
    compression: Compression
    stored_anew: int
    bytes_before: int
    bytes_after: int
    unreadable: int
    left: int


@attrs.frozen(kw_only=True)
class Erased:
    """What `erase` did, and the state of the dataset after it.

    `id` and `version` are those of the snapshot; one of them is None if no row had it any more, and only
    what an earlier call had left was deleted. `latest` is the version of the latest snapshot now.
    `stored_anew` is how many other snapshots had been stored as differences from its content.
    """

    dataset: str
    id: str | None
    version: int | None
    etag: str
    latest: int
    stored_anew: int


@attrs.frozen(kw_only=True)
class Dropped:
    """What `drop` did. `snapshots` is how many it has removed.

    `republished`: somebody has published to the dataset since it was dropped. What was published is there.
    """

    dataset: str
    snapshots: int
    republished: bool


CopyOutcome = Literal["copied", "already", "skipped", "conflict", "rejected", "refused", "damaged"]


@attrs.frozen(kw_only=True)
class CopyStep:
    """What `copy` has done with one snapshot: the argument of its `on_progress`.

    `version` is that of the source. `done` of `total` snapshots of the dataset were tried. The `outcome`:

    - `copied`; `already`: the target had it; `skipped`: retention of the target would hide it at once, or
      that of the source has unlinked it;
    - `conflict`: the target has the id with other content; `rejected`: a validator of the target refused it;
      `refused`: the target cannot take it, for its size or for a `ts` in the future; `damaged`: it cannot be
      read from the source, or the target has damage in its place. `detail` says more.
    """

    dataset: str
    id: str
    ts: int
    version: int
    size: int
    outcome: CopyOutcome
    detail: str = ""
    done: int
    total: int

    @property
    def failed(self) -> bool:
        """Whether the target lacks the snapshot, although it should have it."""
        return self.outcome not in {"copied", "already", "skipped"}


@attrs.frozen(kw_only=True)
class Copied:
    """What `copy` did with one dataset.

    `copied` snapshots, of `size` bytes of payload, are in the target now; `already` were there before.
    `skipped` were left out because of retention, `failed` for what `failures` says of the first of them.
    `ended` says why the dataset was not copied to its end: an id that the target has with other content, or
    damage; empty: it was.

    `source_serves` and `target_serves` are the ids that readers of the latest get now; None: nothing is
    published. They differ if the source has a pin and the target had the dataset before, if something was
    rolled back in the source, or if the target has newer snapshots or a pin. `pinned`: the target had nothing
    before, and this copy has pinned in it what is pinned in the source.
    """

    dataset: str
    copied: int = 0
    already: int = 0
    skipped: int = 0
    failed: int = 0
    size: int = 0
    failures: tuple[CopyStep, ...] = ()
    ended: str = ""
    source_serves: str | None = None
    target_serves: str | None = None
    pinned: bool = False

    @property
    def complete(self) -> bool:
        """Whether the target has everything that it should have."""
        return not self.failed and not self.ended
