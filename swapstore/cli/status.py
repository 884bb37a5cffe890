"""`swapstore status` and `swapstore datasets`, and the status that other commands print."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Annotated

from cyclopts import Parameter

from swapstore import arguments, documents, figures
from swapstore.cli import ExitCode, output
from swapstore.cli.arguments import to_duration
from swapstore.cli.session import CurrentSession, Session
from swapstore.errors import Damaged, NotFound
from swapstore.models import Row, Status
from swapstore.store import Store

OneOrAll = Annotated[
    str | None,
    Parameter(help="The dataset's name. Default: every dataset that has something published."),
]


def status(
    dataset: OneOrAll = None,
    /,
    *,
    max_age: Annotated[
        timedelta | None,
        Parameter(
            converter=to_duration,
            help="Exit with 6 if no producer published or confirmed within this time: 90d, 12h, 30m, 45s; "
            "also if it seems to have done so in the future, because two clocks disagree.",
        ),
    ] = None,
    session: CurrentSession,
) -> ExitCode:
    """Print the status: the versions, what is served, and how old that is.

    With --max-age, check whether the producer still runs. The exit code is 6
    if it last published or confirmed longer ago, 1 if nothing is published,
    4 if the store is unavailable. The age of the data, by its ts, has no effect.

    For example:
      swapstore status
      swapstore status mena --max-age 12h
    """
    statuses = _each_status(session) if dataset is None else _one_status(session, dataset)
    stale = [each.dataset for each in statuses if _is_stale(each, max_age)]
    return ExitCode.STALE if stale else ExitCode.DONE  # a damaged dataset has raised by now: 5 outweighs 6


def datasets(*, session: CurrentSession) -> None:
    """List the datasets that have something published, with their status.

    When piped: a line of JSON each, as `swapstore status` prints it.

    For example:
      swapstore datasets --namespace staging
    """
    for _ in _each_status(session):
        pass


# --- used by other commands ------------------------------------------------------------------------


def status_of(store: Store, dataset: str) -> Status:
    """Return the dataset's status; `NotFound` when nothing is published."""
    found = store.status(dataset)
    if found is None:
        raise nothing_published(store, dataset)
    return found


def nothing_published(store: Store, dataset: str | None = None) -> NotFound:
    """Return the error for an empty dataset or namespace. It names the store: often it is the wrong one."""
    kind, _, path = store.where.partition(" ")
    missing = "; that file does not exist" if kind == "sqlite" and not os.path.exists(path) else ""  # noqa: PTH110
    place = f"{store.where}, namespace {store.namespace!r}{missing}"
    return NotFound(f"nothing is published in {place}", dataset=dataset)


def print_status(session: Session, status: Status) -> None:
    """Print a status as every command that returns one does."""
    if not session.human_readable:
        output.write_json(documents.status(status))
        return
    pinned, in_the_log = status.pinned, figures.count(status.count, "snapshot")
    counted = arguments.count_in(status.serving.labels)
    output.print_facts(
        {
            "dataset": status.dataset,
            "version": str(status.version),
            "etag": status.etag,
            "history": f"from version {status.first_version}",
            "in the log": f"{in_the_log} (hidden ones too, until they are unlinked)",
            "latest": _row(status.latest),
            "pinned": f"{_row(pinned)}: served instead of the latest" if pinned else "no",
            **({} if counted is None else {"count": f"{counted:,}, as its producer counted"}),
            "size": f"{status.bytes:,} bytes",
            "data as of": _time(status, status.serving.ts),
            "confirmed at": _time(status, status.confirmed_at),
            "committed at": _time(status, status.committed_at),
        }
    )


def _row(row: Row) -> str:
    return f"version {row.version}, id {row.id}"


def _time(status: Status, ts_ms: int) -> str:
    return f"{figures.instant(ts_ms)} ({figures.age(ts_ms, status.read_at)})"


# --- one dataset, or all ---------------------------------------------------------------------------


def _one_status(session: Session, dataset: str) -> Iterator[Status]:
    with session.connect() as store:
        found = status_of(store, dataset)
    print_status(session, found)
    yield found


def _each_status(session: Session) -> Iterator[Status]:
    """Print and yield the status of each dataset.

    A damaged dataset is reported on stderr and does not hide the others: `Damaged` is raised after them.
    """
    with session.connect() as store:
        names = store.datasets()
        if not names:
            raise nothing_published(store)
        damaged: list[str] = []
        statuses = _readable(store, names, damaged)
        if session.human_readable:
            listed = list(statuses)
            _print_statuses(listed)
            yield from listed
        else:
            for each in statuses:
                output.write_json(documents.status(each))
                yield each
    if damaged:
        raise Damaged(f"{len(damaged)} of {len(names)} datasets cannot be read: {', '.join(damaged)}")


def _readable(store: Store, names: Iterable[str], damaged: list[str]) -> Iterator[Status]:
    """Yield each status that can be read. Report the others, and append their names to `damaged`."""
    for name in names:
        try:
            found = store.status(name)
        except Damaged as error:
            output.complain(str(error))
            damaged.append(name)
        else:
            if found is not None:
                yield found


def _print_statuses(statuses: Iterable[Status]) -> None:
    output.print_table(
        ("dataset", "version", "in the log", "size", "data", "confirmed", ""),
        (
            (
                each.dataset,
                str(each.version),
                f"{each.count:,}",
                figures.size(each.bytes),
                figures.age(each.serving.ts, each.read_at),
                figures.age(each.confirmed_at, each.read_at),
                "pinned" if each.pinned else "",
            )
            for each in statuses
        ),
        numbers=("version", "in the log", "size"),
    )


def _is_stale(status: Status, max_age: timedelta | None) -> bool:
    """Return whether the producer is overdue, or nobody can tell. Report it on stderr."""
    from swapstore.health import Bound, judged  # noqa: PLC0415 - few commands need it

    found = judged(status.dataset, status, Bound(max_age=max_age))
    if found.ok:
        return False
    output.complain(f"dataset {status.dataset!r}: {found.reason}")
    return True
