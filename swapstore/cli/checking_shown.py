"""Verify and repair as a person sees them: a bar while they work, then what is wrong and what is done."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from swapstore.cli import human
from swapstore.cli.tables import say, show_rows, suggest
from swapstore.fsck.findings import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from swapstore.cli.found import Found
    from swapstore.fsck.findings import Finding, Progress, Repair

FINDINGS_SHOWN = 50
IDS_SHOWN = 10
NAME_WIDTH = 24  # of a dataset's name beside the bar


@contextmanager
def bar() -> Iterator[Callable[[Progress], None]]:
    """Show on stderr how far a look has come."""
    keys = TextColumn("{task.fields[keys]}", markup=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), keys)
    with Bar(
        *columns, console=_stderr(), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as shown:
        task = shown.add_task("looking", total=None, keys="")

        def watch(progress: Progress) -> None:
            name = human.printable(progress.dataset) or "looking at all keys"
            shown.update(
                task,
                description=name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 1]}…",
                completed=progress.rows,
                total=progress.total or None,
                keys=f"{progress.keys:,} keys" if progress.keys else "",
            )

        yield watch


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """Show on stderr that something is being done of which nobody knows how long it takes."""
    with _stderr().status(human.printable(what)):
        yield


def _stderr() -> Console:
    return Console(file=sys.stderr, highlight=False, markup=False, emoji=False)


# --- verify ----------------------------------------------------------------------------------------


def show_found(found: Found, datasets: int, command: str) -> None:
    """Show what a look found, the verdict last. `command` says more about what is wrong."""
    if found.wrong:
        shown = found.chosen(FINDINGS_SHOWN)
        _show_findings(shown)
        if found.wrong > len(shown):
            say(f"and {found.wrong - len(shown):,} more; with --json all are printed.")
        say()
        _explain(problem for _, problem in found.groups)
    _say_what_is_not_wrong(found)
    if not found.wrong:
        say(f"all is well: {_count(datasets, 'dataset')}, {_count(found.rows, 'snapshot')}")
        return
    say(f"{_count(found.wrong, 'thing')} {_is(found.wrong)} wrong. To see what a repair would do:")
    suggest(command)


def _show_findings(findings: Sequence[Finding]) -> None:
    show_rows(
        ("problem", "key, and what was seen"),
        ((finding.problem.value, _seen(finding)) for finding in findings),
        widths={"problem": max((len(finding.problem.value) for finding in findings), default=0)},
    )


def _seen(finding: Finding) -> str:
    seen = [] if finding.dataset in finding.key else [f"dataset {finding.dataset}"]
    if finding.version is not None:
        seen.append(f"version {finding.version}")
    if finding.expires_in_ms is not None:
        seen.append(f"expires {human.age(finding.expires_in_ms, 0)}")
    if finding.detail:
        seen.append(finding.detail)
    return f"{finding.key}\n{'; '.join(seen)}".rstrip()


def _explain(problems: Iterable[Problem]) -> None:
    present = set(problems)
    show_rows(
        ("problem", "what it means, and what repair does"),
        (
            (problem.value, f"{problem.meaning}\n→ {problem.remedy}")
            for problem in Problem
            if problem in present
        ),
        widths={"problem": max(len(problem.value) for problem in present)},
    )
    say()


def _say_what_is_not_wrong(found: Found) -> None:
    if found.orphans:
        oldest = f"the oldest from {human.age(-found.oldest_ms, 0)}, " if found.oldest_ms else ""
        last = human.age(found.last_expires_in_ms, 0)
        say(f"{_count(found.orphans, 'orphan')}: {oldest}the last expires {last}. Nothing has to be done.")
    if found.foreign.count:
        count, first = found.foreign.count, found.foreign.findings[0].key
        say(
            f"{_count(count, 'key')} that swapstore did not write, and never reads: {first}{_more(count - 1)}"
        )


# --- repair ----------------------------------------------------------------------------------------


def show_report(report: Repair) -> None:
    """Show what a repair did, or would do, to one dataset."""
    left = {(finding.problem, finding.key) for finding in report.left}
    mended = [finding for finding in report.findings if (finding.problem, finding.key) not in left]
    found = _count(len(report.findings), "thing")
    verb = ("was" if len(report.findings) == 1 else "were") if report.applied else _is(len(report.findings))
    say(f"{report.dataset}: {found} {verb} wrong")
    say()
    if mended:
        counts = Counter(finding.problem for finding in mended)
        show_rows(
            ("problem", "how many", "what repair does"),
            ((problem.value, f"{count:,}", problem.remedy) for problem, count in counts.items()),
            numbers=("how many",),
            widths={"problem": max(len(problem.value) for problem in counts)},
        )
        say()
        would = "" if report.applied else "would be "
        _show_ids(report.dropped, f"{would}dropped, because {{its}} payload is gone")
        _show_ids(report.restored, f"{would}named again, whole")
    if report.left:
        say("could not be mended:" if report.applied else "cannot be mended:")
        _show_findings(report.left[:FINDINGS_SHOWN])
        if len(report.left) > FINDINGS_SHOWN:
            say(f"and {len(report.left) - FINDINGS_SHOWN:,} more; with --json all are printed.")
        say()


def conclude(reports: Sequence[Repair], left: int, command: str | None) -> None:
    """Say how it stands now; `command` mends what can be mended."""
    if command is not None:
        say("Nothing is changed yet. To do it:")
        suggest(command)
    elif left:
        say(f"{_count(left, 'thing')} {_is(left)} left. If nothing whole is there to serve instead:")
        say("publish a snapshot, and repair again.")
    else:
        say("all is mended" if reports else "nothing is wrong")


def _show_ids(ids: Sequence[str], what: str) -> None:
    if not ids:
        return
    say(f"{_count(len(ids), 'snapshot')} {what.format(its=_its(len(ids)))}:")
    suggest(*ids[:IDS_SHOWN])
    if len(ids) > IDS_SHOWN:
        say(f"  and {len(ids) - IDS_SHOWN:,} more; with --json all are printed.")
    say()


# --- words -----------------------------------------------------------------------------------------


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _its(count: int) -> str:
    return "its" if count == 1 else "their"


def _more(count: int) -> str:
    return f" and {count:,} more" if count else ""
