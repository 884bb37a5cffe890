"""An import as a person sees it: a bar while it works, then what was found and what came over."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from swapstore.cli import human
from swapstore.cli.tables import say, show_rows
from swapstore.migration.plan import Fact, Finding, Planned, RegionDone, Tried

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FINDINGS_SHOWN = 50


def progress(facts: Iterable[Fact]) -> Iterator[Fact]:
    """Pass the facts on, with a bar on stderr."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    terminal = Console(file=sys.stderr, highlight=False, markup=False, emoji=False)
    with Progress(*columns, console=terminal, transient=True) as bar:
        task = bar.add_task("reading the source", total=None)
        for fact in facts:
            if isinstance(fact, Planned):
                bar.update(task, total=fact.total, description="importing")
            elif isinstance(fact, Tried):
                bar.update(task, advance=1, description=human.printable(fact.dataset))
            yield fact


def show(facts: Iterable[Fact]) -> list[Finding]:
    """Show what was found and a row for each region, and return the findings."""
    found: list[Finding] = []
    done: list[RegionDone] = []
    for fact in facts:
        if isinstance(fact, Finding):
            found.append(fact)
        elif isinstance(fact, RegionDone):
            done.append(fact)
    if found:
        _show_findings(found)
    show_rows(
        ("dataset", "imported", "there already", "left out", "latest"),
        (
            (
                region.dataset,
                f"{region.created:,}",
                f"{region.already:,}",
                f"{region.left_out:,}",
                region.latest or "none",
            )
            for region in done
        ),
        numbers=("imported", "there already", "left out"),
    )
    return found


def _show_findings(found: list[Finding]) -> None:
    for finding in found[:FINDINGS_SHOWN]:
        say(f"{finding.kind}: {finding.key}")
        say(f"  {finding.detail}")
    counts = Counter(finding.kind for finding in found)
    more = " The first are shown; with --json all are." if len(found) > FINDINGS_SHOWN else ""
    say()
    say(f"Found: {', '.join(f'{count:,} {kind}' for kind, count in counts.items())}.{more}")
    say()
