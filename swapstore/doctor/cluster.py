"""The diagnosis of a cluster: the checks of a server, on each primary, and what only a cluster can have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import Ask
from swapstore.doctor import permissions, redis, times
from swapstore.doctor.check import Check, Verdict
from swapstore.doctor.info import Answers, parse
from swapstore.protocol.load import ask

if TYPE_CHECKING:
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

_ORDER = [Verdict.PROBLEM, Verdict.UNKNOWN, Verdict.WARNING, Verdict.OK]


def diagnose(ctx: Context) -> Operation[list[Check]]:
    """Ask each primary, and check its answers. A check that differs is shown with the node it is worst on."""
    nodes: list[str] = yield from ask(ctx, Ask(("primaries",)))
    answers: dict[str, Answers] = {}
    for node in nodes:
        answers[node] = yield from redis.ask_server(ctx, node)
    examined = {node: redis.of_server(each) for node, each in answers.items()}
    clock = yield from redis.measure(ctx)
    allowed = yield from permissions.examine(ctx)
    return [
        *(_worst(nodes, checks) for checks in zip(*examined.values(), strict=True)),
        cluster(answers),
        permissions.scripts(answers[nodes[0]].script, allowed),
        permissions.commands(allowed, ctx.keys.namespace),
        redis.skew(clock),
        *(yield from times.diagnose(ctx)),
    ]


def _worst(nodes: list[str], checks: tuple[Check, ...]) -> Check:
    """Return one check of all primaries: the worst one, and on which of them it holds."""
    worst = min(checks, key=lambda check: _ORDER.index(check.verdict))
    alike = {node: check for node, check in zip(nodes, checks, strict=True) if check.verdict is worst.verdict}
    if len(alike) == len(nodes) and len({check.found for check in checks}) == 1:
        found = f"on each of {len(nodes)} primaries: {worst.found}"
    else:
        found = "; ".join(f"{node}: {check.found}" for node, check in alike.items())
    return Check(worst.name, worst.verdict, found, worst.advice)


def cluster(answers: dict[str, Answers]) -> Check:
    """Check whether every slot is served, as the primaries see it."""
    name, size = "cluster", len(answers)
    for node, each in answers.items():
        state = parse(each.cluster)
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
                f"{redis.SLOTS:,} slots served",
                "Bring the missing node back, or let others serve its slots: valkey-cli --cluster fix "
                "host:port.",
            )
    return Check(name, Verdict.OK, f"{size} primaries, which serve every slot")
