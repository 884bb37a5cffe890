"""`swapstore diff`: what changed between two snapshots of a dataset."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

import swapstore
from swapstore import documents, figures
from swapstore.cli import ExitCode, output
from swapstore.cli.arguments import Dataset, to_whole
from swapstore.cli.read import no_match
from swapstore.cli.session import CurrentSession, Session
from swapstore.cli.status import status_of
from swapstore.errors import InvalidInput, NotFound
from swapstore.models import Snapshot
from swapstore.store import Store

if TYPE_CHECKING:
    from swapstore.changes import Change, Diff

CHANGES_ON_A_TERMINAL = 50
LONGEST_POINTER = 300
INDENT = 6  # of values on lines of their own
LEAST_ROOM = 24  # for a value beside its place; with less, it gets a line of its own
LEAD = 12  # characters of what is alike, shown before the place where two long strings differ

_VERSION = re.compile(r"[1-9][0-9]{0,15}")
_MARKS = {
    "added": ("+", "green"),
    "removed": ("-", "red"),
    "changed": ("~", "yellow"),
    "moved": (">", "cyan"),
}


def diff(
    dataset: Dataset,
    a: Annotated[
        str | None,
        Parameter(help="The old snapshot: its version or its id. Default: the one before the latest."),
    ] = None,
    b: Annotated[
        str | None, Parameter(help="The new snapshot: its version or its id. Default: the latest.")
    ] = None,
    /,
    *,
    limit: Annotated[
        int | None,
        Parameter(
            converter=to_whole,
            help=f"How many changes to list. Default: all when piped, {CHANGES_ON_A_TERMINAL} on a terminal.",
        ),
    ] = None,
    exit_code: Annotated[
        bool, Parameter(negative="", show_default=False, help="Exit with 10 if there is a change.")
    ] = False,
    session: CurrentSession,
) -> ExitCode:
    """Print what changed between two snapshots: added, removed, changed, moved.

    Each change has its place as a JSON pointer. Items of lists are matched by
    a field that identifies them, such as id or name. Of payloads that are not
    JSON, size and digest are compared. When piped: a line of JSON each.

    For example:
      swapstore diff mena
      swapstore diff mena 40 41 --json
    """
    if limit is not None and limit < 1:
        raise InvalidInput(f"--limit must be 1 or more, not {limit}")
    with session.connect() as store:
        old, new = _snapshots(store, session, dataset, a, b)
    found = swapstore.diff(old, new)
    if session.human_readable:
        _print(session, old, new, found, limit or CHANGES_ON_A_TERMINAL)
    else:
        for change in islice(found.changes, limit):
            output.write_json(documents.change(change))
    return ExitCode.DIFFERENT if exit_code and found else ExitCode.DONE


# --- the snapshots -----------------------------------------------------------------------------------


def _snapshots(
    store: Store, session: Session, dataset: str, a: str | None, b: str | None
) -> tuple[Snapshot, Snapshot]:
    """Return both snapshots. The defaults are those of one moment, whatever is published in between."""
    if a is None or b is None:
        latest = status_of(store, dataset).latest.version
        b = str(latest) if b is None else b
        a = _version_before(store, dataset, latest) if a is None else a
    return _snapshot(store, session, dataset, a), _snapshot(store, session, dataset, b)


def _version_before(store: Store, dataset: str, latest: int) -> str:
    row = next(iter(store.history(dataset, limit=1, before=latest)), None)
    if row is None:
        raise NotFound(
            f"there is no snapshot before the latest, version {latest}, to compare it with", dataset=dataset
        )
    return str(row.version)


def _snapshot(store: Store, session: Session, dataset: str, name: str) -> Snapshot:
    """Return the snapshot with a version or an id. A number is a version; if there is none, an id."""
    is_number = _VERSION.fullmatch(name) is not None
    found = store.read(dataset, version=int(name)) if is_number else None
    found = found or store.read(dataset, id=name)
    if found is None:
        status_of(store, dataset)  # with nothing published, that is the reason
        raise no_match(session, store, dataset, f"version {name} or id {name}" if is_number else f"id {name}")
    return found


# --- for people --------------------------------------------------------------------------------------


def _print(session: Session, old: Snapshot, new: Snapshot, found: Diff, limit: int) -> None:
    output.print_facts(
        {
            "dataset": new.dataset,
            "from": _named(old),
            "to": _named(new),
            "changes": found.summary,
        }
    )
    if not found and old.sha256 != new.sha256:
        output.print_text(
            "The payloads differ in spaces, in the order of fields, or in how values are written."
        )
    if found:
        output.print_text()
    item = None
    for change in islice(found.changes, limit):
        if change.item not in (item, None):
            ((field, value),) = change.item.items()
            output.print_styled((f"  {field} = {_preview(value, LONGEST_POINTER)}", "dim"))
        item = change.item
        _print_change(change)
    if len(found.changes) > limit:
        output.print_text(f"… and {len(found.changes) - limit:,} more. All of them:")
        output.print_commands(
            session.command_line("diff", new.dataset, str(old.version), str(new.version), "--json")
        )


def _named(snapshot: Snapshot) -> str:
    return f"version {snapshot.version}, {figures.instant(snapshot.ts)}, id {snapshot.id}"


def _print_change(change: Change) -> None:
    mark, style = _MARKS[change.kind]
    place = f"{mark} {_shortened(change.pointer or '(the whole value)')}  "
    width = output.stdout_console().width
    room = width - len(place)
    if change.kind == "changed":
        pair = _previews(change.before, change.after, width - INDENT)
        lines = [f"- {pair[0]}", f"+ {pair[1]}"]
        text = " → ".join(pair)
    else:
        text = _text(change, room if room >= LEAST_ROOM else width - INDENT)
        lines = [text]
    if len(text) <= room:
        output.print_styled((place, style), (text, ""))
        return
    output.print_styled((place, style))
    for line in lines:
        output.print_styled((f"    {line}", ""))


def _text(change: Change, room: int) -> str:
    """Return what is said of a change beside its place, in so many characters."""
    if change.kind == "moved":
        return f"was {_shortened(change.was or '')}"
    return _preview(change.after if change.kind == "added" else change.before, room)


def _shortened(pointer: str) -> str:
    if len(pointer) <= LONGEST_POINTER:
        return pointer
    half = LONGEST_POINTER // 2
    return f"{pointer[:half]}…{pointer[-half:]}"


def _previews(before: Any, after: Any, width: int) -> tuple[str, str]:
    """Return the beginnings of two values; of two long strings, what begins where they differ."""
    if isinstance(before, str) and isinstance(after, str):
        begin = _alike(before, after) - LEAD
        if begin > 0 and max(len(before), len(after)) > width:
            before, after = f"…{before[begin:]}", f"…{after[begin:]}"
    return _preview(before, width), _preview(after, width)


def _alike(before: str, after: str) -> int:
    """Return how many characters two different strings have in common at the beginning."""
    pairs = enumerate(zip(before, after, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(before), len(after)))


def _preview(value: Any, width: int) -> str:
    """Return a value as JSON; of a long one the beginning, without a walk through the rest."""
    text = ""
    for piece in _pieces(value, width):
        text += piece
        if len(text) > width:
            return f"{text[: width - 1]}…"
    return text


def _pieces(value: Any, width: int) -> Iterator[str]:
    """Yield the JSON text of a value, at least so many characters of it, in pieces."""
    todo: list[tuple[bool, Any]] = [(False, value)]  # whether it is text, and what it is
    while todo:
        is_text, each = todo.pop()
        if is_text:
            yield each
        elif isinstance(each, dict):
            todo.append((True, "}"))
            for number, (key, part) in reversed([*enumerate(islice(each.items(), width))]):
                todo += [(False, part), (True, f"{', ' if number else ''}{_leaf(key, width)}: ")]
            todo.append((True, "{"))
        elif isinstance(each, list):
            todo.append((True, "]"))
            for number, part in reversed([*enumerate(each[:width])]):
                todo += [(False, part), (True, ", " if number else "")]
            todo.append((True, "["))
        else:
            yield _leaf(each, width)


def _leaf(value: Any, width: int) -> str:
    return json.dumps(value[: width + 1] if isinstance(value, str) else value, ensure_ascii=False)
