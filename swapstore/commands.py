"""The commands that an operation can send, and their replies. Every driver carries them out as said here.

A batch is a list of commands that are sent at once. It is **not** atomic: the commands take effect in their
order, and any of them may fail while its neighbours succeed. A driver returns one reply for each command. The
reply of a command that the store refused is `Failed`; it says nothing about the other commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from swapstore.errors import SwapstoreError
from swapstore.structs import Struct

if TYPE_CHECKING:
    from swapstore.models import Durability

R = TypeVar("R")


class Command(Struct, Generic[R], frozen=True):
    """One atomic action of the store, with a reply of type R."""


class ReadCommand(Command[R], frozen=True):
    """A command that changes nothing: it can be sent again if its reply was lost."""


class Failed(Struct, frozen=True):
    """The store refused this command; it had no effect.

    `again`: this server is not the one to ask, such as a primary that was demoted, or not now. The driver has
    dropped its connections to it, and a new one may lead to another server.
    """

    error: SwapstoreError
    again: bool = False


# --- reading ---------------------------------------------------------------------------------------


class Get(ReadCommand[bytes | None], frozen=True):
    """Return the value of a key, or None."""

    key: str


class Served(Struct, frozen=True):
    """A manifest or None, the id record that it serves, and the base that this needs; None: not read.

    The manifest may be its header line alone, newline included. `members`: the record of each member that was
    asked for, followed by its base; empty: not read.
    """

    manifest: bytes | None
    record: bytes | None = None
    base: bytes | None = None
    members: tuple[bytes | None, ...] = ()


class GetServed(ReadCommand[Served], frozen=True):
    """Return a manifest and, if the store can read all at the same moment, the id record that it serves.

    So it does with the base that its header names for this record. `records` and `bases` are the prefixes of
    the keys of the dataset's id records and bases. A store may always return the manifest alone, or without
    the base. It must if the record or the base takes more than `largest` bytes, or for a record: if it and
    its payload do.

    `members`: of a group, return the records of these members instead, and what these may be stored against.
    Their names follow a colon: after the name of the group in the one key (see `keys.group_name`), and after
    the name of the base in the other.
    `records` is the prefix of the keys of members then.
    """

    key: str
    records: str
    bases: str
    largest: int
    members: tuple[str, ...] = ()


class Peek(ReadCommand[bytes], frozen=True):
    """Return the first `size` bytes of a key's value; empty if there is none."""

    key: str
    size: int


class Members(ReadCommand[frozenset[str]], frozen=True):
    """Return the members of a set."""

    key: str


ABSENT = -2
PERMANENT = -1


class Ttl(ReadCommand[int], frozen=True):
    """Return a key's TTL in milliseconds; `PERMANENT` without a TTL, `ABSENT` without a key."""

    key: str


class Scanned(Struct, frozen=True):
    """Some keys, and where to go on (None: there are no more). A key may be returned twice."""

    keys: tuple[str, ...]
    cursor: str | None


class Scan(ReadCommand[Scanned], frozen=True):
    """Return some of the keys that match a pattern (`*`: any characters), about `limit` at a time.

    Every key that exists from the first call to the last is returned; others may be.
    """

    pattern: str
    cursor: str
    limit: int


class Time(ReadCommand[int | None], frozen=True):
    """Return the store's own time in milliseconds since the Unix epoch. None: it has no clock of its own."""


class Ask(ReadCommand[Any], frozen=True):
    """Ask about the store itself, with a command of this kind of store, for `doctor`.

    `node`: which node of a cluster to ask, as `host:port`, or which sentinel, or replica behind sentinels.
    Default: the primary; of a cluster, one that serves slots. A batch either names a node in each command or
    in none. The answer of a named node is final: it is not asked again for what it refuses.

    The driver itself answers two questions. `nodes`: the primaries of a cluster, each with its replicas.
    `sentinels`: what the sentinels call the primary, and their addresses; None without sentinels.
    """

    words: tuple[str, ...]
    node: str = ""


NOT_ON_DISK = -1


class AwaitReplicas(ReadCommand[int], frozen=True):
    """Wait until `replicas` replicas have what was written before it in its batch, at most `timeout_ms`.

    Return how many have it. With `fsync`: how many have it on disk; `NOT_ON_DISK` if the server itself has
    not. `key` only says which server to ask, if there are several.

    A server waits for what its connection has written, so **the command right before it in the batch is a
    write**, and has to be carried out by the same server on the same connection. After a batch that wrote
    nothing, it may return the full number at once. So it is never sent again without that command.

    If a batch has several of them that ask for the same, a driver may send only the last, for each server.
    Only servers that have replicas carry it out. `AwaitReplicas(key, 0, fsync, 1)` asks whether they do.
    """

    key: str
    replicas: int
    fsync: bool
    timeout_ms: int

    @classmethod
    def of(cls, durability: Durability, key: str) -> AwaitReplicas:
        """Return the command that waits for what a publish asks for, behind a write to the same server."""
        return cls(key, durability.replicas, durability.fsync, durability.timeout_ms)

    def asks_like(self, other: Command[Any]) -> bool:
        """Say whether another command asks for the same, of any key."""
        return isinstance(other, AwaitReplicas) and msgspec.structs.replace(other, key=self.key) == self


class BackUp(ReadCommand[int], frozen=True):
    """Copy a SQLite store into a new file, and return its size in bytes. It is a batch of its own."""

    path: str


# --- writing ---------------------------------------------------------------------------------------


class Stage(Command[bool], frozen=True):
    """Write a record with a TTL if the key is free; False if it is taken.

    The value is `record` followed by `body`: a payload of megabytes need not be copied to add a header.
    """

    key: str
    record: bytes
    ttl_ms: int
    body: bytes = b""


class Replace(Command[bool], frozen=True):
    """Take over a staged key: write the record with a TTL; False if the key is permanent."""

    key: str
    record: bytes
    ttl_ms: int


class Put(Command[None], frozen=True):
    """Write a value with a TTL, over any other value."""

    key: str
    value: bytes
    ttl_ms: int


class Write(Command[None], frozen=True):
    """Write a value without a TTL, over any other value.

    Only for keys outside the namespace: swapstore's own become permanent by a commit.
    """

    key: str
    value: bytes


class Register(Command[None], frozen=True):
    """Add a member to a set."""

    key: str
    member: str


class Unregister(Command[None], frozen=True):
    """Take a member from a set."""

    key: str
    member: str


class Restore(Command[None], frozen=True):
    """Replace all that a SQLite store contains by the content of another file. It is a batch of its own."""

    path: str


# --- without scripts -------------------------------------------------------------------------------
# The steps of a commit on an endpoint that runs no scripts, see protocol/scriptless. Drivers of stores that
# always commit in one step do not need these.


class Keep(Command[bool], frozen=True):
    """Write a value without a TTL if the key is free; False if it is taken."""

    key: str
    value: bytes


class CompareAndSet(Command[bool], frozen=True):
    """Write a value if the key's value is exactly `expected`; False if it is not.

    `ttl_ms` None: without a TTL.
    """

    key: str
    expected: bytes
    value: bytes
    ttl_ms: int | None = None


class Drop(Command[None], frozen=True):
    """Delete a key if it has a TTL: committed records have none."""

    key: str


class Expire(Command[None], frozen=True):
    """Give a key a TTL, if it exists."""

    key: str
    ttl_ms: int


class Remove(Command[None], frozen=True):
    """Delete a key."""

    key: str


# --- the commit ------------------------------------------------------------------------------------


class Staged(Struct, frozen=True):
    """A staged record that a commit requires, and the header (its first bytes) that it must have.

    It must also have a TTL: a permanent record is committed, and its id is taken. A `shared` record (a page)
    may be permanent already, because every producer seals the same bytes under its key.
    """

    key: str
    header: bytes
    shared: bool = False


class Rewritten(Struct, frozen=True):
    """A committed record that a commit replaces by one with the same payload in another encoding.

    `header` is the header that it must have now (its first bytes). `needs_base`: the new record is a
    difference from a base, which the manifest has to name before.
    """

    key: str
    header: bytes
    record: bytes
    needs_base: bool = False


class Swap(Command["SwapReply"], frozen=True, kw_only=True):
    """Swap the manifest, atomically, in this order.

    1. compare the first bytes of the stored manifest: `prefix` → `Already`; not `expected` → `Mismatch`.
       An empty `expected` means that there must be no manifest. With `whole` there must be a value, and
       `expected` is all of it (empty for a value of another type): so a repair replaces exactly the corrupt
       value that it has seen;
    2. verify each staged record: absent → `Unstaged`; without a TTL → `Held` (unless shared); with
       another header → `Unstaged`. Likewise each record to be rewritten: absent, with a TTL or with another
       header → `Unstaged`;
    3. make the staged records permanent, and replace the rewritten records that need no base;
    4. **set the manifest: the commit point**;
    5. replace the rewritten records that need a base, give each unlinked key a TTL of `grace_ms`, delete the
       live view, and publish a hint on the channel that is named like the manifest key. A failure in this
       step does not fail the commit.

    `even_if_full`: a store that can do so carries out the swap, and the `Stage` commands right before it,
    although it is full. The caller sees to it that the store does not go on growing by them.

    Whatever cuts it short leaves permanent but invisible records at worst, never a manifest that points
    at nothing. A record that needs no base can be read under the old manifest and under the new one; one that
    needs a base follows the manifest that names it, and the base is permanent by then.
    """

    key: str
    expected: bytes
    prefix: bytes
    manifest: bytes
    live_key: str
    whole: bool = False
    staged: tuple[Staged, ...] = ()
    rewritten: tuple[Rewritten, ...] = ()
    unlinked: tuple[str, ...] = ()
    staging_ttl_ms: int
    grace_ms: int
    even_if_full: bool = False


class Committed(Struct, frozen=True):
    """The manifest was swapped."""


class Already(Struct, frozen=True):
    """The stored manifest is already this one: the same commit was sent before, and was applied."""


class Mismatch(Struct, frozen=True):
    """The stored manifest is not the expected one; `current` is the stored one, or None."""

    current: bytes | None


class Unstaged(Struct, frozen=True):
    """A record does not exist as the commit needs it, or (`present`) another record has its key."""

    key: str
    present: bool


class Held(Struct, frozen=True):
    """A permanent record has the key: it is committed."""

    key: str


SwapReply = Committed | Already | Mismatch | Unstaged | Held
