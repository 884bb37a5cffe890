"""`swapstore verify` and `swapstore repair`: whether all is as it should be, and how to make it so."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import attrs
from cyclopts import Parameter

from swapstore.cli.found import Found
from swapstore.cli.output import emit_json
from swapstore.cli.session import Here, Session, nothing_published
from swapstore.errors import Damaged, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from swapstore.fsck.findings import Finding, Progress, Repair
    from swapstore.store import Store

SOMETHING_IS_WRONG = 5  # what every command exits with that meets damage

Which = Annotated[
    str | None, Parameter(help="The dataset's name. Unless given: everything in the namespace.")
]


def verify(dataset: Which = None, /, *, session: Here) -> None:
    """Compare all that is stored with what the manifests say. Writes nothing.

    It reads every payload. Producers may go on meanwhile.
    When piped, a line of JSON for each finding, as it is found.
    The exit code is 5 when something is wrong. Orphans are not: they expire by themselves.
    """
    with session.connect() as store:
        found = _look(session, store, dataset)
        datasets = 0 if found.wrong else _published(store, dataset, or_orphans=found.orphans)
    if session.for_a_person:
        from swapstore.cli.checking_shown import show_found  # noqa: PLC0415 - only a person waits for rich

        show_found(found, datasets, session.hint(*_repair(dataset)))
    if found.wrong:
        _end(
            session, f"{_things(found.wrong)} wrong; {session.hint(*_repair(dataset))} says what it would do"
        )


def repair(
    dataset: Which = None,
    /,
    *,
    apply: Annotated[
        bool,
        Parameter(negative="", show_default=False, help="Do it. Unless given, only say what it would do."),
    ] = False,
    session: Here,
) -> None:
    """Mend what verify finds wrong; without --apply, say what that would do.

    It builds anew from the committed records what is lost, and drops snapshots whose payload is gone.
    When piped, a line of JSON for each dataset in which something is wrong.
    The exit code is 5 when something is left, or (without --apply) when there is something to mend.
    """
    reports: list[Repair] = []
    with session.connect() as store:
        for name in [dataset] if dataset is not None else _look(session, store, None, quiet=True).datasets:
            with _working(session, f"repairing {name}" if apply else f"looking at {name}"):
                reports += (made := store.repair(name, apply=apply))
            for report in made:
                _tell(session, report)
        if not reports:
            _published(store, dataset)
    left = sum(len(report.left) for report in reports)
    mendable = not apply and any(not report.left for report in reports)
    command = session.hint(*_repair(dataset), "--apply")
    if session.for_a_person:
        from swapstore.cli.checking_shown import conclude  # noqa: PLC0415

        conclude(reports, left, command if mendable else None)
    if mendable:
        _end(session, f"nothing is changed yet; to mend what can be mended: {command}")
    if left:
        _end(session, f"{_things(left)} wrong and cannot be mended")


def _repair(dataset: str | None) -> tuple[str, ...]:
    return ("repair",) if dataset is None else ("repair", dataset)


def _look(session: Session, store: Store, dataset: str | None, *, quiet: bool = False) -> Found:
    """Verify, with a bar for a person; print what is found at once when piped, unless `quiet`."""
    found = Found()
    with _watching(session) as watch:

        def note(progress: Progress) -> None:
            found.rows = progress.rows
            watch(progress)

        for finding in store.verify(dataset, on_progress=note):
            found.add(finding)
            if not quiet and not session.for_a_person:
                emit_json(_as_json(finding))
    return found


def _as_json(finding: Finding) -> dict[str, Any]:
    problem = finding.problem
    said = {"wrong": finding.wrong, "meaning": problem.meaning, "remedy": problem.remedy}
    return {**attrs.asdict(finding), **said}


def _tell(session: Session, report: Repair) -> None:
    if not session.for_a_person:
        emit_json(report)
        return
    from swapstore.cli.checking_shown import show_report  # noqa: PLC0415

    show_report(report)


def _published(store: Store, dataset: str | None, *, or_orphans: int = 0) -> int:
    """Return how many datasets there are. None at all is not well: it is the wrong place, or all is lost."""
    if dataset is not None:
        if store.status(dataset) is not None:
            return 1
        if not or_orphans:
            raise nothing_published(store, dataset)
        return 0
    names = store.datasets()
    if not names and not or_orphans:
        raise NotFound(f"nothing is published in {store.where}, namespace {store.namespace!r}")
    return len(names)


def _end(session: Session, message: str) -> NoReturn:
    """End with the exit code of damage. A person has read why; a script's log gets it as one line."""
    if not session.for_a_person:
        raise Damaged(message)
    sys.stdout.flush()  # a reader that went away is noticed here, not while the interpreter exits
    sys.exit(SOMETHING_IS_WRONG)


def _things(count: int) -> str:
    return "1 thing is" if count == 1 else f"{count:,} things are"


def _watching(session: Session) -> AbstractContextManager[Callable[[Progress], None]]:
    """A bar on stderr, when a person looks there: stdout may be a file."""
    if session.json or not sys.stderr.isatty():
        return nullcontext(lambda _: None)
    from swapstore.cli.checking_shown import bar  # noqa: PLC0415

    return bar()


def _working(session: Session, what: str) -> AbstractContextManager[object]:
    if session.json or not sys.stderr.isatty():
        return nullcontext()
    from swapstore.cli.checking_shown import spinner  # noqa: PLC0415

    return spinner(what)
