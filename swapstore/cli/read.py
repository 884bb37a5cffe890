"""`swapstore latest` and `swapstore read`: a payload, byte for byte, or what a person wants to know of it."""

from __future__ import annotations

from typing import Annotated

import attrs
from cyclopts import Parameter

from swapstore.cli import human
from swapstore.cli.arguments import Dataset, Moment, to_moment, to_whole
from swapstore.cli.output import emit, emit_json
from swapstore.cli.session import Here, Session, nothing_published, status_of
from swapstore.errors import InvalidInput, NotFound
from swapstore.models import Snapshot

Meta = Annotated[
    bool,
    Parameter(
        negative="", show_default=False, help="Print what is known of the snapshot, without its payload."
    ),
]


def latest(dataset: Dataset, /, *, meta: Meta = False, session: Here) -> None:
    """Print the snapshot that is served: the pinned one, or else the latest.

    When piped, the payload, byte for byte.
    """
    with session.connect() as store:
        snapshot = store.read_latest(dataset)
        if snapshot is None:
            raise nothing_published(store, dataset)
        pinned = session.for_a_person and status_of(store, dataset).pinned is not None
    _print(session, snapshot, meta=meta, pinned=pinned)


def read(
    dataset: Dataset,
    /,
    *,
    snapshot_id: Annotated[str | None, Parameter(name="--id", help="The snapshot with this id.")] = None,
    version: Annotated[
        int | None, Parameter(converter=to_whole, help="The snapshot that this version committed.")
    ] = None,
    as_of: Annotated[
        Moment | None,
        Parameter(
            converter=to_moment,
            help="The newest snapshot up to this moment: ms since 1970, or ISO 8601 with an offset.",
        ),
    ] = None,
    meta: Meta = False,
    session: Here,
) -> None:
    """Print one snapshot of the history, named by --id, --version or --as-of.

    When piped, the payload, byte for byte.
    """
    given = {"--id": snapshot_id, "--version": version, "--as-of": as_of}
    named = [f"{option} {value}" for option, value in given.items() if value is not None]
    if len(named) != 1:
        raise InvalidInput("read takes exactly one of --id, --version and --as-of")
    with session.connect() as store:
        snapshot = store.read(dataset, id=snapshot_id, version=version, as_of=as_of)
        if snapshot is None:
            status_of(store, dataset)
            listing = session.hint("history", dataset)
            raise NotFound(
                f"no snapshot matches {named[0]}; `{listing}` lists those there are",
                dataset=dataset,
            )
    _print(session, snapshot, meta=meta)


def _print(session: Session, snapshot: Snapshot, *, meta: bool, pinned: bool = False) -> None:
    if session.for_a_person:
        _show(session, snapshot, meta=meta, pinned=pinned)
    elif meta:
        emit_json(attrs.asdict(snapshot, filter=lambda field, _: field.name != "raw"))
    else:
        emit(snapshot.raw)


def _show(session: Session, snapshot: Snapshot, *, meta: bool, pinned: bool) -> None:
    from swapstore.cli.preview import show_payload  # noqa: PLC0415 - only a person waits for rich
    from swapstore.cli.tables import show_facts  # noqa: PLC0415

    show_facts(
        {
            "dataset": snapshot.dataset,
            "id": snapshot.id,
            "ts": f"{human.instant(snapshot.ts)} ({human.age(snapshot.ts)})",
            "version": f"{snapshot.version}{' (pinned)' if pinned else ''}",
            "etag": snapshot.etag,
            "size": f"{snapshot.size:,} bytes",
            "codec": snapshot.codec,
            "labels": human.labels(snapshot.labels),
            "committed at": human.instant(snapshot.committed_at),
        }
    )
    if not meta:
        show_payload(
            snapshot, how_to_get_it=session.hint("read", snapshot.dataset, "--version", str(snapshot.version))
        )
