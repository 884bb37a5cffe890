"""`python -m tests.mutants [name...]`: judge every mutant (or those whose name holds one of the words)."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.mutants.catalogue import MUTANTS, UNCHANGED
from tests.mutants.mutant import Mutant
from tests.mutants.workshop import Fate, Verdict, Workshop

PIPED_WIDTH = 170
COLOURS = {Fate.KILLED: "green", Fate.TIMEOUT: "yellow", Fate.SURVIVED: "bold red", Fate.ERROR: "bold red"}


def main(words: list[str]) -> int:
    """Print the table; 1 if a mutant survives, or could not be judged."""
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    if not chosen:
        print("no mutant has such a name", file=sys.stderr)  # noqa: T201 - a command prints
        return 1
    began = time.monotonic()
    with Workshop() as workshop:
        begun = [(mutant, workshop.judge(mutant)) for mutant in (UNCHANGED, *chosen)]
        waiting = track(begun, "mutants", console=Console(stderr=True), transient=True)
        judged = [(mutant, verdict.result()) for mutant, verdict in waiting]
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH)
    (_, unchanged), *judged = judged
    console.print(table(judged))
    faults = [(mutant, verdict) for mutant, verdict in judged if not verdict.is_dead]
    if unchanged.fate is not Fate.SURVIVED:
        faults.insert(0, (UNCHANGED, unchanged))
    for mutant, verdict in faults:
        console.rule(f"{mutant.name}: {verdict.fate.value} {verdict.by}")
        console.print(verdict.output, markup=False, highlight=False)
    dead = sum(verdict.is_dead for _, verdict in judged)
    console.print(f"{dead} of {len(judged)} mutants are dead, in {time.monotonic() - began:.0f} s")
    return 1 if faults else 0


def table(judged: list[tuple[Mutant, Verdict]]) -> Table:
    """Show the outcome of each mutant."""
    shown = Table("mutant", "promise it breaks", title="protocol mutants")
    shown.add_column("killed by", overflow="fold")
    shown.add_column("s", justify="right")
    for mutant, verdict in judged:
        by = verdict.by if verdict.fate is Fate.KILLED else f"{verdict.fate.value.upper()} {verdict.by}"
        by = by.replace("[", r"\[")
        colour = COLOURS[verdict.fate]
        shown.add_row(mutant.name, mutant.promise, f"[{colour}]{by}[/]", f"{verdict.seconds:.1f}")
    return shown


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
