"""Batches of a producer, likely and absurd: for drivers that carry out several commands as one."""

from __future__ import annotations

import random
from typing import Any

from swapstore.commands import Command, Get, Put, Register, Replace, Stage, Staged, Swap, Ttl

TTL_MS, GRACE_MS = 600_000, 900_000
KEYS = ("a", "b", "page")
HEADERS = (b'{"id":1}\n', b'{"id":2}\n')


def commit(
    expected: bytes, prefix: bytes, *staged: Staged, unlinked: tuple[str, ...] = (), whole: bool = False
) -> Swap:
    """Return a commit of a manifest that is its prefix and three dots."""
    return Swap(
        key="manifest",
        expected=expected,
        prefix=prefix,
        manifest=prefix + b"...",
        live_key="live",
        staged=staged,
        unlinked=unlinked,
        staging_ttl_ms=TTL_MS,
        grace_ms=GRACE_MS,
        whole=whole,
    )


def some(choice: random.Random) -> Command[Any]:
    """Return one command of a batch, perhaps an absurd one."""
    key, header = choice.choice(KEYS), choice.choice(HEADERS)
    staged = [Staged(key, choice.choice(HEADERS), key == "page") for key in KEYS if choice.random() < 0.6]
    commands: list[Command[Any]] = [
        Stage(key, header, TTL_MS, choice.choice((b"", b"body"))),
        Stage(key, header, TTL_MS),
        commit(
            choice.choice((b"", b"1;", b"2;")),
            choice.choice((b"1;", b"2;", b"3;")),
            *staged,
            unlinked=("b",) if choice.random() < 0.2 else (),
        ),
        commit(
            choice.choice((b"", b"1;...", b"2;...")),
            choice.choice((b"1;", b"2;", b"3;")),
            *staged,
            whole=True,
        ),
        Replace(key, header, TTL_MS),
        Put(key, b"put", TTL_MS),
        Get(key),
        Ttl(key),
        Register("names", "mena"),
    ]
    return choice.choices(commands, weights=(5, 5, 6, 1, 1, 1, 1, 1, 1))[0]


def likely(choice: random.Random, current: bytes) -> list[Command[Any]]:
    """Return a batch like that of a publish, with or without something unusual in it."""
    keys = choice.sample(KEYS, 2)
    header = choice.choice(HEADERS)
    ours = b"%d;" % choice.randint(4, 99)
    commands: list[Command[Any]] = [Stage(key, header, TTL_MS, b"body") for key in keys]
    commands.append(commit(current, ours, *(Staged(key, header, key == "page") for key in keys)))
    for _ in range(choice.choice((0, 0, 1, 2))):
        commands.insert(choice.randint(0, len(commands)), some(choice))
    return commands
