"""What a mutant is: a protocol mistake as a small patch of the real code, and the check that must kill it."""

from __future__ import annotations

import attrs


@attrs.frozen
class Edit:
    """Replace a fragment of a definition, wherever in the package it stands; see `anchors`.

    `within` is a function, class, `Class.method` or module-level constant, or the file name of a Lua script.
    `old` stands there exactly once, white space, comments and docstrings aside. The lines of `new` after its
    first are indented like the line that it begins in.
    """

    within: str
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
