"""What the command prints: JSON and bytes for scripts, tables for people, messages on stderr.

rich is imported in the functions that need it, because scripts should not wait for it.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore import documents

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rich.console import Console
    from rich.text import Text

NORMAL_WIDTH = 80
WIDE_WIDTH = 100
PREVIEW_LINES = 24

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
    plain = documents.fields_of(value) if attrs.has(type(value)) else value
    write(msgspec.json.encode(plain) + b"\n")


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


def print_payload(payload: bytes, codec: str, *, command: str) -> None:
    """Print the first lines of a JSON payload. `command` prints all of it."""
    from rich.highlighter import JSONHighlighter  # noqa: PLC0415

    terminal = stdout_console()
    terminal.print()
    if codec != "json":
        print_text("The payload is not JSON. To write it to a file:")
        print_commands(f"{command} > FILE")
        return
    lines = msgspec.json.format(payload, indent=2).decode().split("\n")
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
