"""The verdicts of `doctor` on the replies of Redis and compatible servers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapstore.commands import Failed
from swapstore.doctor.redis import NEEDED
from swapstore.errors import StoreFull
from tests.doctor.info_replies import DRAGONFLY, REDIS_6, REDIS_7, REDIS_8, VALKEY_8, VALKEY_9, change
from tests.doctor.scripted_server import DENIED, HEALTHY, NOW_MS, UNKNOWN_COMMAND, examine, verdicts

PRODUCTS = {
    "Valkey 9.1.2": VALKEY_9,
    "Valkey 8.0.1": VALKEY_8,
    "Redis 8.2.1": REDIS_8,
    "Redis 7.4.0": REDIS_7,
    "Redis 6.2.14": REDIS_6,
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_healthy_server_passes(product: str) -> None:
    """A sound server gets a warning, and people stop reading warnings."""
    checks = examine(PRODUCTS[product])
    assert set(verdicts(checks).values()) == {"ok"}
    assert checks["server"].found.startswith(product)
    assert not any(check.advice for check in checks.values())


def test_text_and_map_replies_mean_the_same() -> None:
    """RESP3, a REST service or a client that decodes replies changes the verdict."""
    decoded = examine(
        VALKEY_9.decode(),
        {
            "CONFIG GET save": {"save": ""},
            "CONFIG GET maxmemory-policy": {},
            "ACL WHOAMI": "default",
            "ACL DRYRUN": "OK",
            "TIME": [NOW_MS // 1000, 0],
        },
    )
    assert decoded == examine(VALKEY_9)


@pytest.mark.parametrize(
    ("policy", "verdict"),
    [
        ("allkeys-lru", "problem"),
        ("allkeys-random", "problem"),
        ("eviction", "problem"),
        ("volatile-ttl", "ok"),
        ("noeviction", "ok"),
        ("unheard-of", "unknown"),
    ],
)
def test_eviction(policy: str, verdict: str) -> None:
    """A server that may evict committed data passes, or one that cannot is blamed."""
    check = examine(change(VALKEY_9, maxmemory_policy=policy, maxmemory=9_000_000, evicted_keys=1234))[
        "eviction"
    ]
    assert check.verdict == verdict
    assert policy in check.found or policy == "unheard-of"
    assert ("1,234 keys evicted" in check.found) == (verdict == "problem")
    assert ("CONFIG SET maxmemory-policy" in check.advice) == (verdict == "problem")


@pytest.mark.parametrize(
    ("used", "limit", "verdict"),
    [
        (79_999, 100_000, "ok"),
        (80_000, 100_000, "warning"),
        (94_999, 100_000, "warning"),
        (95_000, 100_000, "problem"),
        (10**12, 0, "ok"),
        (None, 100_000, "unknown"),
    ],
)
def test_memory(used: int | None, limit: int, verdict: str) -> None:
    """The warning comes after publishes are refused, or long before memory is short."""
    check = examine(change(VALKEY_9, used_memory=used, maxmemory=limit))["memory"]
    assert check.verdict == verdict


def test_buffers_are_not_counted_as_data() -> None:
    """A server with slow replicas looks full, although it does not count their buffers itself."""
    info = change(VALKEY_9, used_memory=99, maxmemory=100, mem_not_counted_for_evict=50)
    assert examine(info)["memory"].verdict == "ok"


@pytest.mark.parametrize(
    ("fields", "save", "verdict"),
    [
        ({"aof_enabled": 1}, b"", "ok"),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, b"3600 1", "problem"),
        ({"aof_enabled": 0}, b"", "problem"),
        ({"aof_enabled": 0}, b"3600 1", "warning"),
        ({"aof_enabled": 0, "rdb_last_bgsave_status": "err"}, b"3600 1", "problem"),
        ({"aof_enabled": None}, b"3600 1", "unknown"),
    ],
)
def test_persistence(fields: dict[str, Any], save: bytes, verdict: str) -> None:
    """A restart loses what was acknowledged, and nothing warned of it."""
    info = change(VALKEY_9, **fields)
    assert examine(info, {"CONFIG GET save": [b"save", save]})["persistence"].verdict == verdict


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"role": "master", "connected_slaves": 2}, "ok"),
        ({"role": "slave", "master_link_status": "up", "slave_read_only": 1}, "warning"),
        ({"role": "slave", "master_link_status": "down", "slave_read_only": 1}, "problem"),
        ({"role": "slave", "master_link_status": "up", "slave_read_only": 0}, "problem"),
    ],
)
def test_replication(fields: dict[str, Any], verdict: str) -> None:
    """A producer learns that it writes to a replica by a refused publish."""
    assert examine(change(VALKEY_9, **fields))["replication"].verdict == verdict


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (b"cluster_state:fail\r\ncluster_slots_ok:0\r\ncluster_size:0\r\n", "problem"),
        (b"cluster_state:ok\r\ncluster_slots_ok:16383\r\ncluster_size:1\r\n", "problem"),
        (b"cluster_state:ok\r\ncluster_slots_ok:16384\r\ncluster_size:3\r\n", "problem"),
        (b"cluster_state:ok\r\ncluster_slots_ok:16384\r\ncluster_size:1\r\n", "warning"),
        (DENIED, "unknown"),
    ],
)
def test_cluster(said: Any, verdict: str) -> None:
    """Datasets whose keys are on another node fail, and nothing warned of it."""
    assert examine(change(VALKEY_9, cluster_enabled=1), {"CLUSTER INFO": said})["cluster"].verdict == verdict


@pytest.mark.parametrize(
    ("server_s", "verdict", "words"),
    [
        (0, "ok", "agree"),
        (0.9, "ok", "agree"),
        (1, "warning", "behind"),
        (-1.5, "warning", "1.5 s ahead of"),
        (59, "warning", "behind"),
        (60, "problem", "60.0 s behind"),
        (-86_400, "problem", "86,400.0 s ahead of"),
    ],
)
def test_clock(server_s: float, verdict: str, words: str) -> None:
    """A wrong clock dates data into the future, or lets retention hide it a day early."""
    server_ms = NOW_MS + int(server_s * 1000)
    time = [str(server_ms // 1000).encode(), str(server_ms % 1000 * 1000).encode()]
    check = examine(VALKEY_9, {"TIME": time})["clock"]
    assert (check.verdict, words in check.found) == (verdict, True)


def test_a_slow_network_is_not_clock_skew() -> None:
    """A distant or busy server looks as if its clock were wrong."""
    time = [str(NOW_MS // 1000 + 8).encode(), b"0"]
    assert examine(VALKEY_9, {"TIME": time}, round_trip_ms=5_000)["clock"].verdict == "ok"
    assert "2.0 s behind" in examine(VALKEY_9, {"TIME": time}, round_trip_ms=3_000)["clock"].found


def test_a_server_that_lacks_a_needed_command() -> None:
    """An old server, a disabled command or a sentinel is found only by the first publish."""
    old = examine(change(REDIS_6, redis_version="3.2.1"), {"COMMAND INFO": UNKNOWN_COMMAND})["server"]
    assert (old.verdict, "too old" in old.found) == ("problem", True)
    known = [None if word in {"EVAL", "UNLINK"} else [b"x"] for word in NEEDED]
    renamed = examine(VALKEY_9, {"COMMAND INFO": known})["server"]
    assert (renamed.verdict, renamed.found) == ("problem", "Valkey 9.1.2 lacks EVAL, UNLINK")
    stub = examine(DRAGONFLY, {"COMMAND INFO": [None] * len(NEEDED)})["server"]
    assert (stub.verdict, stub.found) == ("ok", "Dragonfly df-v1.31.0")
    sentinel = examine(change(REDIS_7, redis_mode="sentinel"))["server"]
    assert (sentinel.verdict, "sentinel" in sentinel.found) == ("problem", True)


def test_scripts() -> None:
    """A server that cannot run scripts passes, and the first publish fails."""
    denied = examine(VALKEY_9, {"EVAL": DENIED})["scripts"]
    assert (denied.verdict, denied.advice[:30]) == ("problem", "ACL SETUSER default +eval +eva")
    assert examine(VALKEY_9, {"EVAL": UNKNOWN_COMMAND})["scripts"].verdict == "problem"
    assert examine(VALKEY_9, {"EVAL": Failed(StoreFull("full"))})["scripts"].verdict == "problem"


def may_not(*words: str) -> dict[str, Any]:
    return {f"ACL DRYRUN default {word}": f"no permissions to run {word}".encode() for word in words}


WRITING = ("SET", "SADD", "EVAL", "EVALSHA", "PERSIST", "PEXPIRE", "UNLINK", "PUBLISH", "EXISTS", "PTTL")


def test_permissions() -> None:
    """A user that lacks one command passes, and the publish fails at night."""
    check = examine(VALKEY_9, may_not("PEXPIRE"))["permissions"]
    assert (check.verdict, "PEXPIRE" in check.found) == ("problem", True)
    assert check.advice == "ACL SETUSER default ~swapstore:* &swapstore:manifest:* +pexpire"
    assert examine(VALKEY_9, may_not("GETRANGE"))["permissions"].verdict == "problem"
    assert examine(VALKEY_9, may_not("SCAN"))["permissions"].verdict == "warning"


def test_a_read_only_user_is_not_a_problem() -> None:
    """A monitor whose user may only read reports a problem permanently."""
    checks = examine(VALKEY_9, {"EVAL": DENIED, **may_not(*WRITING)})
    assert (checks["scripts"].verdict, checks["permissions"].verdict) == ("warning", "warning")
    checks = examine(VALKEY_9, {"EVAL": DENIED, **may_not(*WRITING, "GET")})
    assert checks["permissions"].verdict == "problem"


def test_a_managed_service_that_denies_config() -> None:
    """On a managed service that denies CONFIG and ACL, doctor fails instead of using INFO."""
    info = change(REDIS_7, aof_enabled=0)
    config = ("CONFIG GET save", "CONFIG GET maxmemory-policy")
    checks = examine(
        info, dict.fromkeys((*config, "ACL DRYRUN", "CLUSTER INFO", "COMMAND INFO", "ROLE"), DENIED)
    )
    unsure = {name for name, verdict in verdicts(checks).items() if verdict == "unknown"}
    assert unsure == {"persistence", "permissions"}
    assert set(verdicts(checks).values()) == {"ok", "unknown"}
    assert "survive a restart" in checks["persistence"].advice


def test_a_compatible_server_with_fewer_fields() -> None:
    """Dragonfly and others lack fields and commands, and doctor crashes or guesses."""
    unheard_of = dict.fromkeys(("CONFIG GET save", "COMMAND INFO", "ACL DRYRUN"), UNKNOWN_COMMAND)
    checks = examine(DRAGONFLY, unheard_of)
    assert checks["server"].found == "Dragonfly df-v1.31.0"
    assert verdicts(checks) == {
        **dict.fromkeys(("server", "memory", "replication", "replicas", "durability"), "ok"),
        **dict.fromkeys(("cluster", "scripts", "clock"), "ok"),
        **dict.fromkeys(("persistence", "permissions"), "unknown"),
        "eviction": "problem",
    }


def test_a_server_that_refuses_every_question() -> None:
    """A user without rights gets an error instead of advice on what to ask the administrator."""
    checks = examine(DENIED, dict.fromkeys(HEALTHY, DENIED))
    assert set(verdicts(checks).values()) == {"unknown", "problem"}
    assert checks["scripts"].verdict == "problem"
    assert all(check.advice for check in checks.values())


ANYTHING = st.recursive(
    st.none() | st.integers() | st.binary(max_size=8) | st.text(max_size=8) | st.just(DENIED),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    sorted({line.partition(b":")[0].decode() for line in VALKEY_9.splitlines() if b":" in line})
)


REPLICAS = st.sampled_from(
    [None, b"", b"ip=a,port=1,state=online,offset=x,lag=", b"ip=::1,port=1", b"ip", "5"]
)


@given(
    replica=REPLICAS,
    fields=st.dictionaries(FIELDS, st.none() | st.text(max_size=6) | st.integers(), max_size=6),
    said=st.dictionaries(st.sampled_from(sorted(HEALTHY)), ANYTHING),
    info=st.none() | ANYTHING,
)
def test_no_reply_crashes_it(replica: Any, fields: dict[str, Any], said: dict[str, Any], info: Any) -> None:
    """An unknown server ends `doctor` with a traceback."""
    fields["slave0"] = replica.decode() if isinstance(replica, bytes) else replica
    checks = examine(change(VALKEY_9, **fields) if info is None else info, said)
    assert len(checks) >= 9
    assert all(check.found for check in checks.values())
