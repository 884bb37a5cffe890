"""`python -m tests.chaos`: faults at random, and what was acknowledged against what survived.

The seed decides which faults come in which round, and how long they last; the servers and the network have
timing of their own. To look closer at a kind of fault: `--fault "promote one behind" --topology pair`.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys

from rich.console import Console
from rich.table import Table

from tests.chaos.rounds import TOPOLOGIES, Figures, Run

PIPED_WIDTH = 180


def main(words: list[str]) -> int:
    """Print the tables; 1 if something is wrong that may not be."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=12, help="of each topology (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=6, help="of a round under load")
    parser.add_argument("--seed", type=int, help="default: another one each time; it is printed")
    parser.add_argument("--topology", choices=sorted(TOPOLOGIES), help="default: each")
    parser.add_argument("--durability", choices=["none", "one", "all"], help="default: none, then all")
    parser.add_argument("--fault", help="this kind of fault only")
    asked = parser.parse_args(words)
    seed = random.randrange(1_000_000) if asked.seed is None else asked.seed
    sys.stdout.write(f"--seed {seed}\n")
    logging.getLogger("swapstore").setLevel(logging.ERROR)
    runs = []
    for topology in [asked.topology] if asked.topology else sorted(TOPOLOGIES):
        for durability in [asked.durability] if asked.durability else ["none", "all"]:
            run = Run(topology, durability, seed)
            try:
                run.play(asked.rounds, asked.seconds, only=asked.fault)
            except RuntimeError as error:  # it does not become whole again: show what there is
                sys.stdout.write(f"{topology}, {durability}: {error}\n")
                run.total.unexpected.append(str(error))
            runs.append(run)
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH)
    for run in runs:
        console.print(by_fault(run))
    console.print(totals(runs))
    for run in runs:
        for each in run.total.unexpected:
            console.print(f"{run.topology}, {run.durability}: {each}", markup=False, highlight=False)
    return 1 if any(run.is_wrong for run in runs) else 0


def totals(runs: list[Run]) -> Table:
    table = _table("topology", "durability", title="chaos")
    for run in runs:
        table.add_row(run.topology, run.durability, *_cells(run.total))
    return table


def by_fault(run: Run) -> Table:
    table = _table("rounds with", title=f"{run.topology}, durability {run.durability}")
    for fault, figures in sorted(run.by_fault.items()):
        table.add_row(fault, *_cells(figures))
    return table


def _table(*first: str, title: str) -> Table:
    table = Table(*first, title=title)
    for name in (
        *(
            "rounds",
            "acknowledged",
            "surviving",
            "lost",
            "doubled",
            "torn",
            "backwards",
            "skipped",
            "damaged",
        ),
        *("errors", "publish s", "read s"),
    ):
        table.add_column(name, justify="right")
    return table


def _cells(figures: Figures) -> list[str]:
    found = figures.verdict
    wrong = (found.lost, found.doubled, found.torn, found.backwards, found.skipped, found.damaged)
    return [
        str(figures.rounds),
        str(found.acknowledged),
        str(found.surviving),
        *(str(len(each)) for each in wrong),
        ", ".join(f"{count} {kind}" for kind, count in sorted(figures.errors.items())),
        f"{figures.longest_publish_s:.1f}",
        f"{figures.longest_read_s:.1f}",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
