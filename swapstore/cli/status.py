"""`swapstore history` and `datasets`: what there is. And how a status is printed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from cyclopts import Parameter

from swapstore.cli import human
from swapstore.cli.arguments import Dataset, to_whole
from swapstore.cli.complaint import complain
from swapstore.cli.output import emit_json, fields_of
from swapstore.cli.session import Here, Session, status_of
from swapstore.errors import Damaged, NotFound
from swapstore.models import Row, Status
from swapstore.store import Store

ROWS_FOR_A_PERSON = 50
ID_WIDTH = 36  # an id that swapstore made


def history(
    dataset: Dataset,
    /,
    *,
    limit: Annotated[
        int | None,
        Parameter(
            converter=to_whole,
            help=f"How many. Unless given: all when piped, {ROWS_FOR_A_PERSON} on a terminal.",
        ),
    ] = None,
    before: Annotated[int | None, Parameter(converter=to_whole, help="Begin below this version.")] = None,
    session: Here,
) -> None:
    """List the committed snapshots, newest commit first.

    When piped, a line of JSON each, as they are read.
    """
    with session.connect() as store:
        if limit is None and session.for_a_person:
            limit = ROWS_FOR_A_PERSON
        rows = store.history(dataset, limit=limit, before=before)
        status = status_of(store, dataset)
        if session.for_a_person:
            _show_history(session, status, list(rows))
        else:
            for row in rows:
                emit_json(row)


def datasets(*, session: Here) -> None:
    """List the datasets that have something published, and how each is.

    When piped, a line of JSON each: what `swapstore status` prints.
    """
    for _ in each_dataset(session):
        pass


def each_dataset(session: Session) -> Iterator[Status]:
    """List the datasets, and give the status of each to the caller as well.

    A damaged one is said, and hides none of the others: `Damaged` is raised after them.
    """
    with session.connect() as store:
        names = store.datasets()
        if not names:
            raise NotFound(f"nothing is published in {store.where}, namespace {store.namespace!r}")
        damaged: list[str] = []
        statuses = _statuses(store, names, damaged)
        if session.for_a_person:
            listed = list(statuses)
            _show_datasets(listed)
            yield from listed
        else:
            for status in statuses:
                emit_json(as_json(status))
                yield status
    if damaged:
        raise Damaged(f"{len(damaged)} of {len(names)} datasets cannot be read: {', '.join(damaged)}")


def as_json(status: Status) -> dict[str, Any]:
    """A status as JSON, with what is computed from it."""
    computed = {"bytes": status.bytes, "age_ms": status.age_ms, "confirmed_age_ms": status.confirmed_age_ms}
    return {**fields_of(status), "serving": fields_of(status.serving), **computed}


def print_status(session: Session, status: Status) -> None:
    """Print a status, the way every command that returns one does."""
    if not session.for_a_person:
        emit_json(as_json(status))
        return
    from swapstore.cli.tables import show_facts  # noqa: PLC0415 - only a person waits for rich

    pinned, latest = status.pinned, status.latest
    show_facts(
        {
            "dataset": status.dataset,
            "version": str(status.version),
            "etag": status.etag,
            "history": f"from version {status.first_version}",
            "in the log": f"{_snapshots(status.count)} (hidden ones too, until they are let go of)",
            "latest": _named(latest),
            "pinned": f"{_named(pinned)}: served instead of the latest" if pinned else "no",
            "size": f"{status.bytes:,} bytes",
            "data as of": _moment(status, status.serving.ts),
            "confirmed at": _moment(status, status.confirmed_at),
            "committed at": _moment(status, status.committed_at),
        }
    )


def _moment(status: Status, ts_ms: int) -> str:
    return f"{human.instant(ts_ms)} ({human.age(ts_ms, status.read_at)})"


def _snapshots(count: int) -> str:
    return "1 snapshot" if count == 1 else f"{count:,} snapshots"


def _named(row: Row) -> str:
    return f"version {row.version}, id {row.id}"


def _statuses(store: Store, names: Iterable[str], damaged: list[str]) -> Iterator[Status]:
    """Read each status. One that is damaged is said and noted, and hides none of the others."""
    for name in names:
        try:
            found = store.status(name)
        except Damaged as error:
            complain(str(error))
            damaged.append(name)
        else:
            if found is not None:
                yield found


def _show_datasets(statuses: Iterable[Status]) -> None:
    from swapstore.cli.tables import show_rows  # noqa: PLC0415 - only a person waits for rich

    show_rows(
        ("dataset", "version", "in the log", "size", "data", "confirmed", ""),
        (
            (
                status.dataset,
                str(status.version),
                f"{status.count:,}",
                human.size(status.bytes),
                human.age(status.serving.ts, status.read_at),
                human.age(status.confirmed_at, status.read_at),
                "pinned" if status.pinned else "",
            )
            for status in statuses
        ),
        numbers=("version", "in the log", "size"),
    )


def _show_history(session: Session, status: Status, rows: list[Row]) -> None:
    from swapstore.cli.tables import say, show_rows, suggest  # noqa: PLC0415 - only a person waits for rich

    show_rows(
        ("version", "ts", "id, labels", "size", "committed at"),
        (
            (
                f"{row.version}{_marks(status, row)}",
                human.instant(row.ts, separator=" "),
                f"{row.id}\n{human.labels(row.labels)}".rstrip(),
                human.size(row.size),
                human.instant(row.committed_at, separator=" "),
            )
            for row in rows
        ),
        numbers=("version", "size"),
        widths={"id, labels": max((min(len(row.id), ID_WIDTH) for row in rows), default=ID_WIDTH)},
    )
    if rows and rows[-1].version > status.first_version:
        older = session.hint("history", status.dataset, "--before", str(rows[-1].version))
        say("Older ones:")
        suggest(older)


def _marks(status: Status, row: Row) -> str:
    latest = "\nlatest" if row.version == status.latest.version else ""
    return f"{latest}\npinned" if status.pinned and row.version == status.pinned.version else latest
