"""What the command prints: JSON and bytes for scripts, tables for people, messages on stderr.

rich is imported in the functions that need it, because scripts should not wait for it.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rich.console import Console
    from rich.text import Text

    from swapstore.models import Snapshot

NORMAL_WIDTH = 80
WIDE_WIDTH = 100
PREVIEW_LINES = 24

_UNITS = (("day", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_OPTIONAL = {"encoding", "replicas", "nodes"}  # fields that are left out where they are None
_CREDENTIALS = re.compile(r"://.*@")  # greedy: a password may contain anything, even an @
_EXAMPLE = re.compile(r"://(USER)?:PASSWORD@[^@]*$")  # it shows how to write a URL
_PASSWORD = re.compile(r"password=[^&\s]*")


# --- for scripts -----------------------------------------------------------------------------------


def write(data: bytes) -> None:
    """Write bytes to stdout and flush, so that the reader of a pipe need not wait for more.

    With PYTHONUNBUFFERED one write may take only a part of the bytes.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[sys.stdout.buffer.write(rest) :]
    sys.stdout.buffer.flush()


def write_json(value: Any) -> None:
    """Write one value as one line of JSON, in UTF-8 whatever the locale."""
    plain = fields_of(value) if attrs.has(type(value)) else value
    write(msgspec.json.encode(plain) + b"\n")


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of an attrs instance in their order; some of them only if it has one."""
    return attrs.asdict(value, filter=lambda field, each: field.name not in _OPTIONAL or each is not None)


# --- messages --------------------------------------------------------------------------------------


def complain(message: str) -> None:
    """Print one line to stderr, without control characters and without the password of a URL."""
    print(f"swapstore: {printable(_without_password(' '.join(message.split())))}", file=sys.stderr)


def _without_password(line: str) -> str:
    example = _EXAMPLE.search(line)
    end = example.start() if example else len(line)
    return _PASSWORD.sub("password=…", _CREDENTIALS.sub("://…@", line[:end])) + line[end:]


class LogToStderr(logging.Handler):
    """Prints what the library logs, such as an outage, in the way of the command's own messages."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message of a record."""
        complain(record.getMessage())


def printable(text: str) -> str:
    """Escape control characters: text from the store must not move the cursor or set the window's title."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


# --- values as text --------------------------------------------------------------------------------


def instant(ts_ms: int, separator: str = "T") -> str:
    """Return a time in ISO form, UTC, to the millisecond, as `--ts` and `--as-of` accept it.

    With a space as the separator, a narrow column wraps between date and time.
    """
    moment = datetime.fromtimestamp(ts_ms // 1000, tz=UTC)
    fraction = f".{ts_ms % 1000:03d}" if ts_ms % 1000 else ""
    return f"{moment:%Y-%m-%d}{separator}{moment:%H:%M:%S}{fraction}Z"


def age(ts_ms: int, now_ms: int | None = None) -> str:
    """Return how long ago a time was, in its two largest units."""
    elapsed_ms = (time.time_ns() // 1_000_000 if now_ms is None else now_ms) - ts_ms
    if abs(elapsed_ms) < _UNITS[-1][1]:
        return "just now"
    return f"{duration(elapsed_ms)} ago" if elapsed_ms > 0 else f"in {duration(-elapsed_ms)}"


def duration(length_ms: int) -> str:
    """Return a duration of a second or more, in its two largest units."""
    words, rest_ms = [], length_ms
    for unit, unit_ms in _UNITS:
        number, rest_ms = divmod(rest_ms, unit_ms)
        if number:
            words.append(f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''}")
        if words and (len(words) == 2 or not number):  # noqa: PLR2004 - two units are precise enough
            break
    return " ".join(words)


def size(size_bytes: int) -> str:
    """Return a number of bytes, rounded."""
    for unit, unit_bytes in (("MB", 1_000_000), ("KB", 1_000)):
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:.{1 if size_bytes < 100 * unit_bytes else 0}f} {unit}"
    return f"{size_bytes} B"


def labels(pairs: Mapping[str, str]) -> str:
    """Return labels as `--label` takes them, separated by commas."""
    return ", ".join(f"{key}={value}" for key, value in pairs.items())


def count(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural where it must be."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


# --- for people ------------------------------------------------------------------------------------


def stdout_console() -> Console:
    """Return the terminal at stdout."""
    from rich.console import Console  # noqa: PLC0415

    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)


def stderr_console() -> Console:
    """Return the terminal at stderr, where progress is drawn."""
    from rich.console import Console  # noqa: PLC0415

    return Console(file=sys.stderr, highlight=False, markup=False, emoji=False)


def print_facts(facts: Mapping[str, str]) -> None:
    """Print the attributes of one thing, one a line."""
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts.items():
        table.add_row(name, _cell(text))
    stdout_console().print(table)


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Collection[str] = (),
    widths: Mapping[str, int] | None = None,
) -> None:
    """Print a table that fits the terminal.

    `numbers` names the columns to align right. `widths` fixes columns on terminals of 80 to 99 columns, so
    that ids, which people copy, are not wrapped there. A narrower terminal wraps every column.
    """
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    terminal = stdout_console()
    gap = 1 if terminal.width >= WIDE_WIDTH else 0
    fixed = (widths or {}) if NORMAL_WIDTH <= terminal.width < WIDE_WIDTH else {}
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
        table.add_row(*map(_cell, row))
    terminal.print(table)


def print_text(text: str = "") -> None:
    """Print a sentence beside tables, or an empty line."""
    stdout_console().print(_cell(text))


def print_commands(*commands: str) -> None:
    """Print command lines to copy. They are not wrapped at the terminal's width."""
    for command in commands:
        stdout_console().print(_cell(f"  {command}"), soft_wrap=True)


def print_styled(*parts: tuple[str, str]) -> None:
    """Print a line of parts, each with its style. A long one is folded at the terminal's width."""
    line = _cell("")
    for text, style in parts:
        line.append(printable(text), style)
    stdout_console().print(line, overflow="fold")


def print_payload(snapshot: Snapshot, *, command: str) -> None:
    """Print the first lines of a JSON payload. `command` prints all of it."""
    from rich.highlighter import JSONHighlighter  # noqa: PLC0415

    terminal = stdout_console()
    terminal.print()
    if snapshot.codec != "json":
        print_text("The payload is not JSON. To write it to a file:")
        print_commands(f"{command} > FILE")
        return
    lines = msgspec.json.format(snapshot.raw, indent=2).decode().split("\n")
    paint = JSONHighlighter()
    for line in lines[:PREVIEW_LINES]:
        text = _cell(line)
        paint.highlight(text)
        terminal.print(text, no_wrap=True, overflow="ellipsis")
    left_out = len(lines) - PREVIEW_LINES
    if left_out > 0 or any(len(line) > terminal.width for line in lines):
        print_text(
            f"… {left_out:,} more lines. All of it:" if left_out > 0 else "Long lines are cut. All of it:"
        )
        print_commands(f"{command} --json")


def _cell(text: str) -> Text:
    """Return text that is printed as it is: no markup, no control characters but line breaks."""
    from rich.text import Text  # noqa: PLC0415

    return Text("\n".join(map(printable, text.split("\n"))))
