"""Turns the texts of refusals into this library's errors, for every client of Redis and its relatives."""

from __future__ import annotations

import re
from typing import Any

from swapstore.commands import Ask, AwaitReplicas, Command, Failed, Replace, Swap
from swapstore.errors import (
    AccessDenied,
    Corrupt,
    PayloadTooLarge,
    ReadOnly,
    StoreFull,
    SwapstoreError,
    Throttled,
    Unavailable,
    Unscripted,
    Unsupported,
)

LONGEST = 300  # characters of a server's text to show at most

_UNKNOWN = re.compile(
    r"unknown (redis )?(sub)?command|not (available|supported|permitted|allowed)|unsupported|disabled",
    re.IGNORECASE,
)
_SCRIPT_DENIED = re.compile(r"NOPERM.*'(eval|evalsha)[ '|]", re.IGNORECASE)
_NO_DATA = re.compile(r"unknown (redis )?command ['`\"]?(get|getrange|smembers)\b", re.IGNORECASE)
_INSIDE_A_SCRIPT = re.compile(r"(from|in|running) (a )?script|script: ", re.IGNORECASE)
_TOO_LARGE = re.compile(
    r"max (request|single record|record|key|member|field) size exceeded|protocol error: (invalid|too big) ",
    re.IGNORECASE,
)
_TOO_OFTEN = re.compile(
    r"max (daily |monthly )?(requests?|commands?)\b.*limit exceeded|rate limit", re.IGNORECASE
)
_LIMIT = re.compile(r"limit\D{0,12}(\d+)", re.IGNORECASE)
_ACTUAL = re.compile(r"actual\D{0,12}(\d+)", re.IGNORECASE)


_MISDIRECTED = re.compile(
    r"(?:^|: -?)(READONLY|NOREPLICAS|MASTERDOWN|BUSY|LOADING|MOVED|ASK|TRYAGAIN|CLUSTERDOWN|UNBLOCKED)\b"
    r"|with replica instances"
)


def is_misdirected(text: str) -> bool:
    """Say whether a server refused a command because it is not the one to ask, or cannot serve it yet.

    It carried nothing out, and will soon, or another server does, perhaps behind the same address: see
    `Failed.again`.
    """
    return bool(_MISDIRECTED.search(text))


def failed(error: SwapstoreError, text: str) -> Failed:
    """Return the answer to a command that a server refused with this text, which became this error.

    A redirection to another node is no reason to send it again, unless the driver says so: it makes of it
    what waiting cures, an `Unavailable`.
    """
    return Failed(error, again=is_misdirected(text) and isinstance(error, Unavailable))


def is_script(command: Command[Any]) -> bool:
    """Return whether a command is sent as a script."""
    return isinstance(command, Swap | Replace) or (
        isinstance(command, Ask) and command.words[0].upper() in {"EVAL", "EVALSHA"}
    )


def refusal(
    text: str, where: str, command: Command[Any] | None = None, *, size_bytes: int = 0
) -> SwapstoreError:
    """Turn a server's text into an error. Without `command`: it refused a whole request of `size_bytes`."""
    key = getattr(command, "key", None)
    text = shown(text)
    if text.startswith("OOM") or "OOM command not allowed" in text:
        return StoreFull(f"{where} is full ({text}); raise maxmemory, or delete old data", key=key)
    if "capacity quota exceeded" in text:
        return StoreFull(f"{where} is full ({text}); delete old data, or choose a larger plan", key=key)
    if refused := _refused_by_role(text, where, key):
        return refused
    if isinstance(command, AwaitReplicas) and "appendonly" in text:
        return Unsupported(f"{where} keeps no append-only file, so it can sync none: {text}", key=key)
    if command is not None and is_script(command) and _is_unscripted(text):
        return Unscripted(
            f"{where} does not allow scripts, which swapstore needs: {text}. It needs both EVAL and EVALSHA, "
            "under these names (rename-command, ACL)",
            key=key,
        )
    if "NOPERM" in text or "ACL failure" in text:
        return AccessDenied(f"{where} does not allow a command that swapstore needs: {text}", key=key)
    if text.startswith("LOADING"):
        return loading(where)
    if text.startswith(("WRONGPASS", "NOAUTH")):
        return AccessDenied(f"{where} refused the credentials ({text}); check them", key=key)
    if "WRONGTYPE" in text:
        return Corrupt(
            f"{key} holds another type of value, no swapstore record: another program writes to this key; "
            "give swapstore a namespace of its own",
            key=key,
        )
    return _service_refusal(text, where, key, size_bytes)


def _refused_by_role(text: str, where: str, key: str | None) -> SwapstoreError | None:
    """Turn the refusal of a server into an error, if it is not the one to ask, or not now."""
    if "READONLY" in text:
        return ReadOnly(f"{where} is a read-only replica; connect to the primary", key=key)
    if text.startswith("UNBLOCKED") or "with replica instances" in text:
        return ReadOnly(f"{where} is not the primary any more, and waits for no replica ({text})", key=key)
    if "NOREPLICAS" in text:
        return ReadOnly(
            f"{where} refuses writes because too few replicas are connected (min-replicas-to-write)", key=key
        )
    if "MISCONF" in text:
        return ReadOnly(
            f"{where} refuses writes because it cannot save to disk. See the server's log", key=key
        )
    if "MASTERDOWN" in text:
        return Unavailable(f"{where} is a replica that has lost its primary, and serves no data", key=key)
    if text.startswith(("MOVED", "ASK ", "CROSSSLOT")):
        return Unsupported(
            f"{where} is one node of a cluster, and this key belongs to another ({text}). Connect to the "
            "whole cluster: write redis+cluster:// instead of redis:// (with TLS rediss+cluster://), or pass "
            "a RedisCluster client",
            key=key,
        )
    if text.startswith(("CLUSTERDOWN", "TRYAGAIN")):
        return Unavailable(f"{where} is a node of a cluster that cannot serve this key now ({text})", key=key)
    if text.startswith("BUSY "):
        return Unavailable(
            f"{where} is busy with a script of another client ({text}); try again soon", key=key
        )
    return None


def _service_refusal(text: str, where: str, key: str | None, size_bytes: int) -> SwapstoreError:
    """Turn a refusal that is specific to hosted stores into an error: they have limits, and lack commands."""
    if _TOO_LARGE.search(text):
        return too_large(where, text, size_bytes=size_bytes, key=key)
    if _TOO_OFTEN.search(text):
        return Throttled(
            f"{where} accepts no more requests for now ({text}); try again later, or choose a larger plan",
            key=key,
        )
    if _lacks(text) and _NO_DATA.search(text):
        return Unsupported(
            f"{where} has no command to read data ({text}). Is it a sentinel? Then write "
            "redis+sentinel://host:26379/mymaster/0, with the name that it has for the primary",
            key=key,
        )
    if _lacks(text) or "wrong number of arguments" in text:
        return Unsupported(f"{where} lacks a command that is needed: {text}", key=key)
    return Unavailable(f"{where} refused a command: {text}", key=key)


def loading(where: str) -> Unavailable:
    """Build the error for a server that has just started."""
    return Unavailable(f"{where} is still loading its data from disk; try again in a moment")


def too_large(where: str, text: str, *, size_bytes: int, key: str | None = None) -> PayloadTooLarge:
    """Build the error for a request that is too large. The endpoint's text may state the limit."""
    limit, size_bytes = _number(_LIMIT, text), size_bytes or _number(_ACTUAL, text)
    size = f" of {size_bytes} bytes" if size_bytes else ""
    accepts = f"accepts {limit} bytes at most" if limit else "does not state its limit"
    return PayloadTooLarge(
        f"a request{size} is too large for {where}, which {accepts} ({text}); publish less at once, or raise "
        "the limit of the endpoint",
        size_bytes=size_bytes,
        limit_bytes=limit,
        key=key,
    )


def _number(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return int(found.group(1)) if found else 0


def shown(text: str) -> str:
    """Return the part of a server's text that is safe to show. It may quote arguments, even a payload."""
    text = " ".join(re.split(r", with args beginning with|[\[{]", text)[0].split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _is_unscripted(text: str) -> bool:
    if _SCRIPT_DENIED.search(text):
        return True
    return "NOPERM" not in text and _lacks(text) and not _INSIDE_A_SCRIPT.search(text)


def _lacks(text: str) -> bool:
    """Return whether a text says that the server lacks a command. It must mention a command or a script."""
    return bool(_UNKNOWN.search(text) and re.search(r"command|eval|script", text, re.IGNORECASE))
