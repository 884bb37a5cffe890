"""The diagnosis of a cluster: the checks of a server, on each primary, and what only a cluster can have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Ask, Failed
from swapstore.doctor import permissions, redis, replicas, times
from swapstore.doctor.check import Check, Node, Verdict, reason
from swapstore.doctor.info import Answers, number, pairs, parse, setting, text
from swapstore.doctor.sentinels import of_time
from swapstore.errors import AccessDenied
from swapstore.protocol.load import ask, ask_all

if TYPE_CHECKING:
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

_ORDER = [Verdict.PROBLEM, Verdict.UNKNOWN, Verdict.WARNING, Verdict.OK]
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_OPEN = re.compile(r"\[([0-9]+)-([<>])-([0-9a-z]+)\]")
_ENDED = {"success", "failed", "cancelled", "canceled"}  # migrations in one step, of Valkey 9
MOST_RANGES = 4


@attrs.frozen
class Line:
    """One node in `CLUSTER NODES`. `moving`: its slots on their way, the direction, and the other node."""

    id: str
    address: str
    flags: frozenset[str]
    of: str
    slots: frozenset[int]
    moving: tuple[tuple[int, str, str], ...]

    @property
    def is_primary(self) -> bool:
        """Whether it is, or was before it failed."""
        return "master" in self.flags


@attrs.frozen
class Said:
    """What a primary says of itself and of the cluster."""

    answers: Answers
    lines: tuple[Line, ...]
    coverage: str | None
    timeout_ms: int | None
    jobs: tuple[Any, ...]


def diagnose(ctx: Context) -> Operation[list[Check]]:
    """Ask each node, and check the answers. A check that differs is shown with the node it is worst on."""
    known: dict[str, list[str]] = yield from ask(ctx, Ask(("nodes",)))
    said: dict[str, Said] = {}
    silent: dict[str, Failed] = {}
    reached = yield from ask_all(ctx, [Ask(("PING",), node) for node in known])
    for node, reply in zip(known, reached, strict=True):
        if isinstance(reply, Failed) and not isinstance(reply.error, AccessDenied):
            silent[node] = reply
        else:
            said[node] = yield from _ask_primary(ctx, node)
    if not said:
        raise next(iter(silent.values())).error
    nodes = yield from _completed(ctx, known, said, silent)
    answers = {at: each.answers for at, each in said.items()}
    served = cluster(said, silent)
    is_served = served.verdict is not Verdict.PROBLEM  # else a read of the datasets' names may only wait
    clock = yield from redis.measure(ctx)
    allowed = yield from permissions.examine(ctx, look=is_served)
    return [
        *(_worst(list(said), checks) for checks in zip(*map(redis.of_server, answers.values()), strict=True)),
        *replicas.examine(nodes, answers, wanted=ctx.durability, fails_over=True),
        served,
        migration(said),
        coverage(said, nodes),
        _failover(said, ctx.policy.patience_s),
        permissions.scripts(next(iter(answers.values())).script, allowed),
        permissions.commands(allowed, ctx.keys.namespace),
        redis.skew(clock),
        *((yield from times.diagnose(ctx)) if is_served else []),
    ]


def _ask_primary(ctx: Context, node: str) -> Operation[Said]:
    answers = yield from redis.ask_server(ctx, node)
    questions = [
        ("CLUSTER", "NODES"),
        ("CONFIG", "GET", "cluster-require-full-coverage"),
        ("CONFIG", "GET", "cluster-node-timeout"),
        ("CLUSTER", "GETSLOTMIGRATIONS"),
    ]
    lines, covers, timeout, jobs = yield from ask_all(ctx, [Ask(words, node) for words in questions])
    return Said(
        answers,
        parse_lines(lines, node),
        setting(covers, "cluster-require-full-coverage"),
        number(setting(timeout, "cluster-node-timeout") or ""),
        tuple(jobs) if isinstance(jobs, list | tuple) else (),
    )


def parse_lines(reply: Any, asked: str) -> tuple[Line, ...]:
    """Parse a reply to `CLUSTER NODES`; none if it was refused. `asked`: the one that replied."""
    if isinstance(reply, Failed):
        return ()
    found = []
    for fields in (line.split() for line in text(reply).splitlines()):
        if len(fields) < 8:  # noqa: PLR2004 - the slots come after so many
            continue
        at, flags = fields[1].partition("@")[0], frozenset(fields[2].split(","))
        slots: set[int] = set()
        for each in fields[8:]:
            if bounds := _RANGE.fullmatch(each):
                slots.update(range(int(bounds[1]), min(int(bounds[2] or bounds[1]), redis.SLOTS - 1) + 1))
        moving = tuple((int(slot), way, to) for slot, way, to in _OPEN.findall(" ".join(fields[8:])))
        here = asked if "myself" in flags else _address(at)
        found.append(Line(fields[0], here, flags, fields[3], frozenset(slots), moving))
    return tuple(found)


def _address(at: str) -> str:
    host, _, port = at.rpartition(":")
    return replicas.address(host, port)


# --- the table -------------------------------------------------------------------------------------


def _completed(
    ctx: Context, known: Mapping[str, Sequence[str]], said: Mapping[str, Said], silent: Mapping[str, Failed]
) -> Operation[list[Node]]:
    """Return the table of all nodes: as the primaries see them, and what each replica says of itself."""
    followers = [each for some in known.values() for each in some]
    questions = [Ask(words, at) for at in followers for words in (("CLUSTER", "MYID"), ("INFO",))]
    replies = yield from ask_all(ctx, questions)
    own = dict(zip(followers, zip(replies[::2], replies[1::2], strict=True), strict=True))
    found: dict[str, Node] = {}
    for primary, some in known.items():
        if primary in silent:
            found[primary] = Node(address=primary, role="primary", link="down", note="it does not answer")
        told = {} if primary in silent else _of_primary(primary, said[primary])
        found[primary] = told.get(primary) or found.get(primary) or Node(address=primary, role="primary")
        for at in some:
            _, reply = own[at]
            node = told.get(at) or Node(address=at, role="replica", of=primary)
            if isinstance(reply, Failed):
                is_away = not isinstance(reply.error, AccessDenied)
                node = attrs.evolve(node, note=node.note or "it does not answer here") if is_away else node
            elif primary in said:
                info = parse(reply)
                node = replicas.behind(replicas.server(node, info), parse(said[primary].answers.info), info)
            found[at] = node
    ids = {text(said_id): at for at, (said_id, _) in own.items() if not isinstance(said_id, Failed)}
    return as_cluster_sees(found, said, ids)


def _of_primary(at: str, said: Said) -> dict[str, Node]:
    return {node.address: node for node in replicas.table(at, said.answers)}


def as_cluster_sees(found: dict[str, Node], said: Mapping[str, Said], ids: dict[str, str]) -> list[Node]:
    """Return the table with what `CLUSTER NODES` tells: slots, nodes that failed, nodes without slots.

    `ids`: the addresses of nodes by their ids, as this client calls them.
    """
    ids = {
        line.id: line.address for each in said.values() for line in each.lines if "myself" in line.flags
    } | ids
    for line in (line for each in said.values() for line in each.lines):
        at = ids.setdefault(line.id, line.address)
        of = ids.get(line.of, line.of)
        node = found.get(at) or (
            Node(
                address=at,
                role="primary" if line.is_primary else "replica",
                of=None if line.is_primary else of,
            )
        )
        if "myself" in line.flags or (line.is_primary and node.slots is None):
            node = attrs.evolve(node, slots=len(line.slots))
        if "fail" in line.flags:
            node = attrs.evolve(node, link="down", note="the cluster calls it down")
        elif line.flags & {"fail?", "handshake", "noaddr"}:
            node = attrs.evolve(node, note=node.note or "a node cannot reach it")
        found[at] = node
    order = {at: i for i, at in enumerate(found)}
    return sorted(
        found.values(), key=lambda node: (order.get(node.of or node.address, len(order)), bool(node.of))
    )


# --- what it means ---------------------------------------------------------------------------------


def _worst(nodes: list[str], checks: tuple[Check, ...]) -> Check:
    """Return one check of all primaries: the worst one, and on which of them it holds."""
    worst = min(checks, key=lambda check: _ORDER.index(check.verdict))
    alike = {node: check for node, check in zip(nodes, checks, strict=True) if check.verdict is worst.verdict}
    if len(alike) == len(nodes) and len({check.found for check in checks}) == 1:
        found = f"on each of {len(nodes)} primaries: {worst.found}"
    else:
        found = "; ".join(f"{node}: {check.found}" for node, check in alike.items())
    return Check(worst.name, worst.verdict, found, worst.advice)


def cluster(said: Mapping[str, Said], silent: Mapping[str, Failed]) -> Check:
    """Check whether every slot is served, as the primaries see it."""
    name = "cluster"
    advice = "Bring the missing node back, or let others serve its slots: valkey-cli --cluster fix host:port."
    for node, failed in silent.items():
        found = f"{node} serves slots, and does not answer here: {reason(failed)}"
        return Check(name, Verdict.PROBLEM, found, advice)
    for node, each in said.items():
        state = parse(each.answers.cluster)
        if state.text("cluster_state") is None:
            return Check(
                name,
                Verdict.UNKNOWN,
                f"{node} does not tell the cluster's state",
                "Allow the user CLUSTER INFO (+cluster|info).",
            )
        served = state.number("cluster_slots_ok") or 0
        if state.text("cluster_state") != "ok" or served < redis.SLOTS:
            return Check(
                name,
                Verdict.PROBLEM,
                f"{node} sees a cluster in state {state.text('cluster_state')}: {served:,} of "
                f"{redis.SLOTS:,} slots served{_missing(each.lines)}",
                advice,
            )
    return Check(name, Verdict.OK, f"{replicas.count(len(said), 'primary')}, which serve every slot")


def _missing(lines: Sequence[Line]) -> str:
    """Return which slots no node serves, for a sentence; empty if that is not told."""
    served = {slot for line in lines if "fail" not in line.flags for slot in line.slots}
    missing = [slot for slot in range(redis.SLOTS) if slot not in served]
    return f", not {ranges(missing)}" if lines and missing else ""


def ranges(slots: Iterable[int]) -> str:
    """Return slots as ranges, some of them: `0-99, 200`."""
    found: list[list[int]] = []
    for slot in sorted(slots):
        if found and found[-1][1] == slot - 1:
            found[-1][1] = slot
        else:
            found.append([slot, slot])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in found[:MOST_RANGES]]
    return ", ".join([*texts, *(["…"] if len(found) > len(texts) else [])])


def migration(said: Mapping[str, Said]) -> Check:
    """Check whether slots are on their way from one primary to another."""
    name = "migration"
    if not any(each.lines for each in said.values()):
        return Check(
            name,
            Verdict.UNKNOWN,
            "the nodes do not tell which slots move",
            "Allow the user CLUSTER NODES (+cluster|nodes).",
        )
    moves = moving(said)
    if not moves:
        return Check(name, Verdict.OK, "no slot is moving")
    found = "; ".join(f"{ranges(slots)} from {source} to {to}" for (source, to), slots in moves.items())
    return Check(
        name,
        Verdict.WARNING,
        f"slots are moving: {found}",
        "Look again later. If one stays, its migration is stuck, and calls to its datasets may fail: "
        "valkey-cli --cluster fix host:port.",
    )


def moving(said: Mapping[str, Said]) -> dict[tuple[str, str], set[int]]:
    """Return the slots on their way, by the source and the target of each."""
    places = {line.id: line.address for each in said.values() for line in each.lines}
    places |= {
        line.id: line.address for each in said.values() for line in each.lines if "myself" in line.flags
    }
    moves: dict[tuple[str, str], set[int]] = {}
    for at, each in said.items():
        for line in each.lines:
            for slot, way, other in line.moving if "myself" in line.flags else ():
                there = places.get(other, other)
                moves.setdefault((at, there) if way == ">" else (there, at), set()).add(slot)
        for job in map(pairs, each.jobs):
            state, source, to = (job.text(field) for field in ("state", "source_node", "target_node"))
            if state and source and to and state not in _ENDED:
                slots = moves.setdefault((places.get(source, source), places.get(to, to)), set())
                for bounds in _RANGE.finditer(job.text("slot_ranges") or ""):
                    slots.update(range(int(bounds[1]), min(int(bounds[2] or bounds[1]), redis.SLOTS - 1) + 1))
    return moves


def coverage(said: Mapping[str, Said], nodes: Sequence[Node]) -> Check:
    """Say what is still served when one primary is lost with all its replicas."""
    name = "coverage"
    told = {each.coverage for each in said.values()}
    if told == {"no"}:
        return Check(name, Verdict.OK, "a primary that is lost for good takes only its own datasets with it")
    if None in told:
        return Check(
            name,
            Verdict.UNKNOWN,
            "the nodes do not tell what is still served when a primary is lost for good",
            "Allow the user CONFIG GET (+config|get), or ask the administrator: is "
            "cluster-require-full-coverage no?",
        )
    found = "a primary that is lost for good stops the whole cluster (cluster-require-full-coverage yes)"
    guarded = {node.of for node in nodes if node.role == "replica" and node.link != "down"}
    if all(at in guarded for at in said):
        return Check(name, Verdict.OK, f"{found}; each has a replica")
    return Check(
        name,
        Verdict.WARNING,
        f"{found}, and not each has a replica",
        "Give each primary a replica, or CONFIG SET cluster-require-full-coverage no on every node.",
    )


def _failover(said: Mapping[str, Said], patience_s: float) -> Check:
    told = [each.timeout_ms for each in said.values() if each.timeout_ms is not None]
    return of_time(
        max(told) / 1000 if told else None,
        patience_s,
        "cluster-node-timeout",
        "CONFIG SET cluster-node-timeout 5000 on every node",
    )
