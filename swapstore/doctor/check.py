"""What a diagnosis says: one check each thing that could break the promise."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from swapstore.commands import Failed


class Verdict(enum.StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"  # it works, and there is something to know or to mend
    PROBLEM = "problem"  # what was published can get lost, or cannot be published or read
    UNKNOWN = "unknown"  # the store does not say; somebody else has to be asked


@attrs.frozen
class Check:
    """One thing that was looked at: what was found, and what to do about it (empty: nothing)."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def reason(refused: Failed) -> str:
    """Return what the store refused a question with."""
    return str(refused.error)
