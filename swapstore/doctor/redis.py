"""What a Redis, Valkey or relative of them should be like, and what it is: the checks of doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Ask, Failed
from swapstore.doctor import permissions as redis_permissions
from swapstore.doctor.check import Check, Verdict, reason
from swapstore.doctor.info import Answers, Info, moment, parse, setting, text
from swapstore.protocol.load import ask_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.commands import Failed
    from swapstore.doctor.check import Check
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation


# --- redis_time --------------------------------------------------------------------------------
#
# The clock of a Redis server against this machine's.


WARNING_MS = 1_000
PROBLEM_MS = 60_000


@attrs.frozen
class Clocks:
    """What the server's clock said, and this machine's before and after. In ms; None: not told."""

    before: int
    server: int | None
    after: int


def measure(ctx: Context) -> Operation[Clocks]:
    """Ask for the time, in a round trip of its own: what else is answered would blur it."""
    before = ctx.clock.now_ms()
    (reply,) = yield from ask_all(ctx, [Ask(("TIME",))])
    return Clocks(before, moment(reply), ctx.clock.now_ms())


def skew(clocks: Clocks) -> Check:
    """Compare them. The round trip is no skew: only what lies outside of it counts."""
    if clocks.server is None:
        return Check(
            "clock",
            Verdict.UNKNOWN,
            "the server does not tell its time",
            "See that this machine's clock is synchronised (NTP), or allow the user TIME (+time).",
        )
    ahead = max(clocks.before - clocks.server, 0) + min(clocks.after - clocks.server, 0)
    size = abs(ahead)
    if size < WARNING_MS:
        return Check("clock", Verdict.OK, "this machine and the server agree, within a second")
    return Check(
        "clock",
        Verdict.PROBLEM if size >= PROBLEM_MS else Verdict.WARNING,
        f"this machine is {size / 1000:,.1f} s {'ahead of' if ahead > 0 else 'behind'} the server",
        "Synchronise both with NTP. A publish without ts takes this machine's time, and retention by age "
        "counts with it.",
    )


# --- redis_checks ------------------------------------------------------------------------------
#
# What the answers of a Redis server mean for what is published on it. Pure: answers in, checks out.


OLDEST_REDIS = 4  # it has UNLINK
NEARLY_FULL, FULL = 80, 95  # percent of maxmemory
SLOTS = 16_384
MB = 1_000_000

_NOT_TOLD = "the server does not tell, or not this user"
_ALLOW = "Allow the user INFO (+info), or ask whoever runs the server"


def server(info: Info, answers: Answers, needed: Sequence[str]) -> Check:
    """What the server is, and whether it has the commands that are needed: probed, not inferred."""
    name, product = "server", info.product()
    known = answers.commands
    # An answer that lacks even GET is no answer: some relatives of Redis know the question by name only.
    probed = isinstance(known, list | tuple) and len(known) == len(needed) and any(known)
    missing = [word for word, there in zip(needed, known, strict=True) if not there] if probed else []
    if "sentinel" in {info.text("redis_mode"), info.text("server_mode")}:
        return Check(
            name,
            Verdict.PROBLEM,
            f"{product or 'this'} is a sentinel: it knows where the data is, and has none",
            "Connect to the primary, or hand over a client of redis.sentinel.Sentinel(…).master_for(…).",
        )
    if missing:
        return Check(
            name,
            Verdict.PROBLEM,
            f"{product or 'the server'} lacks {', '.join(missing)}",
            "Undo what disables or renames them (rename-command), or use Redis 4.0 or later, or Valkey.",
        )
    major = info.redis_major()
    if major is not None and major < OLDEST_REDIS:
        return Check(name, Verdict.PROBLEM, f"{product} is too old", "Use Redis 4.0 or later, or Valkey.")
    if product is None:
        return Check(
            name, Verdict.UNKNOWN, _NOT_TOLD, f"{_ALLOW}: is it Redis 4.0 or later, or Valkey, with scripts?"
        )
    return Check(name, Verdict.OK, f"{product}{', with every command that is needed' if probed else ''}")


def eviction(info: Info, answers: Answers) -> Check:
    """Whether a server short of memory may drop what was committed."""
    name = "eviction"
    policy = info.text("maxmemory_policy") or setting(answers.policy, "maxmemory-policy")
    if policy == "noeviction":
        return Check(name, Verdict.OK, "noeviction: nothing is ever dropped")
    if policy and policy.startswith("volatile-"):
        return Check(name, Verdict.OK, f"{policy}: drops only keys with a TTL, and committed keys have none")
    if policy and (policy.startswith("allkeys-") or policy == "eviction"):  # Dragonfly's cache mode
        dropped = info.number("evicted_keys")
        so_far = f"; {dropped:,} keys dropped since it was started" if dropped else ""
        idle = "; not yet, for maxmemory is 0" if info.number("maxmemory") == 0 else ""
        return Check(
            name,
            Verdict.PROBLEM,
            f"{policy}: drops committed data when memory is short{idle}{so_far}",
            "CONFIG SET maxmemory-policy noeviction (or volatile-lru, if other programs need eviction), and "
            "the same in the server's configuration; where it is a cache for others too, use a server apart.",
        )
    return Check(
        name,
        Verdict.UNKNOWN,
        policy or _NOT_TOLD,
        f"{_ALLOW}: is maxmemory-policy noeviction, or one of volatile-*?",
    )


def memory(info: Info) -> Check:
    """How near the server is to refusing publishes."""
    name = "memory"
    used, limit = info.number("used_memory"), info.number("maxmemory")
    if used is None or limit is None:
        return Check(
            name, Verdict.UNKNOWN, _NOT_TOLD, f"{_ALLOW}: how much memory is there, and how much is used?"
        )
    used -= min(used, info.number("mem_not_counted_for_evict") or 0)
    if limit == 0:
        return Check(name, Verdict.OK, f"{used / MB:,.1f} MB used, without a limit (maxmemory is 0)")
    percent = 100 * used // limit
    found = f"{percent} % used: {used / MB:,.1f} of {limit / MB:,.1f} MB"
    if percent < NEARLY_FULL:
        return Check(name, Verdict.OK, found)
    return Check(
        name,
        Verdict.PROBLEM if percent >= FULL else Verdict.WARNING,
        found,
        "Raise maxmemory, or let old snapshots go with a retention. A full server refuses publishes "
        "(StoreFull); what is committed stays.",
    )


def persistence(info: Info, answers: Answers) -> Check:
    """Whether what was acknowledged survives a restart of the server."""
    name = "persistence"
    append_only, save = info.number("aof_enabled"), setting(answers.save, "save")
    if append_only is None:
        question = f"{_ALLOW}: does what was written survive a restart, and how much of it?"
        return Check(name, Verdict.UNKNOWN, _NOT_TOLD, question)
    if append_only and info.text("aof_last_write_status") == "err":
        return _cannot_save("the append-only file cannot be written")
    if append_only:
        return Check(name, Verdict.OK, "append-only file")
    if save is None:
        return Check(
            name,
            Verdict.UNKNOWN,
            "no append-only file; whether dumps are saved is not told",
            "Allow the user CONFIG GET (+config|get), or ask whoever runs the server: does what was written "
            "survive a restart?",
        )
    if not save:
        return Check(
            name,
            Verdict.PROBLEM,
            "off: a restart of the server loses everything",
            "CONFIG SET appendonly yes, and the same in the server's configuration.",
        )
    if info.text("rdb_last_bgsave_status") == "err":
        return _cannot_save("the last dump could not be saved")
    unsaved = info.number("rdb_changes_since_last_save")
    return Check(
        name,
        Verdict.WARNING,
        "dumps now and then: a crash loses what was published since the last one"
        + (f" ({unsaved:,} changes now)" if unsaved else ""),
        "CONFIG SET appendonly yes keeps all but the last second, or all with appendfsync always.",
    )


def _cannot_save(found: str) -> Check:
    return Check(
        "persistence",
        Verdict.PROBLEM,
        found,
        "See the server's log; most often its disk is full or may not be written. Until then a restart loses "
        "data, and the server may refuse to write (MISCONF).",
    )


def replication(info: Info, answers: Answers) -> Check:
    """Whether this is the primary."""
    name = "replication"
    role = info.text("role")
    if role is None and isinstance(answers.role, list | tuple) and answers.role:
        role = text(answers.role[0])
    if role == "master":
        replicas = info.number("connected_slaves")
        return Check(
            name, Verdict.OK, f"the primary, with {replicas} replicas" if replicas else "the primary"
        )
    if role not in {"slave", "replica"}:
        return Check(name, Verdict.UNKNOWN, _NOT_TOLD, f"{_ALLOW}: is this the primary, or a replica?")
    if info.number("slave_read_only") == 0:
        return Check(
            name,
            Verdict.PROBLEM,
            "a replica that takes writes: what is published here is lost when it next synchronises",
            "Connect to the primary, and CONFIG SET replica-read-only yes.",
        )
    if info.text("master_link_status") == "down":
        return Check(
            name,
            Verdict.PROBLEM,
            "a replica that has lost its primary: what it serves grows old",
            "Connect to the primary, or mend the replica's link to it.",
        )
    return Check(
        name,
        Verdict.WARNING,
        "a replica: it serves readers, a moment behind, and refuses publishes",
        "Connect producers to the primary.",
    )


def cluster(info: Info, answers: Answers) -> Check:
    """Whether every key is on this server: swapstore's client does not follow a cluster's redirections."""
    name, enabled, state = "cluster", info.number("cluster_enabled"), parse(answers.cluster)
    # A server that is not part of a cluster refuses the question itself.
    if enabled == 0 or (enabled is None and "cluster support disabled" in _refusal(answers)):
        return Check(name, Verdict.OK, "not a cluster")
    if enabled is None and state.text("cluster_state") is None:
        return Check(name, Verdict.UNKNOWN, _NOT_TOLD, f"{_ALLOW}: is it a cluster of several nodes?")
    if state.text("cluster_state") is None:
        return Check(
            name,
            Verdict.UNKNOWN,
            "a cluster, whose state is not told",
            "Allow the user CLUSTER INFO (+cluster|info). A cluster of several nodes is not supported.",
        )
    served = state.number("cluster_slots_ok")
    if state.text("cluster_state") != "ok" or (served is not None and served < SLOTS):
        return Check(
            name,
            Verdict.PROBLEM,
            f"a cluster in state {state.text('cluster_state')}: {served or 0:,} of {SLOTS:,} slots served",
            "Give every slot a node (CLUSTER ADDSLOTSRANGE, or valkey-cli --cluster fix), or use a server "
            "that is not a cluster.",
        )
    nodes = state.number("cluster_size") or 0
    if nodes == 1:
        return Check(
            name,
            Verdict.WARNING,
            "a cluster of one node, which serves every slot",
            "It works until a node is added: a cluster of several is not supported.",
        )
    return Check(
        name,
        Verdict.PROBLEM,
        f"a cluster of {nodes} nodes: keys of the others are out of reach",
        "Use a server that is not a cluster: swapstore does not follow redirections (MOVED).",
    )


def _refusal(answers: Answers) -> str:
    return reason(answers.cluster) if isinstance(answers.cluster, Failed) else ""


# --- redis -------------------------------------------------------------------------------------
#
# The questions to a Redis or Valkey server, and to what resembles one.


# What the drivers and the scripts beside them send.
NEEDED = (
    *("GET", "GETRANGE", "SET", "SADD", "SMEMBERS", "EVAL", "EVALSHA"),
    *("EXISTS", "PTTL", "PERSIST", "PEXPIRE", "UNLINK", "PUBLISH"),
)


def diagnose(ctx: Context) -> Operation[list[Check]]:
    """Ask all there is to ask, in as few round trips as the answers depend on each other."""
    answers = Answers(
        **(
            yield from _ask(
                ctx,
                info=("INFO",),
                save=("CONFIG", "GET", "save"),
                policy=("CONFIG", "GET", "maxmemory-policy"),
                commands=("COMMAND", "INFO", *map(str.lower, NEEDED)),
                cluster=("CLUSTER", "INFO"),
                script=("EVAL", "return 1", "0"),
                role=("ROLE",),
            )
        )
    )
    info = parse(answers.info)
    clock = yield from measure(ctx)
    permissions = yield from redis_permissions.examine(ctx)
    return [
        server(info, answers, NEEDED),
        eviction(info, answers),
        memory(info),
        persistence(info, answers),
        replication(info, answers),
        cluster(info, answers),
        redis_permissions.scripts(answers.script, permissions),
        redis_permissions.commands(permissions, ctx.keys.namespace),
        skew(clock),
    ]


def _ask(ctx: Context, **questions: tuple[str, ...]) -> Operation[dict[str, Any | Failed]]:
    replies = yield from ask_all(ctx, [Ask(words) for words in questions.values()])
    return dict(zip(questions, replies, strict=True))
