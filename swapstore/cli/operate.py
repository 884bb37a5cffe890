"""What an operator runs: `pin`, `unpin`, `rollback`, `prune`, `recompress`, `backup`, `restore`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from swapstore import figures
from swapstore.cli import ExitCode, output
from swapstore.cli.arguments import Dataset, MaxAge, MaxCount, SnapshotId, Version, retention_of, to_whole
from swapstore.cli.session import CurrentSession
from swapstore.cli.status import print_status
from swapstore.doctor.check import Verdict
from swapstore.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.doctor.check import Check, Node
    from swapstore.reports import Pruned, Recompressed


# --- what is served --------------------------------------------------------------------------------


def pin(
    dataset: Dataset, /, *, snapshot_id: SnapshotId = None, version: Version = None, session: CurrentSession
) -> None:
    """Serve this snapshot to every reader of the latest, until unpin.

    Takes --id or --version. Publishing continues; readers get the new
    snapshots after unpin. Prints the status.

    For example:
      swapstore pin mena --version 41
    """
    with session.connect() as store:
        print_status(session, store.pin(dataset, **_one(snapshot_id, version)))
        session.say_where(store)


def unpin(dataset: Dataset, /, *, session: CurrentSession) -> None:
    """Serve the latest snapshot again.

    Does nothing when nothing is pinned. Prints the status.

    For example:
      swapstore unpin mena
    """
    with session.connect() as store:
        print_status(session, store.unpin(dataset))
        session.say_where(store)


def rollback(
    dataset: Dataset, /, *, snapshot_id: SnapshotId = None, version: Version = None, session: CurrentSession
) -> None:
    """Make this snapshot the latest, until a publish with the same or a later ts.

    Takes --id or --version. Snapshots after it stay in the history. Prints the
    status.

    For example:
      swapstore rollback mena --version 41
    """
    with session.connect() as store:
        print_status(session, store.rollback(dataset, **_one(snapshot_id, version)))
        session.say_where(store)


def _one(snapshot_id: str | None, version: int | None) -> dict[str, Any]:
    """Return the argument that names the snapshot."""
    if (snapshot_id is None) == (version is None):
        raise InvalidInput("name the snapshot by exactly one of --id and --version; see swapstore history")
    return {"version": version} if snapshot_id is None else {"id": snapshot_id}


# --- how much is kept ------------------------------------------------------------------------------


def prune(
    dataset: Dataset,
    /,
    *,
    max_age: MaxAge = None,
    max_count: MaxCount = None,
    session: CurrentSession,
) -> None:
    """Hide the snapshots past a bound at once, and unlink them.

    Takes at least one bound. The latest and the pinned snapshot stay, whatever
    their age. Pruning cannot be undone.

    For example:
      swapstore prune mena --max-count 30
      swapstore prune mena --max-age 90d
    """
    retention = retention_of(max_age, max_count)
    if retention is None:
        raise InvalidInput(
            "prune needs a bound: --max-count 30, --max-age 90d, or both. Nothing was pruned; status shows "
            "how much is kept"
        )
    with session.connect() as store:
        pruned = store.prune(dataset, retention=retention)
        session.say_where(store)
    if session.human_readable:
        _print_pruned(pruned)
    else:
        output.write_json(pruned)


def _print_pruned(pruned: Pruned) -> None:
    hidden = f"before version {pruned.first_version}"
    if pruned.floor:
        hidden += f", or with a ts before {figures.instant(pruned.floor)},"
    unlinked = figures.count(pruned.let_go, "snapshot")
    output.print_text(f"{pruned.dataset}: nothing {hidden} is in the history; unlinked {unlinked}.")


def recompress(
    dataset: Dataset,
    /,
    *,
    compression: Annotated[
        Literal["none", "zstd", "delta"],
        Parameter(help="Store them plain, with zstd, or as differences from a base."),
    ],
    limit: Annotated[
        int | None,
        Parameter(converter=to_whole, help="The most snapshots to store anew. Default: all."),
    ] = None,
    session: CurrentSession,
) -> None:
    """Store the existing snapshots in another way, beside producers and readers.

    Ids, versions and content stay. What does not get smaller with zstd or delta
    stays as it is. It can be stopped at any time, and run again. Producers take
    their own setting, from $SWAPSTORE_COMPRESSION.

    For example:
      swapstore recompress mena --compression delta
      swapstore recompress mena --compression delta --limit 10000
    """
    with session.connect() as store:
        done = store.recompress(dataset, compression=compression, limit=limit)
        session.say_where(store)
    if session.human_readable:
        _print_recompressed(done)
    else:
        output.write_json(done)


def _print_recompressed(done: Recompressed) -> None:
    if done.stored_anew:
        before, after = figures.size(done.bytes_before), figures.size(done.bytes_after)
        what = f"stored {figures.count(done.stored_anew, 'snapshot')} anew: {before} before, {after} now"
    else:
        what = "nothing to store anew"
    if done.left:
        what += f"; {done.left:,} left, run it again"
    if done.unreadable:
        what += f"; {done.unreadable:,} cannot be read, see swapstore verify {done.dataset}"
    output.print_text(f"{done.dataset}: {what}.")


# --- copies of a SQLite file -----------------------------------------------------------------------


def backup(
    file: Annotated[Path, Parameter(help="The new file. It must not exist.")], /, *, session: CurrentSession
) -> None:
    """Copy a SQLite store into a new file, beside producers and readers.

    cp would leave out what is in its -wal. The copy is a store itself:
    swapstore --url sqlite:///FILE status. Prints its path and size.

    For example:
      swapstore backup nightly.db
    """
    with session.connect() as store:
        size = store.backup(file)
    if session.human_readable:
        output.print_text(f"{file}: {figures.size(size)}, copied from {store.where}.")
    else:
        output.write_json({"file": str(file), "size": size})


def restore(
    file: Annotated[Path, Parameter(help="The backup.")],
    /,
    *,
    yes: Annotated[
        bool, Parameter(negative="", show_default=False, help="Replace a store that has datasets.")
    ] = False,
    session: CurrentSession,
) -> None:
    """Replace all that a SQLite store contains by a backup.

    Producers and readers may go on: they see everything as it was, or as it
    was backed up. What was published since the backup is gone.

    For example:
      swapstore restore nightly.db --yes
    """
    with session.connect() as store:
        names = store.datasets()
        if names and not yes:
            raise InvalidInput(
                f"{store.where} has {figures.count(len(names), 'dataset')}, and all of it would be replaced. "
                "Back it up first; then give --yes"
            )
        store.restore(file)
        session.say_where(store)
    if session.human_readable:
        output.print_text(f"{store.where}: as it was in {file}.")
    else:
        output.write_json({"store": store.where, "file": str(file)})


# --- whether the server is fit for it --------------------------------------------------------------


def doctor(*, session: CurrentSession) -> ExitCode:
    """Check the server, or the SQLite file, for what can lose or block a publish.

    Changes no data. A check is ok, a warning, a problem, or unknown, where only
    the store's operator can tell. The exit code is 7 if there is a problem.
    When piped: a line of JSON for each check.

    For example:
      swapstore doctor --url redis://localhost:6379/0
    """
    with session.connect() as store:
        checks = store.doctor()
    if session.human_readable:
        _print_checks(checks)
    else:
        for check in checks:
            output.write_json(check)
    problem = any(check.verdict is Verdict.PROBLEM for check in checks)
    return ExitCode.PROBLEM if problem else ExitCode.DONE


def _print_checks(checks: list[Check]) -> None:
    output.print_table(
        ("verdict", "what", "found, and what to do"),
        (
            (check.verdict, check.name, f"{check.found}\n→ {check.advice}" if check.advice else check.found)
            for check in checks
        ),
    )
    for check in checks:
        if check.nodes is not None and len(check.nodes) > 1:
            output.print_text()
            _print_nodes(check.nodes)


def _print_nodes(nodes: Sequence[Node]) -> None:
    """Print a table of servers, without the columns that are empty."""
    columns = {
        "server": [node.address for node in nodes],
        "role": [node.role for node in nodes],
        "link": [node.link for node in nodes],
        "behind": ["" if node.behind_bytes is None else figures.size(node.behind_bytes) for node in nodes],
        "heard": ["" if node.heard_s is None else f"{node.heard_s:,} s ago" for node in nodes],
        "slots": ["" if node.slots is None else f"{node.slots:,}" for node in nodes],
        "append-only": [{True: "yes", False: "no", None: ""}[node.append_only] for node in nodes],
        "version": [node.version or "" for node in nodes],
        "note": [node.note for node in nodes],
    }
    shown = {heading: cells for heading, cells in columns.items() if any(cells)}
    output.print_table([*shown], zip(*shown.values(), strict=True), numbers={"slots"})
