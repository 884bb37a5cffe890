"""What the user of a Redis server may do, asked with `ACL DRYRUN`, which carries nothing out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Ask, Command, Failed, Members
from swapstore.doctor.check import Check, Verdict, reason
from swapstore.doctor.info import text
from swapstore.errors import AccessDenied, Unscripted
from swapstore.protocol.load import ask_all

if TYPE_CHECKING:
    from swapstore.format.keys import Keys
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

Words = tuple[str, ...]

ANY = "any"  # a name to ask about while nothing is published
MANY = 20  # datasets to ask about: rules of users may distinguish them
_NO_SCRIPT = "0" * 40


@attrs.frozen
class Permissions:
    """A user, and the commands that it may not run, by what they are for. None: not told.

    `upkeep` are the commands of verify and repair. `dataset`: the one that these are about, if the user may
    do less with others.
    """

    user: str | None
    reading: tuple[str, ...] | None = None
    publishing: tuple[str, ...] | None = None
    upkeep: tuple[str, ...] | None = None
    dataset: str | None = None

    @property
    def only_reads(self) -> bool:
        """Whether the user seems made for readers: it may neither write records nor commit."""
        return {"SET", "EVAL"} <= set(self.publishing or ())


def _reading(keys: Keys, dataset: str) -> list[Words]:
    manifest = keys.manifest(dataset)
    return [("GET", manifest), ("GETRANGE", manifest, "0", "1"), ("SMEMBERS", keys.datasets())]


def _publishing(keys: Keys, dataset: str) -> list[Words]:
    manifest, record = keys.manifest(dataset), keys.id(dataset, "any")
    return [
        ("SET", record, "", "NX", "PX", "1"),
        ("SADD", keys.datasets(), dataset),
        ("EVAL", "return 1", "2", manifest, record),
        ("EVALSHA", _NO_SCRIPT, "2", manifest, record),
        ("EXISTS", manifest),
        ("PTTL", record),
        ("PERSIST", record),
        ("PEXPIRE", record, "1"),
        ("UNLINK", keys.live(dataset)),
        ("PUBLISH", manifest, ""),
    ]


def _upkeep(keys: Keys, dataset: str) -> list[Words]:
    return [("SCAN", "0"), ("TYPE", keys.manifest(dataset))]


def examine(ctx: Context, *, look: bool = True) -> Operation[Permissions]:
    """Ask for the user's name, then for what it may do with the datasets that there are.

    `look`: which there are. Without that, it is asked about any one.
    """
    questions: list[Command[Any]] = [Ask(("ACL", "WHOAMI"))]
    name, *more = yield from ask_all(ctx, [*questions, *([Members(ctx.keys.datasets())] if look else [])])
    names = more[0] if more else None
    if isinstance(name, Failed) or not name:
        return Permissions(None)
    user = text(name)
    datasets = [ANY] if isinstance(names, Failed) or not names else sorted(names)[:MANY]
    found = []
    for dataset in datasets:
        denied = yield from _denied(ctx, user, dataset)
        if denied is None:
            return Permissions(user)
        found.append((sum(map(len, denied)), dataset, denied))
    fewest, dataset, denied = min(found)
    narrow = any(count > fewest for count, *_ in found)  # such a user is made for some datasets
    reading, publishing, upkeep = denied
    return Permissions(user, reading, publishing, upkeep, dataset if narrow else None)


def _denied(ctx: Context, user: str, dataset: str) -> Operation[list[tuple[str, ...]] | None]:
    """Return the commands that a user may not run on a dataset, in three groups. None: not told."""
    groups = [_reading(ctx.keys, dataset), _publishing(ctx.keys, dataset), _upkeep(ctx.keys, dataset)]
    tries = [words for group in groups for words in group]
    replies = yield from ask_all(ctx, [Ask(("ACL", "DRYRUN", user, *words)) for words in tries])
    if all(isinstance(reply, Failed) for reply in replies):
        return None
    denied = {words[0] for words, reply in zip(tries, replies, strict=True) if _is_denied(reply)}
    return [tuple(words[0] for words in group if words[0] in denied) for group in groups]


def _is_denied(reply: Any) -> bool:
    """A dry run answers OK, or gives a reason. A failed one means that the server lacks the command."""
    return not isinstance(reply, Failed) and text(reply) != "OK"


def scripts(reply: Any, permissions: Permissions) -> Check:
    """Check whether a script runs: the commit is one."""
    name = "scripts"
    if not isinstance(reply, Failed):
        return Check(name, Verdict.OK, "a script ran")
    if isinstance(reply.error, AccessDenied) and not _is_lacking(reply):
        reader = permissions.only_reads
        return Check(
            name,
            Verdict.WARNING if reader else Verdict.PROBLEM,
            f"{_who(permissions)} may not run scripts (EVAL): a publish commits in another way, or fails",
            "This is right for a user that only reads."
            if reader
            else f"ACL SETUSER {permissions.user or '<user>'} +eval +evalsha: a script is the safest way to "
            "commit. A user that only reads needs no scripts.",
        )
    return Check(
        name,
        Verdict.PROBLEM,
        f"a script does not run: {reason(reply)}",
        "Enable Lua scripts (EVAL, EVALSHA) on the server: a script is the safest way to commit.",
    )


def _is_lacking(reply: Failed) -> bool:
    """Return whether the server lacks scripts; otherwise the user may not run them."""
    return isinstance(reply.error, Unscripted) and "NOPERM" not in reason(reply)


def commands(permissions: Permissions, namespace: str) -> Check:
    """Check whether the user may run what swapstore sends, on keys of the namespace."""
    name, who = "permissions", _who(permissions)
    if permissions.reading is None or permissions.publishing is None or permissions.upkeep is None:
        return Check(
            name,
            Verdict.UNKNOWN,
            f"{who} may not run ACL DRYRUN, or the server is older than Redis 7.0",
            "Compare its rules with those in the how-to 'Use your own Redis client'.",
        )
    allowed, keys = f"~{namespace}:* &{namespace}:manifest:*", f"namespace {namespace}"
    if permissions.dataset is not None:
        tag = f"{{{permissions.dataset}}}"
        allowed = f"~{namespace}:*:{tag}* ~{namespace}:datasets &{namespace}:manifest:{tag}"
        keys = f"dataset {permissions.dataset} in {keys}, with the most rights there"
    if permissions.only_reads and not permissions.reading:
        return Check(
            name,
            Verdict.WARNING,
            f"{who} may read, but not publish",
            "This is right for a user that only reads.",
        )
    needed = permissions.reading + permissions.publishing
    if needed:
        rules = " ".join(f"+{word.lower()}" for word in needed)
        return Check(
            name,
            Verdict.PROBLEM,
            f"{who} may not run on keys of {keys}: {', '.join(needed)}",
            f"ACL SETUSER {permissions.user} {allowed} {rules}",
        )
    if permissions.upkeep:
        rules = " ".join(f"+{word.lower()}" for word in permissions.upkeep)
        return Check(
            name,
            Verdict.WARNING,
            f"{who} may read and publish, but may not repair: {', '.join(permissions.upkeep)}",
            f"ACL SETUSER {permissions.user} {rules}",
        )
    return Check(name, Verdict.OK, f"{who} may read, publish and repair in {keys}")


def _who(permissions: Permissions) -> str:
    return "the user" if permissions.user is None else f"user {permissions.user!r}"
