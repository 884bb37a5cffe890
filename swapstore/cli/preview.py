"""The beginning of a payload, for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from rich.highlighter import JSONHighlighter

from swapstore.cli.tables import cell, console, say, suggest

if TYPE_CHECKING:
    from swapstore.models import Snapshot

LINES = 24


def show_payload(snapshot: Snapshot, *, how_to_get_it: str) -> None:
    """Show the first lines of a JSON payload, one line each, and how to get all of it."""
    terminal = console()
    terminal.print()
    if snapshot.codec != "json":
        say("Bytes are not shown. To write them to a file:")
        suggest(f"{how_to_get_it} > FILE")
        return
    lines = msgspec.json.format(snapshot.raw, indent=2).decode().split("\n")
    paint = JSONHighlighter()
    for line in lines[:LINES]:
        text = cell(line)
        paint.highlight(text)
        terminal.print(text, no_wrap=True, overflow="ellipsis")
    left_out = len(lines) - LINES
    if left_out > 0 or any(len(line) > terminal.width for line in lines):
        say(f"… {left_out:,} more lines. All of it:" if left_out > 0 else "Long lines are cut. All of it:")
        suggest(f"{how_to_get_it} --json")
