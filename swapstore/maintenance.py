"""What operators ask of a store: what is served, kept, and stored how; copies; whether all is in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore import arguments
from swapstore.calls import Calls
from swapstore.commands import BackUp, Restore
from swapstore.errors import InvalidInput, SwapstoreError
from swapstore.models import Retention
from swapstore.protocol import datasets as listing
from swapstore.protocol import pointers, prune
from swapstore.protocol.batching import batched
from swapstore.protocol.context import NO_DATASET, Named, about
from swapstore.protocol.load import ask
from swapstore.protocol.operation import Batch, Within

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from swapstore.doctor.check import Check
    from swapstore.fsck.findings import Finding, Progress, Repair
    from swapstore.fsck.verify import Inspection
    from swapstore.health import Bound, Health
    from swapstore.models import Compression, Status
    from swapstore.protocol.operation import Operation, Steps
    from swapstore.reports import Dropped, Erased, Pruned, Recompressed


class Maintenance(Calls):
    """All calls, on the context of one client."""

    def health(
        self,
        bounds: Mapping[str, Bound | timedelta | str | None] | None = None,
        *,
        timeout: float = 5.0,
    ) -> Operation[Health]:
        """Report whether datasets are there, fresh and large enough, in one round trip for all of them.

        `bounds` maps the datasets that must exist to a `Bound`, or to its `max_age` alone: a timedelta, a
        text such as `"12h"`, or None. Default: all datasets that are published. At least one must be, and
        none may be damaged; that takes up to three round trips. No payload is read.

        An outage is no error but a result: the datasets are `unreachable`. `timeout` is how long to try, in
        seconds, and to wait for replies. Only a connection that is being made, or a lock on a SQLite file,
        may take longer: as long as the `Timeout` of the store says. Raises only `InvalidInput`.
        """
        from swapstore.health import Bound, Health, bounds_of, judged  # noqa: PLC0415 - only this needs them

        with about(self._context, "health", NO_DATASET):
            wanted = None if bounds is None else bounds_of(bounds)
            yield Within(arguments.timeout_s(timeout, "timeout"))
        failure: SwapstoreError | None = None
        if wanted is None:
            try:
                with about(self._context, "health", NO_DATASET):
                    wanted = dict.fromkeys((yield from listing.datasets(self._context)), Bound())
            except InvalidInput:
                raise
            except SwapstoreError as error:
                wanted, failure = {}, error
        outcomes = yield from batched(self._context, {name: self._examined(name) for name in wanted})
        found = {}
        for name, outcome in outcomes.items():
            if isinstance(outcome, InvalidInput):
                raise outcome
            if outcome is not None or bounds is not None:  # else it was dropped a moment ago
                found[name] = judged(name, outcome, wanted[name])
        return Health(datasets=found, checked_at=self._context.clock.now_ms(), error=failure)

    def _examined(self, dataset: str) -> Operation[Status | None]:
        with about(self._context, "health", dataset) as name:
            return (yield from listing.status(self._context, name))

    def pin(
        self,
        dataset: str,
        *,
        id: str | None = None,  # noqa: A002
        version: int | None = None,
    ) -> Operation[Status]:
        """Serve this snapshot to every reader of the latest until `unpin`. Producers can continue to publish.

        Give exactly one of `id` and `version`. Does nothing if it has taken effect already. Raises `NotFound`
        if there is no such snapshot in the history, and `PayloadMissing` or `Corrupt` if it cannot be read.
        """
        with about(self._context, "pin", dataset) as name:
            chosen = yield from self._chosen("pin", name, id, version)
            return (yield from self._swapped(name, pointers.pin(self._context, name, chosen)))

    def unpin(self, dataset: str) -> Operation[Status]:
        """Serve the latest snapshot again. Does nothing if nothing is pinned.

        Raises `NotFound` if nothing is published.
        """
        with about(self._context, "unpin", dataset) as name:
            return (yield from self._swapped(name, pointers.unpin(self._context, name)))

    def rollback(
        self,
        dataset: str,
        *,
        id: str | None = None,  # noqa: A002
        version: int | None = None,
    ) -> Operation[Status]:
        """Make this snapshot the latest, until the next publish whose `ts` is not older.

        Give exactly one of `id` and `version`. Snapshots after it stay in the history. Raises the same errors
        as `pin`.
        """
        with about(self._context, "rollback", dataset) as name:
            chosen = yield from self._chosen("rollback", name, id, version)
            return (yield from self._swapped(name, pointers.rollback(self._context, name, chosen)))

    def _chosen(self, what: str, dataset: str, id: Any, version: Any) -> Operation[str]:  # noqa: A002
        """Return the id of the snapshot that a caller of `pin` or `rollback` chose by id or version."""
        if (id is None) == (version is None):
            raise InvalidInput(f"{what} takes exactly one of id= and version=")
        if version is None:
            return arguments.snapshot_id(id)
        number = arguments.whole(version, "version", least=1)
        return (yield from pointers.id_of(self._context, dataset, number))

    def prune(self, dataset: str, *, retention: Retention | None = None) -> Operation[Pruned]:
        """Apply retention now: hide the snapshots past its bounds, and unlink all that can be unlinked.

        `retention`: default: that of the store. Without a bound in either, nothing more is hidden, and only
        what earlier bounds have hidden is unlinked. Publishing does the same in small steps; `prune` is for
        tighter bounds, and for datasets without a producer. Raises `NotFound` if nothing is published.
        """
        with about(self._context, "prune", dataset) as name:
            if retention is not None and not isinstance(retention, Retention):
                raise InvalidInput(f"retention must be a Retention, not {type(retention).__name__}")
            return (yield from prune.prune(self._context, name, retention or self._context.retention))

    def recompress(
        self, dataset: str, *, compression: Compression, limit: int | None = None
    ) -> Operation[Recompressed]:
        """Store the existing snapshots of a dataset in another way, beside producers and readers.

        `compression` is `"delta"`, `"zstd"` or `"none"`, as for `connect`. With `"delta"` and `"zstd"`, what
        does not get smaller stays as it is, and so do groups. Nothing else changes: ids, versions, digests,
        the history.
        Publishes go on as their store says, so connect that with the same `compression` first. `limit`: the
        most snapshots to store anew (default: all). It swaps a few dozen snapshots at a time. If it is cut
        short anywhere, every snapshot can be read, and the next call goes on. A call that finds nothing to do
        swaps nothing.

        Raises `NotFound` if nothing is published, `Unsupported` on an endpoint that runs no scripts,
        `StoreFull` if the store has no room for it, and `Contended` if other producers always commit first.
        """
        from swapstore.protocol.recompress import recompress  # noqa: PLC0415 - only operators need it

        with about(self._context, "recompress", dataset) as name:
            to = arguments.one_compression(compression)
            most = None if limit is None else arguments.whole(limit, "limit", least=1)
            return (yield from recompress(self._context, name, to, limit=most))

    def erase(
        self,
        dataset: str,
        *,
        id: str | None = None,  # noqa: A002 - the public name
        version: int | None = None,
        force: bool = False,
    ) -> Operation[Erased]:
        """Remove one snapshot for good: its payload, its row, and every copy of either in the store.

        Give exactly one of `id` and `version`. The versions of other snapshots stay as they are, and
        followers go on: one that has not read the snapshot does not get it. Snapshots that are stored as
        differences from its content are stored anew first. A snapshot that is the latest or pinned is
        refused, unless `force`: then readers are served the newest that is left. Its id may be published
        again; that is another snapshot. If it is cut short anywhere, call it again.

        It does not reach copies outside of the dataset's keys: memory of readers, replicas that lag, backups,
        append-only files, and the keys of a mirror.

        Raises `NotFound` if there is no such snapshot, `Refused` if it is served or is the only one,
        `Damaged` if a page or a snapshot that has to change cannot be read, `Unsupported` if others have to
        be stored anew on an endpoint that runs no scripts, and `Contended` if other producers always commit
        first.
        """
        from swapstore.protocol.erase import erase  # noqa: PLC0415 - only operators need it

        with about(self._context, "erase", dataset) as name:
            if (id is None) == (version is None):
                raise InvalidInput("erase takes exactly one of id= and version=")
            return (
                yield from erase(
                    self._context,
                    name,
                    id=None if id is None else arguments.snapshot_id(id),
                    version=None if version is None else arguments.whole(version, "version", least=1),
                    force=arguments.flag(force, "force"),
                )
            )

    def drop(self, dataset: str, *, on_progress: Callable[[int], None] | None = None) -> Operation[Dropped]:
        """Remove a dataset: at once for every reader, and then all of its keys, some at a time.

        Readers see nothing published as soon as the first swap is made; `datasets` does not list it any more.
        A producer may publish to it at any time: that is its first snapshot then, and stays. `on_progress` is
        called after each step with the number of snapshots that are left. If it is cut short anywhere, call
        it again: it goes on, unless somebody has published since; then it would drop that, too, and what was
        dropped before leaves with the next publishes.

        It does not reach copies outside of the dataset's keys; see `erase`. Raises `NotFound` if there is
        nothing of it, and `Contended` if other producers always commit first.
        """
        from swapstore.protocol.drop import drop  # noqa: PLC0415 - only operators need it

        with about(self._context, "drop", dataset) as name:
            if on_progress is not None and not callable(on_progress):
                raise InvalidInput(f"on_progress must be a function, not {type(on_progress).__name__}")
            return (yield from drop(self._context, name, on_progress=on_progress))

    def backup(self, path: str | os.PathLike[str]) -> Operation[int]:
        """Copy a SQLite store into a new file, beside producers and readers. Returns its size in bytes.

        The copy is one state of the store, between two commits, and is a store itself. Raises `InvalidInput`
        if the new file exists or the store is not on SQLite, `NotFound` if the store's file does not exist,
        `Unavailable` or `StoreFull` if the copy cannot be written, and `Corrupt` if the store is damaged.
        """
        with about(self._context, "backup", NO_DATASET):
            return (yield from ask(self._context, BackUp(self._file("backup", path))))

    def restore(self, path: str | os.PathLike[str]) -> Operation[None]:
        """Replace all that a SQLite store contains by a backup, beside producers and readers.

        It is one transaction, for all namespaces. The file of the store is created if it is not there. Raises
        `InvalidInput` if there is no such backup or the store is not a SQLite file, `Corrupt` if the backup
        is damaged or no store, and `ReplyLost` if the disk failed at the end: restore again.
        """
        with about(self._context, "restore", NO_DATASET):
            yield Batch((Restore(self._file("restore", path)),))

    def _file(self, call: str, path: Any) -> str:
        if self._kind != "sqlite":
            raise InvalidInput(
                f"{call} is for SQLite files. `swapstore copy` copies the datasets of a server into a file "
                "and back: see the how-to 'Back up and restore'. Or use the server's own way, such as BGSAVE"
            )
        return arguments.file(path)

    def doctor(self) -> Operation[list[Check]]:
        """Check the server or the SQLite file for settings that could break what swapstore promises.

        Changes no data. A check is `unknown` if the server does not say. If a SQLite file cannot be opened or
        written, one of the checks reports the problem. Raises `Unavailable` if a server cannot be reached:
        `patience` is not spent on it.
        """
        if self._context.doctor is not None:
            with about(self._context, "doctor", NO_DATASET):
                yield Within(None, patient=False)  # a server that refuses now is what it has to tell of
                return (yield from self._context.doctor(self._context))
        from swapstore.doctor.check import unknown_kind  # noqa: PLC0415 - only operators need it

        return [unknown_kind(self._kind)]

    def verify(
        self, dataset: str | None = None, *, on_progress: Callable[[Progress], None] | None = None
    ) -> Steps[Finding]:
        """Compare everything that is stored with what the manifests say, and iterate over the findings.

        `dataset`: default: every dataset of which the namespace holds any key. It reads every payload, a few
        MB at a time, and writes nothing. Findings that are not `wrong` are not damage: orphans expire by
        themselves. `on_progress` is called after each step. Producers can publish at the same time. Raises
        `Contended` if a dataset is reset or repaired while it is verified: run it again.
        """
        if on_progress is not None and not callable(on_progress):
            raise InvalidInput(f"on_progress must be a function, not {type(on_progress).__name__}")
        if dataset is None:
            return Named(self._context, "verify", NO_DATASET, self._inspection(None, on_progress))
        with about(self._context, "verify", dataset) as name:
            return Named(self._context, "verify", name, self._inspection(name, on_progress))

    def repair(self, dataset: str | None = None, *, apply: bool = False) -> Operation[list[Repair]]:
        """Repair what `verify` finds wrong, in one dataset or in all (default).

        Without `apply` it writes nothing, and returns what it would do. A lost or damaged manifest or page is
        rebuilt from the committed records, in a new epoch. The rows of snapshots whose payload is gone are
        dropped, and the report has their ids. Committed records become permanent again, and permanent records
        that nothing references expire in a day. Producers can publish at the same time: it commits like them.
        Returns a report for each dataset in which something was wrong.

        Raises `Contended` if producers or other repairs always commit first: run it again.
        """
        from swapstore.fsck import repair  # noqa: PLC0415 - only operators need it

        apply = arguments.flag(apply, "apply")
        if dataset is None:
            with about(self._context, "repair", NO_DATASET):
                names = yield from self._wrong()
        else:
            names = [dataset]
        reports = []
        for each in names:
            with about(self._context, "repair", each) as name:
                reports += [(yield from repair.repair(self._context, name, apply=apply))]
        return [report for report in reports if report.findings]

    def _wrong(self) -> Operation[list[str]]:
        """Return the datasets in which something is wrong."""
        inspection, wrong = self._inspection(None, None), set[str]()
        while (found := (yield from inspection.step())) is not None:
            wrong |= {finding.dataset for finding in found if finding.wrong}
        return sorted(wrong)

    def _inspection(self, dataset: str | None, on_progress: Callable[[Progress], None] | None) -> Inspection:
        from swapstore.fsck.verify import Inspection  # noqa: PLC0415 - only operators need it

        return Inspection(self._context, dataset, on_progress=on_progress)
