"""`swapstore prune`: less history, now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.cli import human
from swapstore.cli.arguments import Dataset, MaxAge, MaxCount, retention_of
from swapstore.cli.output import emit_json
from swapstore.cli.session import Here
from swapstore.errors import InvalidInput

if TYPE_CHECKING:
    from swapstore.models import Pruned


def prune(dataset: Dataset, /, *, max_age: MaxAge = None, max_count: MaxCount = None, session: Here) -> None:
    """Hide the snapshots that are past a bound, at once, and let go of them.

    At least one bound is needed. The latest and the pinned snapshot stay, whatever their age. There is no
    way back.
    """
    retention = retention_of(max_age, max_count)
    if retention is None:
        raise InvalidInput("prune needs a bound: --max-age, --max-count, or both")
    with session.connect() as store:
        pruned = store.prune(dataset, retention=retention)
    if session.for_a_person:
        _show(pruned)
    else:
        emit_json(pruned)


def _show(pruned: Pruned) -> None:
    from swapstore.cli.tables import say  # noqa: PLC0415 - only a person waits for rich

    hidden = f"before version {pruned.first_version}"
    if pruned.floor:
        hidden += f", or with a ts before {human.instant(pruned.floor)},"
    snapshots = "1 snapshot" if pruned.let_go == 1 else f"{pruned.let_go:,} snapshots"
    say(f"{pruned.dataset}: nothing {hidden} is in the history; let go of {snapshots}.")
