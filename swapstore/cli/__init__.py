"""The command `swapstore`. It needs the extra `[cli]`, and says so where that is missing."""

from __future__ import annotations

import enum
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class ExitCode(enum.IntEnum):
    """Exit codes, which scripts rely on. 1 to 5, 8 and 9 are the groups of errors in `swapstore.errors`."""

    DONE = 0
    NOT_FOUND = 1
    USAGE = 2
    REFUSED = 3
    UNAVAILABLE = 4
    DAMAGED = 5
    STALE = 6
    PROBLEM = 7
    MISCONFIGURED = 8
    UNDER_REPLICATED = 9
    DIFFERENT = 10
    BUG = 70  # EX_SOFTWARE of sysexits; Python's own 1 would read as "nothing published"
    INTERRUPTED = 130  # what a shell reports after Ctrl-C
    NO_READER = 141  # what a shell reports for a command that wrote into a closed pipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    The application is imported here, because the library works without the extra, and because Ctrl-C
    during the import must be as quiet as later.
    """
    try:
        from swapstore.cli.app import run  # noqa: PLC0415

        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - no exception may end with the exit code of an answer
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] in {"cyclopts", "rich"}:
            print("swapstore: the command needs an extra: pip install 'swapstore[cli]'", file=sys.stderr)
            return ExitCode.USAGE
        traceback.print_exc()
        return ExitCode.BUG
