"""The results: sheets of figures, for people and as JSON. A ratio stands before its times."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from tests.benchmarks.rounds import Sample, ratio

PIPED_WIDTH = 130
LEFT = {"load", "way", "store", "figure", "synced to disk", "errors", "verdict"}
Row = dict[str, Any]


@attrs.define
class Sheet:
    """A table: rows of plain values by column. Columns whose name ends in `_us` hold microseconds."""

    section: str
    title: str
    rows: list[Row]
    notes: list[str] = attrs.field(factory=list)


def timed(section: str, title: str, samples: Mapping[str, Sample], base: str) -> Sheet:
    """Lay out the measured times, each way compared with one of them."""
    rows: list[Row] = []
    for name, sample in samples.items():
        against = ratio(sample, samples[base])
        row = {
            "way": name,
            "ratio": against.value,
            "low": against.low,
            "high": against.high,
            "median_us": sample.median_us,
            "p99_us": sample.p99_us,
            "rounds": len(sample.taken_ns),
            "cpu_us": sample.cpu_us,
            "sent": None if sample.sent is None else round(sample.sent),
            "received": None if sample.received is None else round(sample.received),
        }
        rows.append({column: value for column, value in row.items() if value is not None})
    return Sheet(section, title, rows, [f"ratio: to “{base}”, round by round; low and high: 95 %"])


@attrs.define
class Report:
    """All results. `samples` are kept by block and way, for the targets and the plots."""

    console: Console
    about: dict[str, Any] = attrs.field(factory=dict)
    sheets: list[Sheet] = attrs.field(factory=list)
    samples: dict[tuple[str, str], Sample] = attrs.field(factory=dict)
    facts: dict[str, Any] = attrs.field(factory=dict)
    notes: list[str] = attrs.field(factory=list)

    def add(self, sheet: Sheet) -> None:
        """Keep a sheet, and show it."""
        self.sheets.append(sheet)
        self.console.print(shown(sheet))
        for note in sheet.notes:
            self.console.print(f"  {note}", style="dim", highlight=False)
        self.console.print()

    def add_timed(
        self, section: str, title: str, samples: Mapping[str, Sample], base: str, *notes: str
    ) -> None:
        """Keep the measured times under their title, and show them."""
        self.samples |= {(title, name): sample for name, sample in samples.items()}
        sheet = timed(section, title, samples, base)
        sheet.notes += notes
        self.add(sheet)

    def note(self, text: str) -> None:
        """Record once what a reader of the figures must know, such as what could not be measured."""
        if text not in self.notes:
            self.notes.append(text)
            self.console.print(f"note: {text}\n", highlight=False)

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        sheets = [attrs.asdict(sheet) for sheet in self.sheets]
        found = {"about": self.about, "sheets": sheets, "facts": self.facts, "notes": self.notes}
        path.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def console() -> Console:
    """Return a console that is wide enough if the output is not a terminal."""
    made = Console()
    return made if made.is_terminal else Console(width=PIPED_WIDTH)


def shown(sheet: Sheet) -> Table:
    """Draw a sheet."""
    table = Table(title=sheet.title, title_justify="left")
    columns = list(dict.fromkeys(column for row in sheet.rows for column in row))
    for column in columns:
        table.add_column(
            column.removesuffix("_us"),
            justify="left" if column in LEFT else "right",
            overflow="fold",
        )
    for row in sheet.rows:
        table.add_row(*(cell(column, row.get(column)) for column in columns))
    return table


def cell(column: str, value: Any) -> str:
    """Show a value in the unit that suits it."""
    if value is None:
        return "-"
    if column.endswith("_us"):
        return f"{value / 1000:,.2f} ms" if value >= 1000 else f"{value:,.1f} µs"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 0.1 else f"{value:.2f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
