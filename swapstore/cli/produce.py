"""What a producer runs: `swapstore publish`, `publish-group`, `published` and `confirm`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import attrs
import msgspec
from cyclopts import Parameter

from swapstore import figures
from swapstore.cli import ExitCode, output
from swapstore.cli.arguments import (
    STDIN,
    Dataset,
    MaxAge,
    MaxCount,
    Moment,
    labels_of,
    pairs_of,
    retention_of,
    to_duration,
    to_moment,
    to_whole,
)
from swapstore.cli.session import CurrentSession, Session
from swapstore.cli.status import print_status
from swapstore.connect import DEFAULT_MAX_PAYLOAD
from swapstore.errors import InvalidInput, PayloadTooLarge, UnderReplicated
from swapstore.models import Commit, Durability
from swapstore.store import Store

Kind = Annotated[
    Literal["json", "bytes"],
    Parameter(name="--codec", help="json: the text is checked and stored byte for byte. bytes: anything."),
]
NewId = Annotated[
    str | None,
    Parameter(
        name="--id",
        help="The snapshot's id. Same id and content: no-op, so a retry is safe. Other content: exit "
        "code 3. Default: a new UUIDv7.",
    ),
]
Ts = Annotated[
    Moment | None,
    Parameter(
        converter=to_moment,
        help="The time that the data describes: ms since 1970, or ISO 8601 with an offset. Default: now.",
    ),
]
Labels = Annotated[
    list[str] | None,
    Parameter(name="--label", negative="", help="KEY=VALUE, stored with the snapshot; may be repeated."),
]
Count = Annotated[
    int | None,
    Parameter(
        converter=to_whole,
        help="How much it holds, such as its number of rows, stored as the label count. See "
        "swapstore health --min-count.",
    ),
]
DedupeKey = Annotated[
    str | None,
    Parameter(
        help="Idempotency key: if one of at least the last 32 commits has it, nothing is published and "
        "that commit is returned."
    ),
]
ExpectedVersion = Annotated[
    int | None,
    Parameter(
        converter=to_whole,
        help="Optimistic lock: the version last read. Exit code 3 if it changed. 0: nothing may be "
        "published yet.",
    ),
]
Replicas = Annotated[
    int | None,
    Parameter(
        converter=to_whole,
        help="Wait until this many replicas have the commit. Too few in time: exit code 9, though it is "
        "published. Default: do not wait; with --fsync: 1.",
    ),
]
Fsync = Annotated[
    bool,
    Parameter(
        negative="",
        show_default=False,
        help="Wait until the server, and the replicas, have the commit on disk.",
    ),
]
Patience = Annotated[
    timedelta | None,
    Parameter(
        name="--wait", converter=to_duration, help="How long to wait for the replicas: 2s. Default: 1s."
    ),
]


# --- one snapshot ----------------------------------------------------------------------------------


def publish(
    dataset: Dataset,
    file: Annotated[
        str, Parameter(show_default=False, help="The file to publish; -: stdin. Default: stdin.")
    ] = STDIN,
    /,
    *,
    codec: Kind = "json",
    snapshot_id: NewId = None,
    ts: Ts = None,
    label: Labels = None,
    count: Count = None,
    dedupe_key: DedupeKey = None,
    expected_version: ExpectedVersion = None,
    max_age: MaxAge = None,
    max_count: MaxCount = None,
    replicas: Replicas = None,
    fsync: Fsync = False,
    wait: Patience = None,
    session: CurrentSession,
) -> None:
    """Publish a file or stdin as the next snapshot, and print the commit.

    Readers get the new version or the previous one, never a mix, wherever the
    publish is cut short.

    For example:
      swapstore publish mena snapshot.json
      swapstore publish mena snapshot.json --dedupe-key hourly:2026-01-31T07
      swapstore publish tiles tiles.pbf --codec bytes --max-count 30
    """
    labels = labels_of(label)
    durability = _durability(replicas, wait, fsync=fsync)
    retention = retention_of(max_age, max_count)
    payload = _payload(file)
    if codec == "bytes" and file == STDIN and not payload:
        raise InvalidInput(
            "stdin is empty, as after a command that failed; nothing was published. To publish no bytes on "
            "purpose, name an empty FILE"
        )
    with session.connect(retention=retention) as store:
        publishing = partial(
            store.publish,
            dataset,
            _as_given(payload, codec),
            id=snapshot_id,
            ts=ts,
            labels=labels,
            count=count,
            dedupe_key=dedupe_key,
            expected_version=expected_version,
            codec=codec,
            durability=durability,
        )
        _publish(session, store, publishing, snapshot_id, by_key=dedupe_key is not None)


# --- a group ---------------------------------------------------------------------------------------


def publish_group(
    dataset: Dataset,
    /,
    *,
    member: Annotated[
        list[str] | None,
        Parameter(negative="", help="NAME=FILE: a member, and the file that holds it; may be repeated."),
    ] = None,
    directory: Annotated[
        str | None,
        Parameter(
            name="--dir",
            help="A directory: each file in it is a member, named like the file without its extension. "
            "Hidden files and directories are left out.",
        ),
    ] = None,
    codec: Kind = "json",
    snapshot_id: NewId = None,
    ts: Ts = None,
    label: Labels = None,
    count: Count = None,
    dedupe_key: DedupeKey = None,
    expected_version: ExpectedVersion = None,
    max_age: MaxAge = None,
    max_count: MaxCount = None,
    replicas: Replicas = None,
    fsync: Fsync = False,
    wait: Patience = None,
    session: CurrentSession,
) -> None:
    """Publish several files as the members of one snapshot, and print the commit.

    Readers get all members of the new version or of the previous one, never a mix.

    For example:
      swapstore publish-group portwatch --member EG=eg.json --member SG=sg.json
      swapstore publish-group portwatch --dir countries/ --label run=7
    """
    labels = labels_of(label)
    durability = _durability(replicas, wait, fsync=fsync)
    retention = retention_of(max_age, max_count)
    members = {name: _member(name, path) for name, path in _files(member, directory).items()}
    with session.connect(retention=retention) as store:
        publishing = partial(
            store.publish_group,
            dataset,
            {name: _as_given(payload, codec) for name, payload in members.items()},
            id=snapshot_id,
            ts=ts,
            labels=labels,
            count=count,
            dedupe_key=dedupe_key,
            expected_version=expected_version,
            codec=codec,
            durability=durability,
        )
        _publish(session, store, publishing, snapshot_id, by_key=dedupe_key is not None)


def _files(members: Sequence[str] | None, directory: str | None) -> dict[str, str]:
    """Return the file of each member."""
    if (directory is None) == (not members):
        raise InvalidInput(
            "publish-group takes its members from --member NAME=FILE, or from --dir: one of them"
        )
    if directory is None:
        return pairs_of("--member", "NAME=FILE", members or [])
    try:
        files = sorted(path for path in Path(directory).iterdir() if path.is_file() and path.name[0] != ".")
    except OSError as error:
        raise InvalidInput(f"cannot read {directory!r}: {error.strerror}. Nothing was published.") from error
    found: dict[str, str] = {}
    for path in files:
        if path.stem in found:
            raise InvalidInput(
                f"{found[path.stem]!r} and {str(path)!r} would both be the member {path.stem!r}; nothing was "
                "published"
            )
        found[path.stem] = str(path)
    if not found:
        raise InvalidInput(f"{directory!r} holds no files; nothing was published")
    return found


def _member(name: str, path: str) -> bytes:
    try:
        return _payload(path)
    except InvalidInput as error:
        error.args = (f"member {name!r}: {error.args[0]}", *error.args[1:])
        raise


# --- what both do ----------------------------------------------------------------------------------


def _as_given(payload: bytes, codec: str) -> Any:
    """Return a value that is stored byte for byte."""
    return msgspec.Raw(payload) if codec == "json" else payload


def _publish(
    session: Session,
    store: Store,
    publishing: Callable[[], Commit],
    snapshot_id: str | None,
    *,
    by_key: bool,
) -> None:
    """Publish, and print the commit. `by_key`: with a dedupe key."""
    under: UnderReplicated | None = None
    try:
        commit = publishing()
    except UnderReplicated as error:  # published: the id to wait again with is printed
        commit, under = error.commit, error
    session.say_where(store)
    try:
        if session.human_readable:
            _print_commit(commit, store.where, by_key=by_key and commit.id != snapshot_id)
        else:
            output.write_json(commit)
    except OSError:
        output.complain(
            f"dataset {commit.dataset!r}: version {commit.version} is published, but cannot be printed"
        )
        raise
    if under is not None:
        raise under


def published(
    dataset: Dataset,
    /,
    *,
    dedupe_key: Annotated[str, Parameter(help="The key that the publish would have.")],
    session: CurrentSession,
) -> ExitCode:
    """Tell whether a publish with this dedupe key is committed already.

    The exit code is 0 if it is, and the commit is printed. It is 1 if not:
    the publish would commit. Any other code is an error, not an answer.

    For example:
      swapstore published mena --dedupe-key hourly:2026-01-31T07
    """
    with session.connect() as store:
        commit = store.published(dataset, dedupe_key=dedupe_key)
    if commit is None:
        if session.human_readable:
            output.print_text(
                f"{dataset}: no commit with this dedupe key among the last 32 in {store.where}."
            )
        return ExitCode.NOT_FOUND
    if session.human_readable:
        _print_commit(commit, store.where, by_key=True)
    else:
        output.write_json(commit)
    return ExitCode.DONE


def confirm(dataset: Dataset, /, *, session: CurrentSession) -> None:
    """Mark the data as still current, without publishing.

    Prints the status.

    For example:
      swapstore confirm mena
    """
    with session.connect() as store:
        print_status(session, store.confirm(dataset))
    session.say_where(store)


def _durability(replicas: int | None, wait: timedelta | None, *, fsync: bool) -> Durability | None:
    if replicas is None and not fsync:
        if wait is not None:
            raise InvalidInput("--wait is how long to wait for --replicas or --fsync: name one of them")
        return None
    asked = Durability(replicas=1 if replicas is None else replicas, fsync=fsync)
    return asked if wait is None else attrs.evolve(asked, timeout=wait.total_seconds())


def _payload(name: str) -> bytes:
    try:
        if name != STDIN:
            with Path(name).open("rb") as stream:
                return _read(stream, name)
        if sys.stdin is None:
            raise InvalidInput("stdin is closed; name a FILE to publish")
        if sys.stdin.isatty():
            print("swapstore: reading from the terminal; end with Ctrl-D", file=sys.stderr)
        return _read(sys.stdin.buffer, STDIN)
    except OSError as error:
        raise InvalidInput(f"cannot read {name!r}: {error.strerror}. Nothing was published.") from error


def _read(stream: BinaryIO, name: str) -> bytes:
    """Read the payload, and stop at what cannot be published any more: a pipe may have no end."""
    payload = stream.read(DEFAULT_MAX_PAYLOAD + 1)
    if len(payload) > DEFAULT_MAX_PAYLOAD:
        raise PayloadTooLarge(
            f"{name} holds more than {DEFAULT_MAX_PAYLOAD:,} bytes, which is the most that can be published",
            limit_bytes=DEFAULT_MAX_PAYLOAD,
        )
    return payload


def _print_commit(commit: Commit, where: str, *, by_key: bool) -> None:
    earlier = "a publish with this dedupe key" if by_key else "this content, under this id"
    output.print_facts(
        {
            "dataset": commit.dataset,
            "version": str(commit.version),
            "id": commit.id,
            "ts": figures.instant(commit.ts),
            "size": f"{commit.size:,} bytes",
            "committed": "now" if commit.created else f"before: {earlier}",
            "latest": "yes" if commit.is_latest else "no",
            **({} if commit.replicas is None else {"replicas": str(commit.replicas)}),
            "store": where,
        }
    )
