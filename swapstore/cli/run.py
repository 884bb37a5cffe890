"""One run of the command: what went wrong becomes one line on stderr and an exit code.

Scripts rely on the codes. They follow the groups of `swapstore.errors`: what a caller would do about it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cyclopts import CycloptsError, UnusedCliTokensError

from swapstore.cli.app import app
from swapstore.cli.complaint import complain
from swapstore.errors import Damaged, InvalidInput, NotFound, Refused, SwapstoreError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

CODES: dict[type[SwapstoreError], int] = {
    NotFound: 1,
    InvalidInput: 2,
    Refused: 3,
    Unavailable: 4,
    Damaged: 5,
}
USAGE = 2
NO_READER = 141  # what a shell reports for a command that wrote into a closed pipe


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line and return the exit code."""
    _open_streams()
    try:
        app.meta(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        complain(_usage(error))
        return USAGE
    except BrokenPipeError:
        _let_go_of_stdout()
        return NO_READER
    except SwapstoreError as error:
        complain(str(error))
        return next(code for group, code in CODES.items() if isinstance(error, group))
    except OSError as error:  # files are read and stores reached under errors of their own
        _let_go_of_stdout()
        complain(f"the output cannot be written: {error.strerror}")
        return USAGE
    return 0


def _usage(error: CycloptsError) -> str:
    command = " ".join(["swapstore", *(error.command_chain or ())])
    if isinstance(error, UnusedCliTokensError):
        return f"too many arguments: {' '.join(error.unused_tokens or ())}. See: {command} --help"
    return f"{error} See: {command} --help"


def _open_streams() -> None:
    """Give print and tables somewhere to write when a stream was closed (`>&-`), as a cron job may do."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - until exit


def _let_go_of_stdout() -> None:
    """Drop what is still buffered, or the interpreter fails on it once more while it exits."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
