"""`swapstore pin`, `unpin`, `rollback` and `confirm`: an operator's swaps, and the status after."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from swapstore.cli.arguments import Dataset
from swapstore.cli.session import Here
from swapstore.cli.status import print_status

Id = Annotated[str, Parameter(name="--id", help="The snapshot's id; `swapstore history` lists them.")]


def pin(dataset: Dataset, /, *, snapshot_id: Id, session: Here) -> None:
    """Serve this snapshot to every reader of the latest, until unpin.

    Publishing goes on behind it. Prints the status.
    """
    with session.connect() as store:
        print_status(session, store.pin(dataset, id=snapshot_id))


def unpin(dataset: Dataset, /, *, session: Here) -> None:
    """Serve the latest snapshot again.

    Harmless when nothing is pinned. Prints the status.
    """
    with session.connect() as store:
        print_status(session, store.unpin(dataset))


def rollback(dataset: Dataset, /, *, snapshot_id: Id, session: Here) -> None:
    """Make this snapshot the latest, until a publish that is not older than it.

    Snapshots after it stay in the history. Prints the status.
    """
    with session.connect() as store:
        print_status(session, store.rollback(dataset, id=snapshot_id))


def confirm(dataset: Dataset, /, *, session: Here) -> None:
    """Note that the producer ran and found nothing new: the data stays, and is known to be current.

    Prints the status.
    """
    with session.connect() as store:
        print_status(session, store.confirm(dataset))
