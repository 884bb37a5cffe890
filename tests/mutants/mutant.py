"""What a mutant is: a protocol mistake as a small patch of the real code, and the check that must kill it."""

from __future__ import annotations

import attrs


@attrs.frozen
class Edit:
    """Replace a text that stands in a file exactly once."""

    file: str  # below `swapstore/`
    old: str
    new: str


@attrs.frozen
class Mutant:
    """A mistake that somebody could make, the promise it breaks, and the tests that must fail of it."""

    name: str
    promise: str
    checks: tuple[str, ...]  # pytest node ids below `tests/`
    edits: tuple[Edit, ...]


def mutant(name: str, promise: str, check: str, *edits: Edit) -> Mutant:
    """Describe a mutant that one check kills."""
    return Mutant(name, promise, (check,), edits)
