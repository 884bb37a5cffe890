"""What is written when a person looks: tables as wide as the terminal. Every cell is foreign text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from swapstore.cli.human import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

USUAL_WIDTH = 80
ROOMY_WIDTH = 100


def console() -> Console:
    """Return the person's terminal. A letter it cannot show becomes a question mark, never an error."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)


def show_facts(facts: Mapping[str, str]) -> None:
    """Show what is known of one thing, a line each."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts.items():
        table.add_row(name, cell(text))
    console().print(table)


def show_rows(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[str] = (),
    widths: Mapping[str, int] | None = None,
) -> None:
    """Show many things of a kind, a row each.

    `widths` are of columns that keep theirs on a terminal of usual width, where the others make room:
    what a person copies should not be broken. On a narrower one everything is.
    """
    terminal = console()
    gap = 1 if terminal.width >= ROOMY_WIDTH else 0
    fixed = (widths or {}) if USUAL_WIDTH <= terminal.width < ROOMY_WIDTH else {}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, gap, 0, 0))
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if heading in numbers else "left",
            no_wrap=heading in numbers,
            width=fixed.get(heading),
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(cell, row))
    terminal.print(table)


def cell(text: str) -> Text:
    """Return text as it is, line by line: no markup, no control characters."""
    return Text("\n".join(map(printable, text.split("\n"))))


def say(text: str = "") -> None:
    """Print a sentence beside tables, or an empty line."""
    console().print(cell(text))


def suggest(*commands: str) -> None:
    """Print command lines to copy, so that none is broken where the terminal's line ends."""
    for command in commands:
        console().print(cell(f"  {command}"), soft_wrap=True)
