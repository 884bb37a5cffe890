"""`swapstore verify` and `swapstore repair`: what is wrong in the store, and its repair."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import Parameter

from swapstore import figures
from swapstore.cli import ExitCode, output
from swapstore.cli.session import CurrentSession, Session
from swapstore.cli.status import nothing_published
from swapstore.fsck.findings import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from swapstore.fsck.findings import Finding, Progress, Repair
    from swapstore.store import Store

KEPT_PER_GROUP = 50  # at least as many as are printed
FINDINGS_PRINTED = 50
IDS_PRINTED = 10
NAME_WIDTH = 24  # of a dataset's name beside the progress bar

OneOrAll = Annotated[str | None, Parameter(help="The dataset's name. Default: everything in the namespace.")]


# --- the commands ----------------------------------------------------------------------------------


def verify(dataset: OneOrAll = None, /, *, session: CurrentSession) -> ExitCode:
    """Compare all that is stored with the manifests. Writes nothing.

    It reads every payload. Producers may publish at the same time.
    When piped: a line of JSON for each finding, as it is found.
    The exit code is 5 if something is wrong. Orphans are not wrong: they
    expire by themselves.

    For example:
      swapstore verify
      swapstore verify mena
    """
    with session.connect() as store:
        summary = _verify(session, store, dataset)
        datasets = 0 if summary.wrong else _count_datasets(store, dataset, or_orphans=summary.orphans)
    repair_command = session.command_line(*_repair(dataset))
    if session.human_readable:
        _print_summary(summary, datasets, repair_command)
    if not summary.wrong:
        return ExitCode.DONE
    return _damaged(session, f"{_things_are(summary.wrong)} wrong; {repair_command} says what it would do")


def repair(
    dataset: OneOrAll = None,
    /,
    *,
    apply: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Write the repair. Default: only say what it would do."
        ),
    ] = False,
    session: CurrentSession,
) -> ExitCode:
    """Repair what verify finds wrong. Without --apply, only say what that would do.

    It rebuilds what is lost from the committed records, and drops snapshots
    whose payload is gone.
    When piped: a line of JSON for each dataset in which something is wrong.
    The exit code is 5 if something is left or, without --apply, if something
    can be repaired.

    For example:
      swapstore repair
      swapstore repair mena --apply
    """
    reports: list[Repair] = []
    with session.connect() as store:
        names = [dataset] if dataset is not None else _verify(session, store, None, quiet=True).datasets
        for name in names:
            with _spinner(session, f"repairing {name}" if apply else f"looking at {name}"):
                new = store.repair(name, apply=apply)
            reports += new
            for report in new:  # printed at once: an error in the next dataset must not hide what was done
                _print_report(session, report)
                _note_pin(report)
        if not reports:
            _count_datasets(store, dataset)
    left = sum(len(report.left) for report in reports)
    repairable = not apply and any(not report.left for report in reports)
    apply_command = session.command_line(*_repair(dataset), "--apply")
    if session.human_readable:
        _print_conclusion(reports, left, apply_command if repairable else None)
    if repairable:
        return _damaged(session, f"nothing is changed yet; to repair what can be repaired: {apply_command}")
    if left:
        return _damaged(session, f"{_things_are(left)} wrong and cannot be repaired")
    return ExitCode.DONE


def _note_pin(report: Repair) -> None:
    """Say on stderr that readers may get what somebody had pinned away."""
    if report.pin_unknown:
        output.complain(
            f"dataset {report.dataset!r}: its manifest {'is' if report.applied else 'would be'} rebuilt from "
            "records, which do not tell of a pin or a rollback. If there was one, it could not be recovered: "
            "readers get the snapshot with the greatest ts. Pin again what they should get"
        )


def _repair(dataset: str | None) -> tuple[str, ...]:
    return ("repair",) if dataset is None else ("repair", dataset)


def _damaged(session: Session, message: str) -> ExitCode:
    """Return the exit code of damage. Print the message where no table has said it."""
    if not session.human_readable:
        output.complain(message)
    return ExitCode.DAMAGED


def _count_datasets(store: Store, dataset: str | None, *, or_orphans: int = 0) -> int:
    """Return how many datasets there are.

    Raises `NotFound` when there is nothing, not even an orphan: either the address is wrong, or all is lost.
    """
    if dataset is not None:
        names = [dataset] if store.status(dataset) is not None else []
    else:
        names = store.datasets()
    if not names and not or_orphans:
        raise nothing_published(store, dataset)
    return len(names)


# --- findings, collected ---------------------------------------------------------------------------


@attrs.define
class Group:
    """The findings of one problem in one dataset: how many there are, and the first of them."""

    findings: list[Finding] = attrs.field(factory=list)
    count: int = 0

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it if it is one of the first."""
        self.count += 1
        if len(self.findings) < KEPT_PER_GROUP:
            self.findings.append(finding)


@attrs.define
class Summary:
    """A bounded summary of what verify found. `rows` is the number of snapshots that it compared."""

    rows: int = 0
    wrong: int = 0
    groups: dict[tuple[str, Problem], Group] = attrs.field(factory=dict)
    orphans: int = 0
    oldest_ms: int = 0
    last_expires_in_ms: int = 0
    foreign: Group = attrs.field(factory=Group)

    @property
    def datasets(self) -> list[str]:
        """The names of the datasets in which something is wrong."""
        return sorted({dataset for dataset, _ in self.groups})

    def add(self, finding: Finding) -> None:
        """Add one finding."""
        if finding.problem is Problem.ORPHAN:
            self.orphans += 1
            self.oldest_ms = max(self.oldest_ms, finding.age_ms or 0)
            self.last_expires_in_ms = max(self.last_expires_in_ms, finding.expires_in_ms or 0)
        elif finding.wrong:
            self.wrong += 1
            self.groups.setdefault((finding.dataset, finding.problem), Group()).add(finding)
        else:
            self.foreign.add(finding)

    def sample(self, limit: int) -> list[Finding]:
        """Return at most `limit` of the wrong findings, some of each group: no group hides the others."""
        sample: list[Finding] = []
        groups = sorted(self.groups.values(), key=lambda group: group.count)
        for index, group in enumerate(groups):
            share = (limit - len(sample)) // (len(groups) - index)
            sample += group.findings[: max(share, 1)]
        return sorted(sample[:limit], key=lambda finding: (finding.dataset, _ORDER[finding.problem]))


_ORDER = {problem: place for place, problem in enumerate(Problem)}


def _verify(session: Session, store: Store, dataset: str | None, *, quiet: bool = False) -> Summary:
    """Verify with a progress bar, and return the summary. When piped, print the findings unless `quiet`."""
    summary = Summary()
    with _progress_bar(session) as show_progress:

        def on_progress(progress: Progress) -> None:
            summary.rows = progress.rows
            show_progress(progress)

        for finding in store.verify(dataset, on_progress=on_progress):
            summary.add(finding)
            if not quiet and not session.human_readable:
                output.write_json(_as_json(finding))
    return summary


def _as_json(finding: Finding) -> dict[str, Any]:
    problem = finding.problem
    explained = {"wrong": finding.wrong, "meaning": problem.meaning, "remedy": problem.remedy}
    return {**attrs.asdict(finding), **explained}


# --- progress on stderr ----------------------------------------------------------------------------


@contextmanager
def _progress_bar(session: Session) -> Iterator[Callable[[Progress], None]]:
    """Draw how far verify has come. Yields the function to call with each `Progress`."""
    if not session.shows_progress:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn  # noqa: PLC0415
    from rich.progress import Progress as ProgressBar  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[keys]}", markup=False),
    )
    with ProgressBar(
        *columns,
        console=output.stderr_console(),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        task = bar.add_task("looking", total=None, keys="")

        def update(progress: Progress) -> None:
            name = output.printable(progress.dataset) or "looking at all keys"
            bar.update(
                task,
                description=name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…",
                completed=progress.rows,
                total=progress.total or None,
                keys=f"{progress.keys:,} keys" if progress.keys else "",
            )

        yield update


@contextmanager
def _spinner(session: Session, text: str) -> Iterator[None]:
    """Draw that work of unknown length goes on."""
    if not session.shows_progress:
        yield
        return
    with output.stderr_console().status(output.printable(text)):
        yield


# --- verify, for people ----------------------------------------------------------------------------


def _print_summary(summary: Summary, datasets: int, command: str) -> None:
    """Print what verify found, the verdict last. `command` says what a repair would do."""
    if summary.wrong:
        sample = summary.sample(FINDINGS_PRINTED)
        _print_findings(sample)
        if summary.wrong > len(sample):
            output.print_text(f"and {summary.wrong - len(sample):,} more; with --json all are printed.")
        output.print_text()
        _print_meanings(problem for _, problem in summary.groups)
    _print_harmless(summary)
    if not summary.wrong:
        well = f"{figures.count(datasets, 'dataset')}, {figures.count(summary.rows, 'snapshot')}"
        output.print_text(f"all is well: {well}")
        return
    output.print_text(f"{_things_are(summary.wrong)} wrong. To see what a repair would do:")
    output.print_commands(command)


def _print_findings(findings: Sequence[Finding]) -> None:
    output.print_table(
        ("problem", "key, and what was seen"),
        ((finding.problem.value, _seen(finding)) for finding in findings),
        widths={"problem": max((len(finding.problem.value) for finding in findings), default=0)},
    )


def _seen(finding: Finding) -> str:
    seen = [] if finding.dataset in finding.key else [f"dataset {finding.dataset}"]
    if finding.version is not None:
        seen.append(f"version {finding.version}")
    if finding.expires_in_ms is not None:
        seen.append(f"expires {figures.age(finding.expires_in_ms, 0)}")
    if finding.detail:
        seen.append(finding.detail)
    return f"{finding.key}\n{'; '.join(seen)}".rstrip()


def _print_meanings(problems: Iterable[Problem]) -> None:
    present = set(problems)
    output.print_table(
        ("problem", "what it means, and what repair does"),
        (
            (problem.value, f"{problem.meaning}\n→ {problem.remedy}")
            for problem in Problem
            if problem in present
        ),
        widths={"problem": max(len(problem.value) for problem in present)},
    )
    output.print_text()


def _print_harmless(summary: Summary) -> None:
    if summary.orphans:
        oldest = f"the oldest from {figures.age(-summary.oldest_ms, 0)}, " if summary.oldest_ms else ""
        last = figures.age(summary.last_expires_in_ms, 0)
        orphans = figures.count(summary.orphans, "orphan")
        output.print_text(f"{orphans}: {oldest}the last expires {last}. Nothing has to be done.")
    if summary.foreign.count:
        keys = figures.count(summary.foreign.count, "key")
        more = f" and {summary.foreign.count - 1:,} more" if summary.foreign.count > 1 else ""
        first = summary.foreign.findings[0].key
        output.print_text(f"{keys} that swapstore did not write, and never reads: {first}{more}")


def _things_are(number: int) -> str:
    return f"{figures.count(number, 'thing')} {'is' if number == 1 else 'are'}"


# --- repair, for people ----------------------------------------------------------------------------


def _print_report(session: Session, report: Repair) -> None:
    """Print what a repair did, or would do, to one dataset."""
    if not session.human_readable:
        output.write_json(report)
        return
    left = {(finding.problem, finding.key) for finding in report.left}
    repaired = [finding for finding in report.findings if (finding.problem, finding.key) not in left]
    number = len(report.findings)
    are = ("was" if number == 1 else "were") if report.applied else ("is" if number == 1 else "are")
    output.print_text(f"{report.dataset}: {figures.count(number, 'thing')} {are} wrong")
    output.print_text()
    if repaired:
        _print_repaired(report, repaired)
    if report.left:
        output.print_text("could not be repaired:" if report.applied else "cannot be repaired:")
        _print_findings(report.left[:FINDINGS_PRINTED])
        if len(report.left) > FINDINGS_PRINTED:
            output.print_text(
                f"and {len(report.left) - FINDINGS_PRINTED:,} more; with --json all are printed."
            )
        output.print_text()


def _print_repaired(report: Repair, repaired: Iterable[Finding]) -> None:
    counts = Counter(finding.problem for finding in repaired)
    output.print_table(
        ("problem", "how many", "what repair does"),
        ((problem.value, f"{number:,}", problem.remedy) for problem, number in counts.items()),
        numbers=("how many",),
        widths={"problem": max(len(problem.value) for problem in counts)},
    )
    output.print_text()
    would_be = "" if report.applied else "would be "
    their = "its" if len(report.dropped) == 1 else "their"
    _print_ids(report.dropped, f"{would_be}dropped, because {their} payload is gone")
    _print_ids(report.restored, f"{would_be}restored to the manifest")


def _print_ids(ids: Sequence[str], what: str) -> None:
    if not ids:
        return
    output.print_text(f"{figures.count(len(ids), 'snapshot')} {what}:")
    output.print_commands(*ids[:IDS_PRINTED])
    if len(ids) > IDS_PRINTED:
        output.print_text(f"  and {len(ids) - IDS_PRINTED:,} more; with --json all are printed.")
    output.print_text()


def _print_conclusion(reports: Sequence[Repair], left: int, command: str | None) -> None:
    """Print what remains to be done; `command` repairs what can be repaired."""
    if command is not None:
        output.print_text("Nothing is changed yet. To do it:")
        output.print_commands(command)
    elif left:
        output.print_text(f"{_things_are(left)} left. If the dataset has no readable snapshot any more,")
        output.print_text("publish one, and repair again.")
    else:
        output.print_text("all is repaired" if reports else "nothing is wrong")
