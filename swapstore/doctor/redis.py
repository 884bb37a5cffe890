"""The diagnosis of Redis, Valkey and their relatives: the questions, and the checks of the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.commands import Ask, Failed, Time
from swapstore.doctor import permissions as redis_permissions
from swapstore.doctor import replicas, sentinels, times
from swapstore.doctor.check import Check, Verdict, reason
from swapstore.doctor.info import Answers, Info, parse, setting
from swapstore.protocol.load import ask_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

# The commands that the drivers and their scripts send.
NEEDED = (
    *("GET", "GETRANGE", "SET", "SADD", "SMEMBERS", "EVAL", "EVALSHA"),
    *("EXISTS", "PTTL", "PERSIST", "PEXPIRE", "UNLINK", "PUBLISH"),
)

OLDEST_REDIS = 4  # it has UNLINK
NEARLY_FULL, FULL = 80, 95  # percent of maxmemory
SLOTS = 16_384
MB = 1_000_000
SKEW_WARNING_MS, SKEW_PROBLEM_MS = 1_000, 60_000

_NOT_TOLD = "the server does not tell, or not this user"
_ALLOW = "Allow the user INFO (+info), or ask the server's administrator"


def diagnose(ctx: Context) -> Operation[list[Check]]:
    """Ask the server, in as few round trips as the questions allow, and check its answers."""
    answers = yield from ask_server(ctx)
    info = parse(answers.info)
    clock = yield from measure(ctx)
    permissions = yield from redis_permissions.examine(ctx)
    at, said = yield from sentinels.ask_them(ctx)
    nodes = replicas.table(at or replicas.place(ctx.where), answers)
    if said is not None:
        nodes = yield from sentinels.completed(ctx, nodes, said)
    primaries = {node.address: answers for node in nodes[:1] if node.role == "primary"}
    return [
        *of_server(answers),
        *replicas.examine(nodes, primaries, wanted=ctx.durability, fails_over=said is not None),
        *(sentinels.examine(said, ctx.policy.patience_s) if said is not None else []),
        cluster(info, answers),
        redis_permissions.scripts(answers.script, permissions),
        redis_permissions.commands(permissions, ctx.keys.namespace),
        skew(clock),
        *(yield from times.diagnose(ctx)),
    ]


def ask_server(ctx: Context, node: str = "") -> Operation[Answers]:
    """Ask a server what it is and how it is set up, or one node of a cluster."""
    questions = {
        "info": ("INFO",),
        "save": ("CONFIG", "GET", "save"),
        "policy": ("CONFIG", "GET", "maxmemory-policy"),
        "commands": ("COMMAND", "INFO", *map(str.lower, NEEDED)),
        "cluster": ("CLUSTER", "INFO"),
        "script": ("EVAL", "return 1", "0"),
        "role": ("ROLE",),
        "fsync": ("CONFIG", "GET", "appendfsync"),
        "min_replicas": ("CONFIG", "GET", "min-replicas-to-write"),
        "wait": ("WAIT", "0", "1"),
        "wait_for_disk": ("WAITAOF", "1", "0", "1"),
    }
    replies = yield from ask_all(ctx, [Ask(words, node) for words in questions.values()])
    return Answers(**dict(zip(questions, replies, strict=True)))


def of_server(answers: Answers) -> list[Check]:
    """Check what each server can say of itself."""
    info = parse(answers.info)
    return [
        server(info, answers, NEEDED),
        eviction(info, answers),
        memory(info),
        persistence(info, answers),
        replication(info, answers),
    ]


# --- what the answers mean for published data ------------------------------------------------------


def server(info: Info, answers: Answers, needed: Sequence[str]) -> Check:
    """Check what the server is, and whether it has the needed commands: it is asked for each."""
    name, product = "server", info.product()
    known = answers.commands
    # An answer that lacks even GET says nothing: some relatives of Redis know only the name of the question.
    probed = isinstance(known, list | tuple) and len(known) == len(needed) and any(known)
    missing = [word for word, there in zip(needed, known, strict=True) if not there] if probed else []
    if "sentinel" in {info.text("redis_mode"), info.text("server_mode")}:
        return Check(
            name,
            Verdict.PROBLEM,
            f"{product or 'this'} is a sentinel: it knows the server of the data, but has no data",
            "Connect to the primary, or pass a client from redis.sentinel.Sentinel(…).master_for(…).",
        )
    if missing:
        return Check(
            name,
            Verdict.PROBLEM,
            f"{product or 'the server'} lacks {', '.join(missing)}",
            "Remove what disables or renames them (rename-command), or use Redis 4.0 or later, or Valkey.",
        )
    major = info.redis_major()
    if major is not None and major < OLDEST_REDIS:
        return Check(name, Verdict.PROBLEM, f"{product} is too old", "Use Redis 4.0 or later, or Valkey.")
    if product is None:
        return Check(
            name, Verdict.UNKNOWN, _NOT_TOLD, f"{_ALLOW}: is it Redis 4.0 or later, or Valkey, with scripts?"
        )
    return Check(name, Verdict.OK, f"{product}{', with every needed command' if probed else ''}")


def eviction(info: Info, answers: Answers) -> Check:
    """Check whether a server that is short of memory may evict committed data."""
    name = "eviction"
    policy = info.text("maxmemory_policy") or setting(answers.policy, "maxmemory-policy")
    if policy == "noeviction":
        return Check(name, Verdict.OK, "noeviction: nothing is ever evicted")
    if policy and policy.startswith("volatile-"):
        return Check(name, Verdict.OK, f"{policy}: evicts only keys with a TTL, and committed keys have none")
    if policy and (policy.startswith("allkeys-") or policy == "eviction"):  # Dragonfly's cache mode
        evicted = info.number("evicted_keys")
        so_far = f"; {evicted:,} keys evicted since the server started" if evicted else ""
        idle = "; not yet, because maxmemory is 0" if info.number("maxmemory") == 0 else ""
        return Check(
            name,
            Verdict.PROBLEM,
            f"{policy}: evicts committed data when memory is short{idle}{so_far}",
            "CONFIG SET maxmemory-policy noeviction (or volatile-lru, if other programs need eviction), and "
            "the same in the server's configuration. If it is a cache for others too, use a separate one.",
        )
    return Check(
        name,
        Verdict.UNKNOWN,
        policy or _NOT_TOLD,
        f"{_ALLOW}: is maxmemory-policy noeviction, or one of volatile-*?",
    )


def memory(info: Info) -> Check:
    """Check how soon the server would refuse publishes for lack of memory."""
    name = "memory"
    used, limit = info.number("used_memory"), info.number("maxmemory")
    if used is None or limit is None:
        return Check(
            name, Verdict.UNKNOWN, _NOT_TOLD, f"{_ALLOW}: how much memory does it have, and how much is used?"
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
        "Raise maxmemory, or keep less history (retention). A full server refuses publishes (StoreFull); "
        "committed data stays.",
    )


def persistence(info: Info, answers: Answers) -> Check:
    """Check whether acknowledged data survives a restart of the server."""
    name = "persistence"
    append_only, save = info.number("aof_enabled"), setting(answers.save, "save")
    if append_only is None:
        question = f"{_ALLOW}: do writes survive a restart, and how many can be lost?"
        return Check(name, Verdict.UNKNOWN, _NOT_TOLD, question)
    if append_only and info.text("aof_last_write_status") == "err":
        return _cannot_save("the append-only file cannot be written")
    if append_only:
        return _append_only_file(setting(answers.fsync, "appendfsync"))
    if save is None:
        return Check(
            name,
            Verdict.UNKNOWN,
            "no append-only file; the server does not tell whether it saves dumps",
            "Allow the user CONFIG GET (+config|get), or ask the server's administrator: do writes survive a "
            "restart?",
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
        "dumps only: a crash loses what was published since the last one"
        + (f" ({unsaved:,} changes now)" if unsaved else ""),
        "CONFIG SET appendonly yes keeps all but the last second; with appendfsync always, everything.",
    )


def _append_only_file(fsync: str | None) -> Check:
    """Return the check of a server that has one. `fsync`: its policy; None: not told."""
    name, said = "persistence", f"append-only file, appendfsync {fsync}"
    if fsync == "no":
        return Check(
            name,
            Verdict.WARNING,
            f"{said}: a crash of the machine loses what the system had not written, up to some 30 s",
            "CONFIG SET appendfsync everysec loses up to a second; always, nothing. The same in the server's "
            "configuration.",
        )
    loses = {"everysec": "up to a second", "always": "nothing"}.get(fsync or "")
    return Check(
        name, Verdict.OK, f"{said}: a crash of the machine loses {loses}" if loses else "append-only file"
    )


def _cannot_save(found: str) -> Check:
    return Check(
        "persistence",
        Verdict.PROBLEM,
        found,
        "See the server's log; most often its disk is full or not writable. Until then, a restart loses "
        "data, and the server may refuse writes (MISCONF).",
    )


def replication(info: Info, answers: Answers) -> Check:
    """Check whether this is the primary."""
    name = "replication"
    role = replicas.role_of(info, answers.role)
    if role == "master":
        connected = info.number("connected_slaves")
        found = f"the primary, with {replicas.count(connected, 'replica')}" if connected else "the primary"
        return Check(name, Verdict.OK, found)
    if role not in {"slave", "replica"}:
        return Check(name, Verdict.UNKNOWN, _NOT_TOLD, f"{_ALLOW}: is this the primary, or a replica?")
    if info.number("slave_read_only") == 0:
        return Check(
            name,
            Verdict.PROBLEM,
            "a replica that accepts writes: what is published here is lost when it next synchronises",
            "Connect to the primary, and CONFIG SET replica-read-only yes.",
        )
    if info.text("master_link_status") == "down":
        return Check(
            name,
            Verdict.PROBLEM,
            "a replica that has lost its primary: the data that it serves is out of date",
            "Connect to the primary, or restore the replica's link to it.",
        )
    return Check(
        name,
        Verdict.WARNING,
        "a replica: its reads lag behind, and it refuses publishes",
        "Connect producers to the primary.",
    )


def cluster(info: Info, answers: Answers) -> Check:
    """Check whether this server has every key. The driver for `redis://` follows no redirections."""
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
            "a cluster that does not tell its state",
            "Allow the user CLUSTER INFO (+cluster|info). Connect to a cluster with redis+cluster://.",
        )
    served = state.number("cluster_slots_ok")
    if state.text("cluster_state") != "ok" or (served is not None and served < SLOTS):
        return Check(
            name,
            Verdict.PROBLEM,
            f"a cluster in state {state.text('cluster_state')}: {served or 0:,} of {SLOTS:,} slots served",
            "Assign every slot to a node: CLUSTER ADDSLOTSRANGE, or valkey-cli --cluster fix host:port.",
        )
    nodes = state.number("cluster_size") or 0
    if nodes == 1:
        return Check(
            name,
            Verdict.WARNING,
            "a cluster of one node, which serves every slot",
            "It works until a node is added. Connect with redis+cluster:// instead of redis://.",
        )
    return Check(
        name,
        Verdict.PROBLEM,
        f"a cluster of {nodes} nodes: the keys of the others cannot be reached",
        "Connect to the whole cluster: redis+cluster:// instead of redis://, rediss+cluster:// with TLS.",
    )


def _refusal(answers: Answers) -> str:
    return reason(answers.cluster) if isinstance(answers.cluster, Failed) else ""


# --- clocks ----------------------------------------------------------------------------------------


@attrs.frozen
class Clocks:
    """The time of the server, and of this machine before and after it. In ms; None: not told."""

    before: int
    server: int | None
    after: int


def measure(ctx: Context) -> Operation[Clocks]:
    """Ask for the time, in a round trip of its own: other questions would make it less exact."""
    before = ctx.clock.now_ms()
    (reply,) = yield from ask_all(ctx, [Time()])
    return Clocks(before, None if isinstance(reply, Failed) else reply, ctx.clock.now_ms())


def skew(clocks: Clocks) -> Check:
    """Check the clocks against each other. Only a difference that exceeds the round trip counts."""
    if clocks.server is None:
        return Check(
            "clock",
            Verdict.UNKNOWN,
            "the server does not tell its time",
            "Make sure that this machine's clock is synchronised (NTP), or allow the user TIME (+time).",
        )
    ahead = max(clocks.before - clocks.server, 0) + min(clocks.after - clocks.server, 0)
    size = abs(ahead)
    if size < SKEW_WARNING_MS:
        return Check(
            "clock", Verdict.OK, "the clocks of this machine and of the server agree within a second"
        )
    return Check(
        "clock",
        Verdict.PROBLEM if size >= SKEW_PROBLEM_MS else Verdict.WARNING,
        f"this machine is {size / 1000:,.1f} s {'ahead of' if ahead > 0 else 'behind'} the server",
        "Synchronise both with NTP. A publish without ts uses this machine's time, and retention by age "
        "compares with it.",
    )
