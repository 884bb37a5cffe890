"""The results of a diagnosis: one check for each thing that could break the promise."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from swapstore.commands import Failed


class Verdict(enum.StrEnum):
    """The result of a check."""

    OK = "ok"
    WARNING = "warning"  # it works, but there is something to know or to fix
    PROBLEM = "problem"  # published data can get lost, or data cannot be published or read
    UNKNOWN = "unknown"  # the store does not say, or not to this user: ask its administrator


@attrs.frozen
class Check:
    """One thing that was checked: what was found, and what to do about it (empty: nothing)."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def reason(refused: Failed) -> str:
    """Return why the store refused a question."""
    return str(refused.error)


def unknown_kind(kind: str) -> Check:
    """Return the only check for a kind of store that swapstore has no questions for."""
    return Check(
        "store",
        Verdict.UNKNOWN,
        f"swapstore has no questions for a store of the kind {kind!r}",
        "Ask its administrator whether it keeps what it acknowledged.",
    )
