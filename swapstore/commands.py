"""The commands an operation may send, and their replies. Every driver gives them these meanings.

A batch is a list of commands sent together; it is **not** atomic, each command stands alone, and they take
effect in their order. A driver answers with one reply a command. A command that the store refused has a
`Failed` as its reply, and its neighbours have their own: nothing is inferred from one about another.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import attrs

from swapstore.errors import SwapstoreError

R = TypeVar("R")


class Command(Generic[R]):
    """Something the store does at once, with a reply of type R."""

    __slots__ = ()


class Reading(Command[R]):
    """A command that changes nothing: it may be sent again when its reply is lost."""

    __slots__ = ()


@attrs.frozen
class Failed:
    """The store refused this command; it had no effect."""

    error: SwapstoreError


# --- reading ---------------------------------------------------------------------------------------


@attrs.frozen
class Get(Reading[bytes | None]):
    """The value of a key, None if there is none."""

    key: str


@attrs.frozen
class Served:
    """A manifest, None if there is none, and the id record of what it serves, None if that was not read."""

    manifest: bytes | None = attrs.field(repr=False)
    record: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen
class GetServed(Reading[Served]):
    """The value of a manifest and, where the store can tell both at one moment, what it serves.

    `records` is what the keys of the dataset's id records begin with. A store may always answer with the
    manifest alone, and does where the payload is larger than `largest` bytes.
    """

    key: str
    records: str
    largest: int


@attrs.frozen
class Peek(Reading[bytes]):
    """The first `size` bytes of a key's value, empty if there is none."""

    key: str
    size: int


@attrs.frozen
class Members(Reading[frozenset[str]]):
    """The members of a set."""

    key: str


ABSENT = -2
PERMANENT = -1


@attrs.frozen
class Ttl(Reading[int]):
    """How long a key has still to live, in ms: `PERMANENT` without a TTL, `ABSENT` without a key."""

    key: str


@attrs.frozen
class Scanned:
    """Some keys, and where to go on (None: that was all). A key may come twice."""

    keys: tuple[str, ...]
    cursor: str | None


@attrs.frozen
class Scan(Reading[Scanned]):
    """Some of the keys that match a pattern (`*`: any characters), about `limit` a time.

    Every key that is there from the first call to the last is returned; others may be.
    """

    pattern: str
    cursor: str
    limit: int


@attrs.frozen
class Ask(Reading[Any]):
    """A question about the store itself, in the words of its driver, for the driver's own diagnosis."""

    words: tuple[str, ...]


# --- writing ---------------------------------------------------------------------------------------


@attrs.frozen
class Stage(Command[bool]):
    """Write a record with a TTL if the key is free; False if it is taken.

    The value is `record` and behind it `body`: a payload of megabytes need not be copied for its header.
    """

    key: str
    record: bytes = attrs.field(repr=False)
    ttl_ms: int
    body: bytes = attrs.field(default=b"", repr=False)


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
class Write(Command[None]):
    """Write a value without a TTL, whatever was there. For keys of others: swapstore's own are committed."""

    key: str
    value: bytes = attrs.field(repr=False)


@attrs.frozen
class Register(Command[None]):
    """Add a member to a set."""

    key: str
    member: str


# --- where scripts do not run ----------------------------------------------------------------------
# What a commit is made of on an endpoint that carries out plain commands alone; see protocol/scriptless.
# Drivers of stores that always commit in one step need none of these.


@attrs.frozen
class Keep(Command[bool]):
    """Write a value without a TTL if the key is free; False if it is taken."""

    key: str
    value: bytes = attrs.field(repr=False)


@attrs.frozen
class CompareAndSet(Command[bool]):
    """Write a value without a TTL if the key holds exactly this other one; False if it does not."""

    key: str
    expected: bytes = attrs.field(repr=False)
    value: bytes = attrs.field(repr=False)


@attrs.frozen
class Drop(Command[None]):
    """Remove a key if it has a TTL: what is committed has none."""

    key: str


@attrs.frozen
class Expire(Command[None]):
    """Give a key a TTL, if it is there."""

    key: str
    ttl_ms: int


@attrs.frozen
class Remove(Command[None]):
    """Remove a key."""

    key: str


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
       (`expected` is empty when no manifest must be there). With `whole` a value must be there, and
       `expected` is all of it (empty too for a value of another type): so repair replaces what is no
       manifest, and only that;
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
    whole: bool = False
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
