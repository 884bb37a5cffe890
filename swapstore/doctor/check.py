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


@attrs.frozen(kw_only=True)
class Node:
    """One of several servers, as the others and itself describe it. None: not told.

    `role`: `primary` or `replica`. `of`: the primary of a replica. `link`: `up`, `down` or `unknown`, of a
    replica to its primary, of a primary to this client. A replica is `behind_bytes` behind its primary, and
    they heard of each other `heard_s` seconds ago. `slots`: how many a primary of a cluster serves.
    `append_only`: whether it has an append-only file. `note`: what else there is to know.
    """

    address: str
    role: str
    of: str | None = None
    link: str = "unknown"
    behind_bytes: int | None = None
    heard_s: int | None = None
    slots: int | None = None
    version: str | None = None
    append_only: bool | None = None
    note: str = ""


@attrs.frozen
class Check:
    """One thing that was checked: what was found, and what to do about it (empty: nothing).

    `nodes`: the servers that a check of several is about; None: it is about no list of servers.
    """

    name: str
    verdict: Verdict
    found: str
    advice: str = ""
    nodes: tuple[Node, ...] | None = None


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
