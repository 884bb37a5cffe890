"""What a reader runs: `swapstore latest`, `read`, `history` and `follow`."""

from __future__ import annotations

import select
import shlex
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated

import attrs
import msgspec
from cyclopts import Parameter

from swapstore import documents, figures
from swapstore.cli import output
from swapstore.cli.arguments import Dataset, Moment, Version, labels_of, to_moment, to_whole
from swapstore.cli.session import CurrentSession, Session
from swapstore.cli.status import nothing_published, status_of
from swapstore.errors import InvalidInput, NotFound, StoreClosed
from swapstore.models import GROUP, Gap, Group, Row, Snapshot, Status
from swapstore.store import Store

ROWS_ON_A_TERMINAL = 50
MOST_NAMES = 200  # characters of the names of members that are listed
UUID_WIDTH = 36  # of the ids that swapstore makes
COMMITTED_FIRST = 100  # versions at the beginning of the history, among which its oldest snapshot is searched

Meta = Annotated[
    bool, Parameter(negative="", show_default=False, help="Print the metadata instead of the payload.")
]

Members = Annotated[
    list[str] | None,
    Parameter(name="--member", negative="", help="Of a group, print only this member; may be repeated."),
]


# --- one snapshot ----------------------------------------------------------------------------------


def latest(
    dataset: Dataset, /, *, member: Members = None, meta: Meta = False, session: CurrentSession
) -> None:
    """Print the snapshot that is served: the pinned one, otherwise the latest.

    When piped: the payload, byte for byte; of a group, its members by name.

    For example:
      swapstore latest mena > mena.json
      swapstore latest portwatch --member EG > eg.json
      swapstore latest mena --meta
    """
    with session.connect() as store:
        snapshot = (
            store.read_group(dataset, members=dict.fromkeys(member)) if member else store.read_latest(dataset)
        )
        if snapshot is None:
            raise nothing_published(store, dataset)
        pinned = session.human_readable and status_of(store, dataset).pinned is not None
    _print(session, snapshot, member, meta=meta, pinned=pinned)


def read(
    dataset: Dataset,
    /,
    *,
    snapshot_id: Annotated[str | None, Parameter(name="--id", help="The snapshot with this id.")] = None,
    version: Version = None,
    as_of: Annotated[
        Moment | None,
        Parameter(
            converter=to_moment,
            help="The snapshot with the greatest ts up to this time: ms since 1970, or ISO 8601 with an "
            "offset.",
        ),
    ] = None,
    member: Members = None,
    meta: Meta = False,
    session: CurrentSession,
) -> None:
    """Print one snapshot of the history, selected by --id, --version or --as-of.

    When piped: the payload, byte for byte.

    For example:
      swapstore read mena --version 41
      swapstore read mena --as-of 2026-01-31T18:00:00Z
    """
    given = {"--id": snapshot_id, "--version": version, "--as-of": as_of}
    selectors = [f"{option} {_typed(value)}" for option, value in given.items() if value is not None]
    if len(selectors) != 1:
        raise InvalidInput("read takes exactly one of --id, --version and --as-of")
    with session.connect() as store:
        snapshot = store.read(dataset, id=snapshot_id, version=version, as_of=as_of)
        if snapshot is None:
            status = status_of(store, dataset)
            begins = "" if as_of is None else _begins(store, status)
            raise no_match(session, store, dataset, selectors[0], begins)
    _print(session, _with_members(snapshot, member), member, meta=meta)


def _with_members(snapshot: Snapshot, names: Sequence[str] | None) -> Snapshot:
    """Leave the other members of a group out. Raises `NotFound` for one that it does not have."""
    if not names:
        return snapshot
    if not isinstance(snapshot, Group):
        raise InvalidInput(
            f"version {snapshot.version} is a single snapshot and no group; leave --member out"
        )
    missing = next((name for name in names if name not in snapshot.members), None)
    if missing is not None:
        raise NotFound(
            f"version {snapshot.version} has no member {missing!r}; it has {len(snapshot)} others",
            dataset=snapshot.dataset,
        )
    return attrs.evolve(snapshot, members={name: snapshot[name] for name in names})


def no_match(session: Session, store: Store, dataset: str, selector: str, begins: str = "") -> NotFound:
    """Return the error for a snapshot that does not exist."""
    listing = session.command_line("history", dataset)
    place = f"{store.where}, namespace {store.namespace!r}"
    return NotFound(
        f"no snapshot matches {selector} in {place}{begins}; `{listing}` lists those that exist",
        dataset=dataset,
    )


def _typed(value: str | Moment) -> str:
    """Return a value as it can be typed again."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _begins(store: Store, status: Status) -> str:
    """Say where the history begins: with the oldest of the snapshots that were committed first."""
    first = store.history(status.dataset, before=status.first_version + COMMITTED_FIRST)
    oldest = min(first, key=lambda row: row.ts, default=None)
    if oldest is None:
        return ""
    return f": the history begins at {figures.instant(oldest.ts)}, with version {oldest.version}"


def _print(
    session: Session, snapshot: Snapshot, names: Sequence[str] | None, *, meta: bool, pinned: bool = False
) -> None:
    """Print a snapshot. `names`: only these members of a group were asked for."""
    if session.human_readable:
        _print_facts(snapshot, pinned=pinned)
        if not meta:
            words = [word for name in names or () for word in ("--member", name)]
            version = ("--version", str(snapshot.version))
            command = session.command_line("read", snapshot.dataset, *version, *words)
            payload, codec = _content(snapshot, names)
            output.print_payload(payload, codec, command=command)
    elif meta:
        output.write_json(documents.snapshot(snapshot))
    else:
        payload, codec = _content(snapshot, names)
        if codec == GROUP:
            name = next(name for name, each in snapshot.members.items() if each.codec != "json")
            raise InvalidInput(
                f"version {snapshot.version} is a group, and its member {name!r} is not JSON, so its members "
                f"cannot be printed as one document. Name one: --member {name}",
                dataset=snapshot.dataset,
            )
        output.write(payload)


def _content(snapshot: Snapshot, names: Sequence[str] | None) -> tuple[bytes, str]:
    """Return what there is to print of a snapshot, and its codec.

    Of a group: the one member that was asked for, or a document of its members by name. If they are not JSON,
    there is no such document, and the codec is `group`.
    """
    if not isinstance(snapshot, Group):
        return snapshot.raw, snapshot.codec
    if names and len(snapshot) == 1:
        return snapshot[names[0]].raw, snapshot[names[0]].codec
    if any(each.codec != "json" for each in snapshot.members.values()):
        return b"", GROUP
    document = {name: msgspec.Raw(each.raw.strip()) for name, each in snapshot.members.items()}
    return msgspec.json.encode(document) + b"\n", "json"


def _print_facts(snapshot: Snapshot, *, pinned: bool) -> None:
    output.print_facts(
        {
            "dataset": snapshot.dataset,
            "id": snapshot.id,
            "ts": f"{figures.instant(snapshot.ts)} ({figures.age(snapshot.ts)})",
            "version": f"{snapshot.version}{' (pinned)' if pinned else ''}",
            "etag": snapshot.etag,
            "size": f"{_size(snapshot):,} bytes",
            "codec": snapshot.codec,
            **_members(snapshot),
            "labels": figures.labels(snapshot.labels),
            "committed at": figures.instant(snapshot.committed_at),
        }
    )


def _size(snapshot: Snapshot) -> int:
    """Return how many bytes there are to print; of a group, those of its members."""
    return sum(each.size for each in snapshot.members.values()) if snapshot.members else snapshot.size


def _members(snapshot: Snapshot) -> dict[str, str]:
    if not snapshot.members:
        return {}
    count, names = f"{len(snapshot.members):,}", ", ".join(snapshot.members)
    return {"members": f"{count}: {names}" if len(names) <= MOST_NAMES else count}


# --- the history -----------------------------------------------------------------------------------


def history(
    dataset: Dataset,
    /,
    *,
    limit: Annotated[
        int | None,
        Parameter(
            converter=to_whole,
            help=f"How many to list. Default: all when piped, {ROWS_ON_A_TERMINAL} on a terminal.",
        ),
    ] = None,
    before: Annotated[
        int | None, Parameter(converter=to_whole, help="List only versions below this one.")
    ] = None,
    label: Annotated[
        list[str] | None,
        Parameter(negative="", help="KEY=VALUE: list only those with this label; may be repeated."),
    ] = None,
    since: Annotated[
        Moment | None,
        Parameter(
            converter=to_moment,
            help="List only those with this ts or a later one: ms since 1970, or ISO 8601 with an offset.",
        ),
    ] = None,
    until: Annotated[
        Moment | None, Parameter(converter=to_moment, help="List only those with an earlier ts.")
    ] = None,
    session: CurrentSession,
) -> None:
    """List the committed snapshots, newest commit first.

    When piped: a line of JSON each, printed as they are read.

    For example:
      swapstore history mena
      swapstore history mena --limit 10 --before 41
      swapstore history mena --label trigger=hourly --since 2026-01-31T00:00:00Z
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"--limit must be 1 or more, not {limit}")
    with session.connect() as store:
        if limit is None and session.human_readable:
            limit = ROWS_ON_A_TERMINAL
        rows = store.history(
            dataset, limit=limit, before=before, label=labels_of(label), since=since, until=until
        )
        status = status_of(store, dataset)
        if session.human_readable and limit is not None:
            _print_history(session, status, list(rows), limit, _asked(label, since, until))
        else:
            for row in rows:
                output.write_json(row)


def _asked(label: list[str] | None, since: Moment | None, until: Moment | None) -> list[str]:
    """Return the options that say which snapshots to list, as they can be typed again."""
    options = [("--label", pair) for pair in label or ()]
    options += [("--since", _typed(since))] if since is not None else []
    options += [("--until", _typed(until))] if until is not None else []
    return [word for option in options for word in option]


def _print_history(session: Session, status: Status, rows: list[Row], limit: int, asked: list[str]) -> None:
    if not rows:
        what = f"no snapshot with {shlex.join(asked)}" if asked else "no snapshot to list"
        output.print_text(f"{status.dataset}: {what}; the newest is version {status.latest.version}.")
        return
    output.print_table(
        ("version", "ts", "id, labels", "size", "committed at"),
        (
            (
                f"{row.version}{_marks(status, row)}",
                figures.instant(row.ts, separator=" "),
                f"{row.id}\n{figures.labels(row.labels)}".rstrip(),
                figures.size(row.size),
                figures.instant(row.committed_at, separator=" "),
            )
            for row in rows
        ),
        numbers=("version", "size"),
        widths={"id, labels": max(len("id, labels"), *(min(len(row.id), UUID_WIDTH) for row in rows))},
    )
    if len(rows) == limit and rows[-1].version > status.first_version:
        older = ("--before", str(rows[-1].version))
        output.print_text("To list older ones:")
        output.print_commands(session.command_line("history", status.dataset, *asked, *older))


def _marks(status: Status, row: Row) -> str:
    latest = "\nlatest" if row.version == status.latest.version else ""
    return f"{latest}\npinned" if status.pinned and row.version == status.pinned.version else latest


# --- following -------------------------------------------------------------------------------------


def follow(
    dataset: Dataset,
    /,
    *,
    after: Annotated[
        int | None,
        Parameter(
            converter=to_whole,
            help="Begin after this version; 0: with the oldest snapshot. Default: with the next commit.",
        ),
    ] = None,
    session: CurrentSession,
) -> None:
    """Print every commit as it happens, in order, until Ctrl-C.

    When piped: a line of JSON each, at once; {"gap": …} where commits are missing.

    For example:
      swapstore follow mena
      swapstore follow mena --after 0
    """
    with session.connect() as store:
        commits = store.follow(dataset, after=after)
        reader_gone = _watch_reader(store)
        with suppress(StoreClosed):  # the watching thread may close the store before the first commit
            for each in commits:
                if session.human_readable:
                    print(_line(each), flush=True)
                else:
                    output.write_json({"gap": attrs.asdict(each)} if isinstance(each, Gap) else each)
        if reader_gone.is_set():
            raise BrokenPipeError


def _watch_reader(store: Store) -> threading.Event:
    """Close the store once the pipe at stdout has no reader. The event is set then.

    Only a write would notice it otherwise, and the next commit may be a day away.
    """
    gone = threading.Event()

    def watch() -> None:
        with suppress(OSError, ValueError):
            poll = select.poll()
            poll.register(sys.stdout.fileno(), 0)  # no event but the end, which is always reported
            poll.poll()
            gone.set()
            store.close()

    if hasattr(select, "poll"):
        threading.Thread(target=watch, daemon=True).start()
    return gone


def _line(each: Row | Gap) -> str:
    if isinstance(each, Gap):
        if each.reason == "reset":
            return (
                f"gap: version {each.after} does not exist, or not any more; "
                f"continuing at version {each.resumes_at}"
            )
        return f"gap: the commits between version {each.after} and {each.resumes_at} are not kept any more"
    words = [
        figures.instant(each.committed_at),
        f"version {each.version}",
        f"id {each.id}",
        figures.size(each.size),
        figures.labels(each.labels),
    ]
    return output.printable("  ".join(words).rstrip())
