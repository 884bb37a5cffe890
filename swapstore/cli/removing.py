"""`swapstore erase` and `swapstore drop`: what cannot be undone, so both ask before they do it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from swapstore import figures
from swapstore.cli import output
from swapstore.cli.arguments import Dataset, SnapshotId, Version
from swapstore.cli.session import CurrentSession
from swapstore.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swapstore.cli.session import Session
    from swapstore.reports import Dropped, Erased
    from swapstore.store import Store

Yes = Annotated[bool, Parameter(negative="", show_default=False, help="Do not ask.")]


def erase(
    dataset: Dataset,
    /,
    *,
    snapshot_id: SnapshotId = None,
    version: Version = None,
    force: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Even if it is the latest, or pinned."),
    ] = False,
    yes: Yes = False,
    session: CurrentSession,
) -> None:
    """Remove one snapshot for good, and every copy of it in the store.

    Takes --id or --version. Versions of the others stay. It can be stopped at
    any time, and run again. Asks first, unless --yes.

    For example:
      swapstore erase mena --version 41
    """
    if (snapshot_id is None) == (version is None):
        raise InvalidInput("name the snapshot by exactly one of --id and --version; see swapstore history")
    which = f"version {version}" if snapshot_id is None else f"id {output.printable(snapshot_id)}"
    with session.connect() as store:
        _ask(f"Erase {which} of {dataset} in {store.where} for good?", yes=yes)
        done = store.erase(dataset, id=snapshot_id, version=version, force=force)
        session.say_where(store)
    if session.human_readable:
        _print_erased(done)
    else:
        output.write_json(done)


def _print_erased(done: Erased) -> None:
    what = f"version {done.version}" if done.version is not None else f"id {output.printable(done.id or '')}"
    anew = f"; stored {figures.count(done.stored_anew, 'other')} anew" if done.stored_anew else ""
    output.print_text(f"{done.dataset}: {what} is erased{anew}. The latest is version {done.latest}.")


def drop(dataset: Dataset, /, *, yes: Yes = False, session: CurrentSession) -> None:
    """Remove a dataset: at once for readers, then all of its keys.

    It can be stopped at any time, and run again, unless something was published
    since. Asks first, unless --yes.

    For example:
      swapstore drop mena
    """
    with session.connect() as store:
        status = store.status(dataset)
        many = f", {figures.count(status.count, 'snapshot')}," if status else ""
        _ask(f"Drop {dataset}{many} from {store.where} for good?", yes=yes)
        with _progress(session, store, dataset) as on_progress:
            done = store.drop(dataset, on_progress=on_progress)
        session.say_where(store)
    if session.human_readable:
        _print_dropped(done)
    else:
        output.write_json(done)


def _print_dropped(done: Dropped) -> None:
    since = " Somebody has published to it since; that stays." if done.republished else ""
    output.print_text(f"{done.dataset}: dropped, {figures.count(done.snapshots, 'snapshot')} removed.{since}")


@contextmanager
def _progress(session: Session, store: Store, dataset: str) -> Iterator[Callable[[int], None] | None]:
    """Say on stderr how much is left, where somebody watches it."""
    if not session.shows_progress:
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - its import takes time

    with Console(stderr=True).status(f"dropping {output.printable(dataset)}") as status:
        yield lambda left: status.update(f"{figures.count(left, 'snapshot')} left in {store.where}")


def _ask(question: str, *, yes: bool) -> None:
    """Ask on the terminal. Raises `InvalidInput` if the answer is not yes, or if nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput("this cannot be undone, and there is no terminal to ask on; give --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise InvalidInput("nothing was changed")
