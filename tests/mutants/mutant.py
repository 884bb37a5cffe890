"""A mutant: a protocol mistake as a small change of the real code, and the test that must fail."""

from __future__ import annotations

import attrs


@attrs.frozen
class Edit:
    """Replace a fragment of a definition, in whichever file of the package it is; see `anchors`.

    `within` is a function, class, `Class.method` or module-level constant, or the file name of a Lua script.
    `old` occurs there exactly once, apart from white space, comments and docstrings. The lines of `new` after
    the first get the indentation of the line in which `old` begins.
    """

    within: str
    old: str
    new: str


@attrs.frozen
class Mutant:
    """A mistake that a person could make, the promise that it breaks, and the tests that must fail."""

    name: str
    promise: str
    checks: tuple[str, ...]  # pytest node ids below `tests/`
    edits: tuple[Edit, ...]


def mutant(name: str, promise: str, check: str, *edits: Edit) -> Mutant:
    """Describe a mutant that one check kills."""
    return Mutant(name, promise, (check,), edits)
