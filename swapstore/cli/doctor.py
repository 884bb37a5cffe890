"""`swapstore doctor`: what could break the promise, and what to do about it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from swapstore.cli.output import emit_json
from swapstore.cli.session import Here
from swapstore.doctor.check import Verdict

if TYPE_CHECKING:
    from swapstore.doctor.check import Check

FOUND_A_PROBLEM = 7


def doctor(*, session: Here) -> None:
    """Check the server, or the file, for what could break the promise. Writes nothing.

    A check is ok, a warning, a problem, or unknown: somebody else has to be asked.
    With a problem the exit code is 7. When piped, a line of JSON each.
    """
    with session.connect() as store:
        checks = store.doctor()
    if session.for_a_person:
        _show(checks)
    else:
        for check in checks:
            emit_json(check)
    if any(check.verdict is Verdict.PROBLEM for check in checks):
        sys.stdout.flush()  # a reader that went away is noticed here, not while the interpreter exits
        sys.exit(FOUND_A_PROBLEM)


def _show(checks: list[Check]) -> None:
    from swapstore.cli.tables import show_rows  # noqa: PLC0415 - only a person waits for rich

    show_rows(
        ("verdict", "what", "found, and what to do"),
        (
            (check.verdict, check.name, f"{check.found}\n→ {check.advice}" if check.advice else check.found)
            for check in checks
        ),
    )
