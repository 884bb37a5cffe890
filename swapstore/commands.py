"""The commands an operation may send, and their replies. Every driver gives them these meanings.

A batch is a list of commands sent together; it is **not** atomic, each command stands alone, and they take
effect in their order. A driver answers with one reply a command. A command that the store refused has a
`Failed` as its reply, and its neighbours have their own: nothing is inferred from one about another.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import attrs

from swapstore.errors import SwapstoreError

R = TypeVar("R")


class Command(Generic[R]):
    """Something the store does at once, with a reply of type R."""

    __slots__ = ()


@attrs.frozen
class Failed:
    """The store refused this command; it had no effect."""

    error: SwapstoreError


# --- reading ---------------------------------------------------------------------------------------


@attrs.frozen
class Get(Command[bytes | None]):
    """The value of a key, None if there is none."""

    key: str


@attrs.frozen
class Peek(Command[bytes]):
    """The first `size` bytes of a key's value, empty if there is none."""

    key: str
    size: int


@attrs.frozen
class Members(Command[frozenset[str]]):
    """The members of a set."""

    key: str


# --- writing ---------------------------------------------------------------------------------------


@attrs.frozen
class Stage(Command[bool]):
    """Write a record with a TTL if the key is free; False if it is taken."""

    key: str
    record: bytes = attrs.field(repr=False)
    ttl_ms: int


@attrs.frozen
class Replace(Command[bool]):
    """Take a staged key over: write the record, with a TTL, unless the key has none (False)."""

    key: str
    record: bytes = attrs.field(repr=False)
    ttl_ms: int


@attrs.frozen
class Put(Command[None]):
    """Write a value with a TTL, whatever was there."""

    key: str
    value: bytes = attrs.field(repr=False)
    ttl_ms: int


@attrs.frozen
class Register(Command[None]):
    """Add a member to a set."""

    key: str
    member: str


# --- the commit ------------------------------------------------------------------------------------


@attrs.frozen
class Staged:
    """A record that a commit relies on, and the header it must have (newline included).

    It must have a TTL too: without one it was committed before, and its id is taken. A `shared` record (a
    page) may be permanent already, for whoever sealed it sealed the same bytes.
    """

    key: str
    header: bytes = attrs.field(repr=False)
    shared: bool = False


@attrs.frozen(kw_only=True)
class Commit(Command["CommitReply"]):
    """Swap the manifest, atomically, in this order.

    1. compare the stored manifest's first bytes: `prefix` → `Already`; not `expected` → `Conflict`
       (`expected` is empty when no manifest must be there);
    2. verify each staged record: absent → `Unstaged`; without a TTL → `Held` (unless shared); with
       another header → `Unstaged`;
    3. make the staged records permanent;
    4. **set the manifest: the commit point**;
    5. give each unlinked key the reader grace as its TTL, remove the live view, publish a hint on the
       channel named like the manifest key. A failure from here on is not one of the commit.

    Whatever cuts it short leaves permanent but invisible records at worst, never a manifest that points
    at nothing.
    """

    key: str
    expected: bytes
    prefix: bytes
    manifest: bytes = attrs.field(repr=False)
    live_key: str
    staged: tuple[Staged, ...] = ()
    unlinked: tuple[str, ...] = ()
    staging_ttl_ms: int
    grace_ms: int


@attrs.frozen
class Committed:
    """The manifest is swapped."""


@attrs.frozen
class Already:
    """The stored manifest is this one already: an earlier send of the same commit was applied."""


@attrs.frozen
class Conflict:
    """The stored manifest is another (None: there is none)."""

    current: bytes | None = attrs.field(repr=False)


@attrs.frozen
class Unstaged:
    """A staged record is not there, or (`present`) another one is in its place, still staged."""

    key: str
    present: bool


@attrs.frozen
class Held:
    """A record without a TTL has the key: committed before."""

    key: str


CommitReply = Committed | Already | Conflict | Unstaged | Held
