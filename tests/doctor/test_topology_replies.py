"""The verdicts of `doctor` on what primaries, replicas, sentinels and nodes of a cluster reply."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapstore import Check, Durability
from swapstore.commands import Failed
from swapstore.doctor import cluster
from swapstore.errors import Unavailable
from tests.doctor.info_replies import VALKEY_9, change
from tests.doctor.scripted_server import DENIED, HEALTHY, UNKNOWN_COMMAND, examine, verdicts
from tests.doctor.test_redis_replies import ANYTHING

AWAY = Failed(Unavailable("cannot connect"))
KEEPS_UP = "ip=10.0.0.2,port=6379,state=online,offset=990,lag=1"


def with_replicas(*lines: str, **fields: Any) -> bytes:
    replicas = {f"slave{n}": line for n, line in enumerate(lines)}
    return change(VALKEY_9, connected_slaves=len(lines), master_repl_offset=1000, **replicas, **fields)


def on_primary(info: Any, said: dict[str, Any] | None = None, **options: Any) -> dict[str, Check]:
    return examine(info, said, **options)


@pytest.mark.parametrize(
    ("line", "verdict", "words"),
    [
        (KEEPS_UP, "ok", "1 replica, at most 10 bytes behind"),
        (KEEPS_UP.replace("lag=1", "lag=11"), "warning", "not heard of for 11 s"),
        (KEEPS_UP.replace("online", "wait_bgsave"), "warning", "10.0.0.2:6379 (synchronising (wait_bgsave))"),
        ("ip=fd00::2,port=6379,state=stable_sync,lag=0", "ok", "1 replica"),
    ],
)
def test_a_replica(line: str, verdict: str, words: str) -> None:
    """A replica that does not keep up loses commits at the next failover, and nothing warned of it."""
    check = on_primary(with_replicas(line))["replicas"]
    assert (check.verdict, words in check.found) == (verdict, True)
    assert check.nodes is not None
    assert [node.role for node in check.nodes] == ["primary", "replica"]
    assert check.nodes[1].of == check.nodes[0].address == "here"


def test_far_behind_in_bytes() -> None:
    """A replica on a slow line is called sound, because it answers every second."""
    info = with_replicas(KEEPS_UP, maxmemory=0).replace(
        b"master_repl_offset:1000", b"master_repl_offset:20000990"
    )
    check = on_primary(info)["replicas"]
    assert (check.verdict, "20,000,000 bytes behind" in check.found) == ("warning", True)


@pytest.mark.parametrize(
    ("least", "verdict"), [(b"0", "warning"), (b"1", "ok"), (b"2", "problem"), (None, "unknown")]
)
def test_a_primary_that_is_cut_off(least: bytes | None, verdict: str) -> None:
    """An old primary accepts publishes and loses them, or refuses all, and nothing warned of it."""
    said = DENIED if least is None else [b"min-replicas-to-write", least]
    checks = on_primary(with_replicas(KEEPS_UP), {"CONFIG GET min-replicas-to-write": said})
    assert checks["min replicas"].verdict == verdict
    assert "min replicas" not in on_primary(VALKEY_9)


@pytest.mark.parametrize(("fsync", "verdict"), [(b"no", "warning"), (b"everysec", "ok"), (b"always", "ok")])
def test_when_it_writes_to_disk(fsync: bytes, verdict: str) -> None:
    """An append-only file that is written when the system likes is called safe."""
    check = on_primary(VALKEY_9, {"CONFIG GET appendfsync": [b"appendfsync", fsync]})["persistence"]
    assert (check.verdict, fsync.decode() in check.found) == (verdict, True)


def test_which_durability_can_be_had() -> None:
    """People ask for what no publish can be given, or do not know that it can be."""
    info = with_replicas(KEEPS_UP, KEEPS_UP.replace("0.2", "0.3"))
    assert on_primary(info)["durability"].found == "at most replicas=2, also with fsync=True"
    for wanted, verdict in ((Durability(replicas=2), "ok"), (Durability(replicas=3), "problem")):
        assert on_primary(info, durability=wanted)["durability"].verdict == verdict
    old = on_primary(info, {"WAITAOF": UNKNOWN_COMMAND})["durability"]
    assert (old.verdict, "fsync=True not: " in old.found) == ("ok", True)
    wanted = Durability(replicas=1, fsync=True)
    assert (
        on_primary(info, {"WAITAOF": UNKNOWN_COMMAND}, durability=wanted)["durability"].verdict == "problem"
    )
    assert on_primary(info, {"WAIT": DENIED})["durability"].verdict == "warning"
    assert on_primary(VALKEY_9, {"WAIT": DENIED})["durability"].verdict == "ok"


def test_a_service_that_tells_little() -> None:
    """Where CONFIG, CLUSTER, ROLE and WAIT are not allowed, doctor raises an error or guesses."""
    denied = [
        words for words in HEALTHY if words.startswith(("CONFIG", "CLUSTER", "ROLE", "WAIT", "COMMAND"))
    ]
    checks = on_primary(with_replicas(KEEPS_UP), dict.fromkeys(denied, DENIED))
    assert checks["replicas"].verdict == "ok"
    assert checks["min replicas"].verdict == "unknown"
    by_role = on_primary(DENIED, {"ROLE": [b"master", 5, [[b"10.0.0.2", b"6379", b"5"]]]})
    assert by_role["replicas"].found == "1 primary, 1 replica"


# --- sentinels -------------------------------------------------------------------------------------

THREE = ["mymaster", "s1:26379", "s2:26379", "s3:26379"]


def as_said(**changes: Any) -> list[bytes]:
    plain = dict(zip(HEALTHY["SENTINEL MASTER"][::2], HEALTHY["SENTINEL MASTER"][1::2], strict=True))
    plain |= {name.replace("_", "-").encode(): str(each).encode() for name, each in changes.items()}
    return [part for pair in plain.items() for part in pair]


def behind_sentinels(**said: Any) -> dict[str, Check]:
    return examine(VALKEY_9, {"sentinels": THREE, **said})


def test_sound_sentinels() -> None:
    """Three sentinels that agree get a warning."""
    checks = behind_sentinels()
    assert (checks["sentinels"].verdict, checks["failover"].verdict) == ("ok", "ok")
    assert "3 sentinels, quorum 2" in checks["sentinels"].found
    assert checks["replicas"].verdict == "warning", "there is no replica to promote"
    assert checks["replicas"].nodes is not None
    assert checks["replicas"].nodes[0].address == "10.0.0.1:6379"


@pytest.mark.parametrize(
    ("said", "verdict", "words"),
    [
        ({"SENTINEL MASTER": as_said(quorum=4)}, "problem", "needs 4 to agree and knows 3"),
        ({"SENTINEL CKQUORUM": Failed(Unavailable("NOQUORUM 1 usable"))}, "problem", "no quorum"),
        ({"s2:26379 SENTINEL MASTER": as_said(num_other_sentinels=1)}, "warning", "s2:26379 sees 1"),
        ({"s2:26379 SENTINEL MASTER": as_said(port=6380)}, "warning", "s2:26379 names 10.0.0.1:6380"),
        ({"s2:26379 SENTINEL MASTER": AWAY}, "warning", "s2:26379 (cannot connect)"),
        (
            {"sentinels": THREE[:2], "SENTINEL MASTER": as_said(num_other_sentinels=0, quorum=1)},
            "warning",
            "1 s",
        ),
        ({"SENTINEL MASTER": DENIED}, "unknown", "no sentinel tells"),
    ],
)
def test_sentinels(said: dict[str, Any], verdict: str, words: str) -> None:
    """The primary dies, no sentinel promotes a replica, and nothing warned of it."""
    check = behind_sentinels(**said)["sentinels"]
    assert (check.verdict, words in check.found, bool(check.advice)) == (verdict, True, True), check


@pytest.mark.parametrize(("after_ms", "verdict"), [(5000, "ok"), (30_000, "warning"), ("?", "unknown")])
def test_a_failover_that_outlasts_the_patience(after_ms: Any, verdict: str) -> None:
    """Each failover ends calls with an error, because they give up before it begins."""
    said = {"SENTINEL MASTER": as_said(down_after_milliseconds=after_ms)}
    check = behind_sentinels(**said)["failover"]
    assert (check.verdict, "patience=35" in check.advice) == (verdict, after_ms == 30_000)


def test_replicas_that_sentinels_see() -> None:
    """A replica that is down is not in the table, because its primary has forgotten it."""
    lost = [b"ip", b"10.0.0.3", b"port", b"6379", b"flags", b"s_down,slave,disconnected"]
    fine = [b"ip", b"10.0.0.2", b"port", b"6379", b"flags", b"slave", b"master-link-status", b"ok"]
    replica = change(VALKEY_9, role="slave", master_link_status="up", valkey_version="8.0.1", aof_enabled=0)
    checks = examine(
        with_replicas(KEEPS_UP),
        {
            "sentinels": THREE,
            "SENTINEL REPLICAS": [lost, fine],
            "10.0.0.2:6379 INFO": replica,
            "10.0.0.3:6379 INFO": AWAY,
        },
    )
    assert (checks["replicas"].verdict, "10.0.0.3:6379 (the sen" in checks["replicas"].found) == (
        "warning",
        True,
    )
    assert checks["versions"].found == (
        "the servers differ: Valkey 8.0.1: 10.0.0.2:6379; Valkey 9.1.2: 10.0.0.1:6379"
    )
    assert checks["durability"].found == "at most replicas=1, with fsync=True replicas=0"
    assert verdicts(checks)["min replicas"] == "warning"


@given(
    said=st.dictionaries(
        st.sampled_from(["SENTINEL MASTER", "SENTINEL REPLICAS", "SENTINEL CKQUORUM", "INFO"]),
        ANYTHING | st.lists(st.lists(st.sampled_from([b"ip", b"port", b"flags", b"s_down", b""]))),
    )
)
def test_no_reply_of_sentinels_crashes_it(said: dict[str, Any]) -> None:
    """An unknown kind of sentinel ends `doctor` with a traceback."""
    assert all(check.found for check in behind_sentinels(**said).values())


# --- cluster ---------------------------------------------------------------------------------------

NODES = (
    b"aa 10.0.0.1:6379@1 myself,master - 0 0 1 connected 0-8191\n"
    b"bb 10.0.0.2:6379@1 master - 0 0 1 connected 8192-16383\n"
    b"cc 10.0.0.3:6379@1 slave aa 0 0 1 connected\n"
)
SERVED = b"cluster_state:ok\r\ncluster_slots_ok:16384\r\n"


def on_cluster(**said: Any) -> dict[str, Check]:
    """A cluster of two primaries, of which the first has a replica, with changes."""
    second = NODES.replace(b"myself,", b"").replace(b"bb 10.0.0.2:6379@1 ", b"bb 10.0.0.2:6379@1 myself,")
    plain = {
        "nodes": {"10.0.0.1:6379": ["10.0.0.3:6379"], "10.0.0.2:6379": []},
        "PING": b"PONG",
        "CLUSTER INFO": SERVED,
        "CLUSTER NODES": NODES,
        "10.0.0.2:6379 CLUSTER NODES": second,
        "CLUSTER MYID": b"cc",
        "CLUSTER GETSLOTMIGRATIONS": UNKNOWN_COMMAND,
        "CONFIG GET cluster-require-full-coverage": [b"cluster-require-full-coverage", b"yes"],
        "CONFIG GET cluster-node-timeout": [b"cluster-node-timeout", b"5000"],
        "10.0.0.3:6379 INFO": change(VALKEY_9, role="slave", master_link_status="up", slave_repl_offset=7),
    }
    info = change(VALKEY_9, cluster_enabled=1, master_repl_offset=9)
    return examine(info, {**plain, **said}, diagnose=cluster.diagnose)


def test_the_table_of_a_cluster() -> None:
    """A node is missing in the table, or a primary without a replica is not told."""
    checks = on_cluster()
    nodes = checks["replicas"].nodes
    assert nodes is not None
    assert [(node.address, node.of, node.slots, node.behind_bytes) for node in nodes] == [
        ("10.0.0.1:6379", None, 8192, None),
        ("10.0.0.3:6379", "10.0.0.1:6379", None, 2),
        ("10.0.0.2:6379", None, 8192, None),
    ]
    assert checks["replicas"].found == "10.0.0.2:6379 has no replica that could take over"
    alone = {"10.0.0.1:6379 CONFIG GET min-replicas-to-write": [b"min-replicas-to-write", b"1"]}
    assert on_cluster(**alone)["min replicas"].verdict == "ok", "the other has no replica to be cut off from"
    found = {name: verdicts(checks)[name] for name in ("cluster", "migration", "coverage", "failover")}
    assert found == {"cluster": "ok", "migration": "ok", "coverage": "warning", "failover": "ok"}


def test_slots_that_nobody_serves() -> None:
    """Datasets whose slots nobody serves fail, and doctor does not say which slots these are."""
    gap = NODES.replace(b"8192-16383", b"8192-9000 9100-16383")
    checks = on_cluster(
        **{"CLUSTER NODES": gap, "CLUSTER INFO": b"cluster_state:fail\r\ncluster_slots_ok:16285\r\n"}
    )
    assert checks["cluster"].verdict == "problem"
    assert "16,285 of 16,384 slots served, not 9001-9099" in checks["cluster"].found


def test_slots_that_move() -> None:
    """A migration that is stuck fails calls now and then, and nobody knows where to look."""
    by_hand = NODES.replace(b"0-8191", b"0-8191 [93->-bb] [94->-bb]")
    job = [b"state", b"exporting", b"source_node", b"bb", b"target_node", b"aa", b"slot_ranges", b"9000-9010"]
    for said, words in (
        ({"CLUSTER NODES": by_hand}, "93-94 from 10.0.0.1:6379 to 10.0.0.2:6379"),
        ({"CLUSTER GETSLOTMIGRATIONS": [job]}, "9000-9010 from 10.0.0.2:6379 to 10.0.0.1:6379"),
        ({"CLUSTER GETSLOTMIGRATIONS": [[*job[:1], b"success", *job[2:]]]}, "no slot is moving"),
        ({"CLUSTER NODES": DENIED, "10.0.0.2:6379 CLUSTER NODES": DENIED}, "do not tell"),
    ):
        check = on_cluster(**said)["migration"]
        assert words in check.found
        assert check.verdict == (
            "ok" if words.startswith("no ") else "unknown" if "do not" in words else "warning"
        )


def test_a_primary_that_is_gone() -> None:
    """A primary that is gone makes the whole diagnosis unknown, or is not named."""
    said = {f"10.0.0.2:6379 {words}": AWAY for words in [*HEALTHY, "PING", "INFO", "CLUSTER NODES"]}
    gone = NODES.replace(b"bb 10.0.0.2:6379@1 master", b"bb 10.0.0.2:6379@1 master,fail")
    checks = on_cluster(**said, **{"CLUSTER NODES": gone})
    assert (checks["cluster"].verdict, "10.0.0.2:6379" in checks["cluster"].found) == ("problem", True)
    assert checks["persistence"].verdict == "ok"
    assert checks["replicas"].nodes is not None
    assert [node.link for node in checks["replicas"].nodes] == ["up", "up", "down"]


def test_a_cluster_that_tells_nothing() -> None:
    """A managed cluster without CONFIG and CLUSTER ends doctor with an error."""
    silent = dict.fromkeys((*HEALTHY, "PING", "CLUSTER NODES", "CLUSTER MYID", "INFO"), DENIED)
    silent |= {f"{at} {words}": DENIED for words in silent for at in ("10.0.0.2:6379", "10.0.0.3:6379")}
    silent |= dict.fromkeys(
        ("CONFIG GET cluster-require-full-coverage", "CONFIG GET cluster-node-timeout"), DENIED
    )
    checks = on_cluster(**silent)
    assert set(verdicts(checks).values()) <= {"unknown", "problem", "warning"}
    unknown = {name for name, verdict in verdicts(checks).items() if verdict == "unknown"}
    assert {"cluster", "migration", "coverage", "failover", "min replicas"} <= unknown


@given(
    said=st.dictionaries(
        st.sampled_from(
            [
                "CLUSTER NODES",
                "CLUSTER INFO",
                "CLUSTER MYID",
                "CLUSTER GETSLOTMIGRATIONS",
                "ROLE",
                "WAIT",
                "PING",
            ]
        ),
        ANYTHING | st.just(b"aa 10.0.0.9:1@2 master,fail - 0 0 1 connected 5-99999999 x [3-<-zz]"),
    )
)
def test_no_reply_of_a_cluster_crashes_it(said: dict[str, Any]) -> None:
    """An unknown cluster ends `doctor` with a traceback."""
    assert all(check.found for check in on_cluster(**said).values())
