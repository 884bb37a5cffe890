"""The diagnosis of what sentinels do: how many there are, whether they agree, and how soon they fail over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Ask, Failed
from swapstore.doctor import replicas
from swapstore.doctor.check import Check, Node, Verdict, reason
from swapstore.doctor.info import Info, pairs, parse, text
from swapstore.protocol.load import ask_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

FEWEST = 3  # so that two are a majority when one is lost with its machine
PROMOTION_S = 5  # how long sentinels take to agree and to promote, once a primary counts as down
MOST_ASKED = 20  # replicas


@attrs.frozen
class Said:
    """What one sentinel says of the primary and its replicas, or why it says nothing."""

    primary: Info
    replicas: tuple[Info, ...]
    quorum: Any
    failure: str = ""

    @property
    def named(self) -> str:
        """The address of the primary, by this sentinel."""
        return replicas.address(self.primary.text("ip"), self.primary.text("port"))


def ask_them(ctx: Context) -> Operation[tuple[str, dict[str, Said] | None]]:
    """Ask every sentinel of the address. Returns the primary's address, and what each says (None: none)."""
    (known,) = yield from ask_all(ctx, [Ask(("sentinels",))])
    if not isinstance(known, list) or len(known) < 2:  # noqa: PLR2004 - the name, and an address at least
        return "", None
    name, *addresses = map(text, known)
    questions = [("MASTER", name), ("REPLICAS", name), ("CKQUORUM", name)]
    asks = [Ask(("SENTINEL", *words), at) for at in addresses for words in questions]
    replies = yield from ask_all(ctx, asks)
    said = {}
    for at, *found in zip(addresses, replies[::3], replies[1::3], replies[2::3], strict=True):
        said[at] = _said(*found)
    primary = next((each.named for each in said.values() if not each.failure), "")
    return primary, said


def _said(primary: Any, followers: Any, quorum: Any) -> Said:
    if isinstance(primary, Failed) or not pairs(primary).text("ip"):
        failure = reason(primary) if isinstance(primary, Failed) else "it does not name the primary"
        return Said(Info({}), (), quorum, failure)
    listed = followers if isinstance(followers, list | tuple) else ()
    return Said(pairs(primary), tuple(each for each in map(pairs, listed) if each.text("ip")), quorum)


def completed(ctx: Context, nodes: Sequence[Node], said: Mapping[str, Said]) -> Operation[list[Node]]:
    """Return the table with the replicas that only the sentinels know, and with what each replica says."""
    found = {node.address: node for node in nodes}
    primary = next((node.address for node in nodes if node.role == "primary"), None)
    for each in (each for one in said.values() for each in one.replicas):
        at = replicas.address(each.text("ip"), each.text("port"))
        node = found.get(at) or Node(address=at, role="replica", of=primary)
        found[at] = _seen(node, each)
    followers = [node for node in found.values() if node.role == "replica"][:MOST_ASKED]
    replies = yield from ask_all(ctx, [Ask(("INFO",), node.address) for node in followers])
    for node, reply in zip(followers, replies, strict=True):
        if isinstance(reply, Failed):
            note = node.note or "it does not answer here"
            found[node.address] = attrs.evolve(node, note=note)
        else:
            found[node.address] = replicas.server(node, parse(reply))
    return list(found.values())


def _seen(node: Node, info: Info) -> Node:
    """Return a replica as a sentinel sees it."""
    flags = (info.text("flags") or "").split(",")
    if "s_down" in flags or "o_down" in flags or "disconnected" in flags:
        return attrs.evolve(node, link="down", note="the sentinels call it down")
    if info.text("master-link-status") == "err" and node.link != "up":
        return attrs.evolve(node, link="down", note="it has lost its primary")
    return node


# --- what it means ---------------------------------------------------------------------------------


def examine(said: Mapping[str, Said], patience_s: float) -> list[Check]:
    """Check what the sentinels say."""
    return [sentinels(said), failover(said, patience_s)]


def sentinels(said: Mapping[str, Said]) -> Check:
    """Check whether there are enough sentinels, which agree and can promote a replica."""
    name = "sentinels"
    silent = {at: each.failure for at, each in said.items() if each.failure}
    answering = {at: each for at, each in said.items() if not each.failure}
    if not answering:
        return Check(
            name,
            Verdict.UNKNOWN,
            f"no sentinel tells: {next(iter(silent.values()))}",
            "Allow this user SENTINEL MASTER, REPLICAS and CKQUORUM, or ask the administrator.",
        )
    sizes = {at: 1 + (each.primary.number("num-other-sentinels") or 0) for at, each in answering.items()}
    quorums = {at: each.primary.number("quorum") or 0 for at, each in answering.items()}
    size, quorum = max(sizes.values()), max(quorums.values())
    told = f"{replicas.count(size, 'sentinel')}, quorum {quorum}"
    if problem := _no_failover(answering, sizes, quorums):
        return Check(
            name,
            Verdict.PROBLEM,
            f"{told}: {problem}, so no replica is promoted when the primary is lost",
            "Start the sentinels that are missing, and let each reach the others and the primary. The quorum "
            "may not be larger than their number: SENTINEL SET name quorum n, on each.",
        )
    if len({each.named for each in answering.values()}) > 1:
        names = "; ".join(f"{at} names {each.named}" for at, each in answering.items())
        return Check(
            name,
            Verdict.WARNING,
            f"they name different primaries: {names}",
            "A failover may be under way: look again. If it lasts, can they reach each other?",
        )
    blind = [f"{at} sees {count - 1}" for at, count in sizes.items() if count < max(size, len(said))]
    if blind:
        return Check(
            name,
            Verdict.WARNING,
            f"{told}, but some see too few of the others: {replicas.named(blind)}",
            "Let each reach the others (firewall, sentinel announce-ip). SENTINEL RESET name on one after "
            "the other has them find each other anew.",
        )
    if silent:
        return Check(
            name,
            Verdict.WARNING,
            f"{told}, of which do not tell: {replicas.named(list(silent))} ({next(iter(silent.values()))})",
            "Start them, or take those that are gone out of the address.",
        )
    if size < FEWEST:
        return Check(
            name,
            Verdict.WARNING,
            f"{told}: when one is lost with its machine, the other has no majority, and no failover begins"
            if size > 1
            else f"{told}: when it is lost, no failover begins",
            "Run three, each on a machine of its own.",
        )
    return Check(name, Verdict.OK, f"{told}; they agree, and see each other")


def _no_failover(
    answering: Mapping[str, Said], sizes: Mapping[str, int], quorums: Mapping[str, int]
) -> str | None:
    """Return why no failover can begin. None: it can."""
    for at, each in answering.items():
        if quorums[at] > sizes[at]:
            return f"{at} needs {quorums[at]} to agree and knows {sizes[at]}"
        if isinstance(each.quorum, Failed) and "NOQUORUM" in reason(each.quorum):
            return f"{at} has no quorum"
    return None


def failover(said: Mapping[str, Said], patience_s: float) -> Check:
    """Check whether a call of this store outlasts a failover."""
    after = [each.primary.number("down-after-milliseconds") for each in said.values() if not each.failure]
    slowest = max((each for each in after if each is not None), default=None)
    return of_time(
        None if slowest is None else slowest / 1000,
        patience_s,
        "down-after-milliseconds",
        "SENTINEL SET name down-after-milliseconds 5000, on each sentinel",
    )


def of_time(after_s: float | None, patience_s: float, option: str, cure: str) -> Check:
    """Check how soon a primary counts as down against the patience of this store."""
    name = "failover"
    if after_s is None:
        return Check(
            name,
            Verdict.UNKNOWN,
            "the servers do not tell how soon a failover begins",
            f"Ask the administrator for {option}, and let patience be a few seconds longer.",
        )
    found = f"it begins when a primary has not answered for {after_s:g} s ({option})"
    if not patience_s or after_s + PROMOTION_S <= patience_s:
        return Check(name, Verdict.OK, f"{found}; calls wait for {patience_s:g} s (patience)")
    return Check(
        name,
        Verdict.WARNING,
        f"{found}, and takes some seconds; calls give up after {patience_s:g} s (patience)",
        f"{cure}, or connect(patience={after_s + PROMOTION_S:g}) where calls shall wait for it.",
    )
