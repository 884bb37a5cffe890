"""`doctor` on real servers, each misconfigured on purpose."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import fakeredis
import pytest
import redis

import swapstore
from swapstore import Check, Durability, StoreFull, Unavailable
from swapstore.testing import SimulatedStore, faulty
from tests.support.drivers import meddled
from tests.support.valkey import Server, free_port

SECRET = "s3cr3t-Pa55"  # noqa: S105 - it must not turn up anywhere
SAFE = ("--appendonly", "yes")


def examine(url: str) -> dict[str, Check]:
    with swapstore.connect(url) as store:
        return {check.name: check for check in store.doctor()}


def eventually(url: str, holds: Callable[[dict[str, Check]], bool]) -> dict[str, Check]:
    """Examine until it holds: replicas and clusters need a moment to connect."""
    deadline = time.monotonic() + 20
    while True:
        checks = examine(url)
        if holds(checks) or time.monotonic() > deadline:
            return checks
        time.sleep(0.1)


def test_a_sound_server_passes_and_nothing_is_written(tmp_path: Path) -> None:
    """A server set up as documented gets a warning, or doctor leaves keys behind."""
    with Server(tmp_path, *SAFE, "--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru") as server:
        checks = examine(server.url)
        assert {check.verdict for check in checks.values()} == {"ok"}
        with server.client() as admin:
            assert admin.dbsize() == 0
        with swapstore.connect(server.url) as store:
            store.publish("doctor", 1)
            store.put_live("doctor", 2, ttl=60)
            assert {check.verdict for check in store.doctor()} == {"ok"}
            assert store.read_live("doctor") is not None
            snap = store.read_latest("doctor")
            assert snap is not None
            assert snap.value == 1


def test_a_server_that_evicts_committed_data(tmp_path: Path) -> None:
    """Snapshots disappear when memory is short, and nothing warned of it."""
    with Server(tmp_path, "--maxmemory-policy", "allkeys-lru") as server:
        check = examine(server.url)["eviction"]
    assert (check.verdict, "allkeys-lru" in check.found) == ("problem", True)


def test_a_server_without_persistence(tmp_path: Path) -> None:
    """A restart loses all or the last snapshots, and nothing warned of it."""
    with Server(tmp_path / "off", "--save", "") as server:
        assert examine(server.url)["persistence"].verdict == "problem"
    with Server(tmp_path / "dumps", "--save", "3600 1") as server:
        assert examine(server.url)["persistence"].verdict == "warning"


def test_a_server_that_cannot_save(tmp_path: Path) -> None:
    """Dumps fail for weeks, until a restart shows how old the last one is."""
    with Server(tmp_path, "--save", "3600 1") as server, server.client() as admin:
        (tmp_path / "dump.rdb").mkdir()  # a dump cannot replace a directory
        admin.set("key", "value")
        admin.bgsave()
        checks = eventually(server.url, lambda checks: checks["persistence"].verdict == "problem")
        assert checks["persistence"].found == "the last dump could not be saved"
        # It stops taking writes then; a script that writes nothing still runs.
        assert checks["scripts"].verdict == "ok"


def test_a_server_that_is_full(tmp_path: Path) -> None:
    """The next publish is refused, and nothing warned of it."""
    with Server(tmp_path, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction") as server:
        assert examine(server.url)["memory"].verdict == "ok"
        with swapstore.connect(server.url) as store, pytest.raises(StoreFull):
            publish_a_lot(store)
        checks = examine(server.url)
    assert checks["memory"].verdict == "problem"
    assert checks["scripts"].verdict == "ok"


def publish_a_lot(store: swapstore.Store) -> None:
    for number in range(1000):
        store.publish("mena", str(number) * 20_000)


def test_replicas(tmp_path: Path) -> None:
    """A producer on a replica, or a reader of one that is cut off, gets no warning."""
    with Server(tmp_path / "primary", *SAFE) as primary:
        of_it = ("--replicaof", "127.0.0.1", str(primary.port))
        with Server(tmp_path / "replica", *SAFE, *of_it) as replica:
            checks = eventually(replica.url, lambda found: found["replication"].verdict == "warning")
            assert "refuses publishes" in checks["replication"].found
            assert checks["scripts"].verdict == "ok"
            assert examine(primary.url)["replication"].found == "the primary, with 1 replica"
            with replica.client() as admin:
                admin.config_set("replica-read-only", "no")
            assert "is lost" in examine(replica.url)["replication"].found
    nowhere = ("--replicaof", "127.0.0.1", str(free_port()), "--replica-serve-stale-data", "no")
    with Server(tmp_path / "alone", *SAFE, *nowhere) as alone:
        check = examine(alone.url)["replication"]
        assert (check.verdict, "lost its primary" in check.found) == ("problem", True)


def test_a_primary_and_its_replicas(tmp_path: Path) -> None:
    """The table lacks a replica, or doctor promises a durability that no publish gets."""
    with Server(tmp_path / "primary", *SAFE) as primary:
        of_it = ("--replicaof", "127.0.0.1", str(primary.port))
        with Server(tmp_path / "one", *SAFE, *of_it) as one, Server(tmp_path / "two", *SAFE, *of_it) as two:
            checks = eventually(primary.url, lambda found: "2 replicas" in found["replicas"].found)
            nodes = checks["replicas"].nodes
            assert nodes is not None
            assert {node.address for node in nodes[1:]} == {f"127.0.0.1:{each.port}" for each in (one, two)}
            assert {node.link for node in nodes} == {"up"}
            assert nodes[0].address == f"127.0.0.1:{primary.port}"
            assert checks["min replicas"].verdict == "warning"
            assert checks["durability"].found == "at most replicas=2, also with fsync=True"
            with primary.client() as admin:
                admin.config_set("min-replicas-to-write", "2")
            assert examine(primary.url)["min replicas"].verdict == "ok"
            two.stop()
            checks = eventually(primary.url, lambda found: found["min replicas"].verdict == "problem")
            assert "refuses publishes" in checks["min replicas"].found
            with swapstore.connect(primary.url, durability=Durability(replicas=2)) as store:
                asking = {check.name: check for check in store.doctor()}
            assert asking["durability"].verdict == "problem"


def test_a_user_that_may_not_run_scripts(valkey: Server) -> None:
    """Every publish is refused, with a command in the error that the producer never sent."""
    with valkey.client() as admin:
        admin.acl_setuser(
            "app",
            enabled=True,
            passwords=[f"+{SECRET}"],
            keys=["*"],
            channels=["*"],
            commands=["+@all", "-eval", "-evalsha"],
        )
        try:
            checks = examine(valkey.url.replace("//", f"//app:{SECRET}@"))
        finally:
            admin.acl_deluser("app")
    assert (checks["scripts"].verdict, checks["permissions"].verdict) == ("problem", "problem")
    assert checks["permissions"].advice.endswith("+eval +evalsha")
    assert "user 'app'" in checks["scripts"].found
    assert SECRET not in str(checks)


def test_following_the_advice_removes_the_problem(valkey: Server) -> None:
    """An operator follows the advice, and the next check finds the same problem."""
    with valkey.client() as admin:
        admin.execute_command("ACL SETUSER app on nopass %R~swapstore:* +info +acl|whoami +acl|dryrun")
        url = valkey.url.replace("//", f"//app:{SECRET}@")
        try:
            advice = examine(url)["permissions"].advice
            admin.execute_command(advice)
            cured = examine(url)
            with swapstore.connect(url) as store:
                assert store.publish("mena", 1).created
        finally:
            admin.acl_deluser("app")
    assert (cured["permissions"].verdict, cured["scripts"].verdict) == ("warning", "ok")
    assert "may not repair" in cured["permissions"].found


def test_a_user_made_for_one_dataset_is_not_asked_about_another(valkey: Server) -> None:
    """A user whose rules name its dataset is called broken, with the advice to open all keys to it."""
    rules = "on nopass ~swapstore:*:{mena}* ~swapstore:datasets &swapstore:manifest:{mena} +@all"
    with valkey.client() as admin, swapstore.connect(valkey.url) as owner:
        owner.publish_many({"asia": 1, "mena": 1, "us": 1}).raise_for_failures()
        url = valkey.url.replace("//", "//clerk:x@")
        try:
            admin.execute_command(f"ACL SETUSER clerk {rules}")
            fine = examine(url)["permissions"]
            admin.execute_command("ACL SETUSER clerk -persist")
            lacking = examine(url)["permissions"]
            admin.execute_command(lacking.advice)
            cured = examine(url)["permissions"]
            rights = str(admin.acl_getuser("clerk"))
        finally:
            admin.acl_deluser("clerk")
    assert (fine.verdict, "dataset mena" in fine.found) == ("ok", True)
    assert (lacking.verdict, "PERSIST" in lacking.found) == ("problem", True)
    assert cured.verdict == "ok"
    assert "~swapstore:*'" not in rights
    assert "~swapstore:* " not in lacking.advice


def test_the_documented_user_can_ask(valkey: Server) -> None:
    """A user set up as documented is told that most checks are unknown."""
    how_to = Path(__file__).parents[2] / "docs" / "how-to"
    producer = re.search(r"ACL SETUSER producer on .*", (how_to / "use-your-own-redis-client.md").read_text())
    asking = re.search(r"ACL SETUSER producer \+.*", (how_to / "check-your-server.md").read_text())
    assert producer is not None
    assert asking is not None
    url = valkey.url.replace("//", "//producer:password@")
    with valkey.client() as admin, swapstore.connect(url, namespace="weather") as store:
        admin.execute_command(*producer.group().split())
        try:
            before = {check.name: check.verdict for check in store.doctor()}
            admin.execute_command(*asking.group().split())
            after = {check.name: check.verdict for check in store.doctor()}
        finally:
            admin.acl_deluser("producer")
    assert (before["permissions"], before["scripts"]) == ("unknown", "ok")
    assert "unknown" not in after.values()
    assert after["permissions"] in {"ok", "warning"}


def test_a_cluster(tmp_path: Path) -> None:
    """Every command fails with CLUSTERDOWN, or half of the datasets with MOVED, without a warning."""
    # Left to itself the bus takes the port 10,000 above, which may not exist.
    options = (*SAFE, "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with Server(tmp_path, *options) as server, server.client() as admin:
        check = examine(server.url)["cluster"]
        assert (check.verdict, "0 of 16,384 slots" in check.found) == ("problem", True)
        admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
        checks = eventually(server.url, lambda found: found["cluster"].verdict == "warning")
        assert "one node" in checks["cluster"].found


def test_an_unreachable_server_is_an_error() -> None:
    """A server that is down gives a report of nine unknowns, as if it had answered."""
    with (
        swapstore.connect(f"redis://127.0.0.1:{free_port()}/0", patience=0) as store,
        pytest.raises(Unavailable, match="cannot connect"),
    ):
        store.doctor()


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_borrowed_client(valkey: Server, protocol: int) -> None:
    """Other settings of the caller's client change the verdicts."""
    with redis.Redis(port=valkey.port, decode_responses=True, protocol=protocol) as client:
        own = {check.name: check.verdict for check in swapstore.connect(client).doctor()}
    checks = examine(valkey.url)
    assert own == {check.name: check.verdict for check in checks.values()}
    assert "unknown" not in own.values()


@pytest.mark.every_store
def test_fakeredis_answers_little(store: swapstore.Store) -> None:
    """`doctor` crashes on fakeredis, and with it a test that calls it."""
    assert all(check.found for check in store.doctor())


def test_wrapped_and_simulated_stores_can_be_examined() -> None:
    """`doctor` fails on a wrapped or simulated store in a producer's own tests."""
    with fakeredis.FakeRedis() as client:
        plain = swapstore.connect(client)
        names = [check.name for check in plain.doctor()]
        for wrapped in (faulty(plain)[0], meddled(plain)[0]):
            assert [check.name for check in wrapped.doctor()] == names
    (check,) = SimulatedStore().connect().doctor()
    assert check.verdict == "unknown"
