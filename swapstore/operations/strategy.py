"""How a store commits: with a script, or, where none runs, with plain commands.

What an endpoint can do is found out by trying, and remembered. A script commits in one atomic step. Where
scripts do not run, `SET … IFEQ` compares and sets in one command. Where that is not there either, only a
single writer is safe, and only who says so (`single_writer=True`) commits there, under a lease.
"""

from __future__ import annotations

import enum

import attrs


class Way(enum.Enum):
    """How the manifest is swapped."""

    SCRIPT = "a script"
    COMPARE = "compare-and-set"
    LEASE = "a plain SET by a single writer, under a lease"


@attrs.define
class Strategy:
    """What one client knows of its endpoint. `way` is None until it was tried.

    `serves`: nothing speaks yet against asking for a manifest and what it serves at once.
    """

    single_writer: bool = False
    way: Way | None = None
    serves: bool = True

    @property
    def scripted(self) -> bool:
        """Whether a commit is sent as a script: nothing speaks against it yet."""
        return self.way in {None, Way.SCRIPT}
