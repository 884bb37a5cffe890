"""Looking after what is stored: checked, and handed to the operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore import checks
from swapstore.calls.about import Named, about
from swapstore.errors import InvalidInput
from swapstore.models import Retention
from swapstore.protocol import prune, telling

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapstore.doctor.check import Check
    from swapstore.fsck.findings import Finding, Progress, Repair
    from swapstore.fsck.verify import Inspection
    from swapstore.models import Pruned
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation, Steps


class Upkeep:
    """What an operator, or a cron job of theirs, calls now and then."""

    _context: Context
    _kind: str

    def prune(self, dataset: str, *, retention: Retention | None = None) -> Operation[Pruned]:
        """Apply retention now: hide what is past its bounds, and let go of all that can be let go of.

        `retention` is the store's own unless given. Publishing does the same a little at a time; this is
        for bounds that have become tighter, and for datasets that nobody publishes to. Raises `NotFound`
        when nothing is published.
        """
        with about(dataset) as name:
            if retention is not None and not isinstance(retention, Retention):
                raise InvalidInput(f"retention must be a Retention, not {type(retention).__name__}")
            return (yield from prune.prune(self._context, name, prune.limits(self._context, retention)))

    def doctor(self) -> Operation[list[Check]]:
        """Ask the server, or look at the file, for what could break the promise, and say what to do.

        Writes nothing. What a server does not say is `unknown`. A SQLite file that cannot be opened or
        written is a problem among the checks; a server that cannot be reached raises `Unavailable`.
        """
        from swapstore.doctor.diagnose import diagnose  # noqa: PLC0415 - for who looks after a store

        return (yield from diagnose(self._context, self._kind))

    def verify(
        self, dataset: str | None = None, *, on_progress: Callable[[Progress], None] | None = None
    ) -> Steps[Finding]:
        """Compare all that is stored with what the manifests say, and iterate over what is found.

        Of one dataset, or of all that the namespace holds any key of. It reads every payload, a few MB at a
        time, and writes nothing. Findings that are not `wrong` are no damage: orphans expire by themselves.
        `on_progress` is called after each step. Producers may go on meanwhile; a dataset that is reset or
        repaired meanwhile raises `Contended`.
        """
        if dataset is None:
            return self._inspection(None, on_progress)
        with about(dataset) as name:
            return Named(name, self._inspection(name, on_progress))

    def repair(self, dataset: str | None = None, *, apply: bool = False) -> Operation[list[Repair]]:
        """Mend what `verify` finds wrong, in one dataset or in all; without `apply`, say what that would do.

        A lost or damaged manifest or page is rebuilt from the committed records, in a new epoch. Snapshots
        whose payload is gone are dropped, and named. Records that should be permanent become so, and what
        is permanent without reason expires in a day. Producers may go on meanwhile: it commits as they do.
        Returns a report for each dataset in which something was wrong.

        Raises `Contended` when others repair or reset the dataset again and again.
        """
        from swapstore.fsck import repair  # noqa: PLC0415 - for who looks after a store

        if dataset is None:
            names = yield from self._wrong()
        else:
            names = [checks.dataset(dataset)]
        reports = []
        for each in names:
            with about(each) as name:
                repairing = repair.repair(self._context, name, apply=apply)
                reports += [(yield from telling.repair(self._context, repairing))]
        return [report for report in reports if report.findings]

    def _wrong(self) -> Operation[list[str]]:
        """The datasets in which something is wrong."""
        inspection, wrong = self._inspection(None, None), set[str]()
        while (found := (yield from inspection.step())) is not None:
            wrong |= {finding.dataset for finding in found if finding.wrong}
        return sorted(wrong)

    def _inspection(self, dataset: str | None, on_progress: Callable[[Progress], None] | None) -> Inspection:
        from swapstore.fsck.verify import Inspection  # noqa: PLC0415 - for who looks after a store

        return Inspection(self._context, dataset, on_progress=on_progress)
