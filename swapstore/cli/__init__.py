"""The command `swapstore`. It needs the extra `[cli]`; without it, it says so."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MISSING_EXTRA = 2
BUG = 70  # sysexits' EX_SOFTWARE; Python's own 1 would read as "nothing published"
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    What it needs is imported here: the library does without the extra, and an interrupt while it loads is
    as quiet as one later.
    """
    try:
        from swapstore.cli.run import run  # noqa: PLC0415

        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, its exit code must not look like an answer
        if isinstance(error, ImportError) and (error.name or "").partition(".")[0] in {"cyclopts", "rich"}:
            print("swapstore: the command needs an extra: pip install 'swapstore[cli]'", file=sys.stderr)
            return MISSING_EXTRA
        traceback.print_exc()
        return BUG
