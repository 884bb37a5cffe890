"""Primaries and replicas: the table of them, and what it means for published data. It asks nothing itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Failed
from swapstore.doctor.check import Check, Node, Verdict, reason
from swapstore.doctor.info import Answers, Info, number, parse, setting, text

if TYPE_CHECKING:
    from swapstore.models import Durability

LATE_S = 10  # a replica confirms every second what it has
LATE_BYTES = 10_000_000
MOST_NAMED = 3

_REPLICA = re.compile(r"(?:slave|replica)[0-9]+")
_URL = re.compile(r"rediss?://([^/]+:[0-9]+)(?:/|$)")
_LINKED = {"", "online", "stable_sync"}  # the last: Dragonfly
_PRIMARY = {"master", "primary"}


# --- the table -------------------------------------------------------------------------------------


def address(host: Any, port: Any) -> str:
    """Return `host:port`."""
    host = text(host)
    return f"[{host}]:{text(port)}" if ":" in host else f"{host}:{text(port)}"


def place(where: str) -> str:
    """Return `host:port` of a store's address, or the address if it has none."""
    found = _URL.match(where)
    return found[1] if found else where


def role_of(info: Info, role: Any) -> str | None:
    """Return the role of a server, from `INFO` or from `ROLE`. None: not told."""
    told = info.text("role")
    if told is None and isinstance(role, list | tuple) and role:
        told = text(role[0])
    return told


def table(at: str, answers: Answers) -> list[Node]:
    """Return a primary and the replicas that are connected to it, as it says. Empty: it does not say.

    A replica that is asked knows itself and its primary only.
    """
    info = parse(answers.info)
    role = role_of(info, answers.role)
    if role in _PRIMARY:
        return [server(Node(address=at, role="primary", link="up"), info), *_replicas(at, info, answers.role)]
    if role in {"slave", "replica"}:
        of = address(info.text("master_host"), info.text("master_port")) if info.text("master_host") else None
        return [server(Node(address=at, role="replica", of=of), info)]
    return []


def _replicas(at: str, info: Info, role: Any) -> list[Node]:
    """Return the replicas of a primary, from `INFO`, or else from `ROLE`."""
    end = info.number("master_repl_offset")
    found = []
    for name, value in info.fields.items():
        if not _REPLICA.fullmatch(name):
            continue
        fields = {key: each for key, _, each in (part.partition("=") for part in value.split(","))}
        if fields.get("ip") and fields.get("port"):
            state, has = fields.get("state", ""), number(fields.get("offset", ""))
            found.append(
                Node(
                    address=address(fields["ip"], fields["port"]),
                    role="replica",
                    of=at,
                    link="up" if state in _LINKED else "down",
                    behind_bytes=None if end is None or has is None else max(end - has, 0),
                    heard_s=number(fields.get("lag", "")),
                    note="" if state in _LINKED else f"synchronising ({state})",
                )
            )
    if found or info.text("role") or not isinstance(role, list | tuple) or len(role) < 3:  # noqa: PLR2004
        return found
    lines = role[2] if isinstance(role[2], list | tuple) else []
    return [
        Node(address=address(each[0], each[1]), role="replica", of=at, link="up")
        for each in lines
        if isinstance(each, list | tuple) and len(each) > 1
    ]


def server(node: Node, info: Info) -> Node:
    """Return a node with what it says of itself."""
    append_only = info.number("aof_enabled")
    node = attrs.evolve(
        node,
        version=info.product() or node.version,
        append_only=node.append_only if append_only is None else bool(append_only),
    )
    if node.role != "replica" or info.text("master_link_status") is None:
        return node
    link = "up" if info.text("master_link_status") == "up" else "down"
    heard = info.number("master_last_io_seconds_ago")
    return attrs.evolve(
        node,
        link="down" if "down" in {link, node.link} else "up",
        heard_s=heard if node.heard_s is None else node.heard_s,
        note=node.note or ("" if link == "up" else "it has lost its primary"),
    )


def behind(node: Node, primary: Info, info: Info) -> Node:
    """Return a replica with how far it is behind, if its primary has not told that."""
    end, has = primary.number("master_repl_offset"), info.number("slave_repl_offset")
    if node.behind_bytes is not None or end is None or has is None:
        return node
    return attrs.evolve(node, behind_bytes=max(end - has, 0))


def named(addresses: Sequence[str]) -> str:
    """Return some of the addresses, for a sentence."""
    more = f" and {len(addresses) - MOST_NAMED} more" if len(addresses) > MOST_NAMED else ""
    return f"{', '.join(addresses[:MOST_NAMED])}{more}"


def count(number: int, noun: str) -> str:
    """Return a number and its noun: `no replica`, `1 replica`, `2 replicas`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"no {noun}" if number == 0 else f"1 {noun}" if number == 1 else f"{number:,} {plural}"


# --- what it means ---------------------------------------------------------------------------------


def examine(
    nodes: Sequence[Node], primaries: Mapping[str, Answers], *, wanted: Durability | None, fails_over: bool
) -> list[Check]:
    """Check the servers together. `primaries`: what each that answers says. `wanted`: by this store.

    `fails_over`: a replica is promoted by itself, so that one is expected. A replica alone is not checked: it
    does not know the others.
    """
    if nodes and not primaries:
        return []
    found = [replicas(nodes, fails_over=fails_over)]
    if any(node.of in primaries for node in nodes):
        found.append(min_replicas(nodes, primaries))
    if len({node.version for node in nodes if node.version}) > 1:
        found.append(versions(nodes))
    return [*found, durability(nodes, primaries, wanted)]


def replicas(nodes: Sequence[Node], *, fails_over: bool) -> Check:
    """Check whether each primary has replicas, and whether they are connected and keep up."""
    name, all_of = "replicas", tuple(nodes)
    primaries = [node for node in nodes if node.role == "primary"]
    following = [node for node in nodes if node.role == "replica"]
    if not nodes:
        advice = "Allow the user INFO (+info), or ask the server's administrator: which replicas are there?"
        return Check(name, Verdict.UNKNOWN, "the server does not tell, or not this user", advice)
    parts, advice = [], ""
    down = [node for node in following if node.link == "down"]
    alone = [
        node.address
        for node in primaries
        if fails_over
        and node.slots != 0
        and not any(each.of == node.address and each.link != "down" for each in following)
    ]
    late = [node for node in following if node not in down and _is_late(node)]
    if down:
        parts.append(f"down: {named([_with_note(node) for node in down])}")
        advice = "Start them, and look in their logs for why they do not follow; the primary's log says more."
    if alone:
        parts.append(f"{named(alone)} {'has' if len(alone) == 1 else 'have'} no replica that could take over")
        advice = advice or "Give each primary a replica on another machine: else what it has is lost with it."
    if late:
        parts.append(f"far behind: {named([f'{node.address} ({_distance(node)})' for node in late])}")
        advice = advice or "Is the network slow, or the replica's disk? A failover now loses what is missing."
    if parts:
        return Check(name, Verdict.WARNING, "; ".join(parts), advice, all_of)
    found = f"{count(len(primaries), 'primary')}, {count(len(following), 'replica')}"
    if following:
        worst = max(following, key=lambda node: node.behind_bytes or 0)
        found += f", at most {_distance(worst)}" if worst.behind_bytes is not None else ""
    return Check(name, Verdict.OK, found, "", all_of)


def _is_late(node: Node) -> bool:
    return (node.heard_s or 0) > LATE_S or (node.behind_bytes or 0) > LATE_BYTES


def _distance(node: Node) -> str:
    parts = [f"{node.behind_bytes:,} bytes behind"] if node.behind_bytes is not None else []
    if node.heard_s is not None and node.heard_s > LATE_S:
        parts.append(f"not heard of for {node.heard_s:,} s")
    return ", ".join(parts)


def _with_note(node: Node) -> str:
    return f"{node.address} ({node.note})" if node.note else node.address


def min_replicas(nodes: Sequence[Node], primaries: Mapping[str, Answers]) -> Check:
    """Check what a primary does that is cut off from its replicas; called only if one has some."""
    name = "min replicas"
    led = {node.of for node in nodes if node.role == "replica"}
    told = {at: _least(answers) for at, answers in primaries.items()}
    told = {at: least for at, least in told.items() if at in led or least}  # alone, it is cut off from nobody
    short = [
        at
        for at, least in told.items()
        if least is not None
        and least > sum(node.of == at and node.role == "replica" and node.link != "down" for node in nodes)
    ]
    if short:
        return Check(
            name,
            Verdict.PROBLEM,
            f"{named(short)} has fewer replicas than min-replicas-to-write asks for, and refuses publishes",
            "Bring the replicas back, or lower min-replicas-to-write until they are: CONFIG SET "
            "min-replicas-to-write 0.",
        )
    off = [at for at, least in told.items() if least == 0]
    if off:
        return Check(
            name,
            Verdict.WARNING,
            f"min-replicas-to-write is 0{_where(off, told)}: a primary that is cut off goes on to accept "
            "publishes, which are lost when a replica takes its place",
            "CONFIG SET min-replicas-to-write 1 and min-replicas-max-lag 10, on all of them: it refuses "
            "them after 10 s. Or ask for durability: then each publish waits for replicas.",
        )
    if None in told.values():
        return Check(
            name,
            Verdict.UNKNOWN,
            "the server does not tell whether a primary that is cut off from its replicas accepts publishes",
            "Allow the user CONFIG GET (+config|get), or ask the server's administrator: is "
            "min-replicas-to-write 1 or more?",
        )
    least = min(each for each in told.values() if each is not None)
    return Check(
        name, Verdict.OK, f"a primary that has fewer than {count(least, 'replica')} refuses publishes"
    )


def _least(answers: Answers) -> int | None:
    """Return how many replicas a primary needs to accept writes. None: not told."""
    return number(setting(answers.min_replicas, "min-replicas-to-write") or "")


def _where(some: Sequence[str], of: Mapping[str, Any]) -> str:
    return f" on {named(some)}" if len(some) < len(of) else ""


def versions(nodes: Sequence[Node]) -> Check:
    """Say which versions there are; called only if they differ."""
    by_version: dict[str, list[str]] = {}
    for node in nodes:
        if node.version:
            by_version.setdefault(node.version, []).append(node.address)
    found = "; ".join(f"{version}: {named(some)}" for version, some in sorted(by_version.items()))
    return Check(
        "versions",
        Verdict.WARNING,
        f"the servers differ: {found}",
        "Finish the upgrade, replicas first, then the primary after a failover: an older replica may not "
        "understand what a newer primary sends it.",
    )


# --- durability ------------------------------------------------------------------------------------


def durability(nodes: Sequence[Node], primaries: Mapping[str, Answers], wanted: Durability | None) -> Check:
    """Say what `durability` a store can ask for here, and compare it with what this one asks for."""
    name = "durability"
    following = [node for node in nodes if node.role == "replica" and node.link != "down"]
    refused = next((each.wait for each in primaries.values() if isinstance(each.wait, Failed)), None)
    if not primaries or (refused is not None and not nodes):
        return Check(
            name,
            Verdict.UNKNOWN,
            "the server does not tell, or not this user",
            "Allow the user INFO and WAIT (+info +wait), or ask the administrator whether WAIT is allowed.",
        )
    if refused is not None and (following or wanted is not None):
        return Check(
            name,
            Verdict.WARNING if wanted is None else Verdict.PROBLEM,
            f"none can be had: {reason(refused)}",
            "ACL SETUSER … +wait +waitaof. A provider may block them; then a failover can lose the last "
            "publishes.",
        )
    most = 0 if refused else min(sum(node.of == at for node in following) for at in primaries)
    refusal = _not_on_disk(primaries)
    writing = [node for node in following if node.append_only is not False]
    on_disk = -1 if refusal else min(sum(node.of == at for node in writing) for at in primaries)
    if refusal:
        found = f"at most replicas={most}; fsync=True not: {refusal}"
    elif on_disk == most:
        found = f"at most replicas={most}, also with fsync=True"
    else:
        found = f"at most replicas={most}, with fsync=True replicas={on_disk}"
    if wanted is not None and wanted.replicas > (on_disk if wanted.fsync else most):
        return Check(
            name,
            Verdict.PROBLEM,
            f"{found}. This store asks for replicas={wanted.replicas}, fsync={wanted.fsync}: its publishes "
            "raise UnderReplicated",
            "Bring the replicas back, with appendonly yes if fsync is asked for, or ask for less.",
        )
    return Check(name, Verdict.OK, found)


def _not_on_disk(primaries: Mapping[str, Answers]) -> str:
    """Return why a publish cannot wait for disks (`fsync=True`); empty: it can."""
    for answers in primaries.values():
        if parse(answers.info).number("aof_enabled") == 0:
            return "the primary has no append-only file"
        if isinstance(answers.wait_for_disk, Failed):
            return reason(answers.wait_for_disk)
    return ""
