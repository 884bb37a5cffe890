"""A server refuses one command inside a commit: before the swap nothing is committed, after it all is."""

from __future__ import annotations

import pytest

from swapstore import Store
from swapstore.commands import Committed, Failed, Get, Put, Stage, Staged, Swap
from swapstore.connect import connect
from swapstore.errors import AccessDenied
from swapstore.testing.contract import LIVE, LONG_MS, MANIFEST, A, B, commit, do, manifest_bytes
from tests.support.valkey import Server


def driver_without(valkey: Server, command: str) -> Store:
    """A client whose server refuses one command, inside scripts too."""
    with valkey.client() as admin:
        rights = ["+@all", f"-{command}"]
        admin.acl_setuser(
            "clerk", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=rights, reset=True
        )
    return connect(f"redis://clerk:x@127.0.0.1:{valkey.port}/0")


def staged_beside_an_old_commit(owner: Store) -> Swap:
    """A dataset with a version and a live view, and a commit that replaces both and unlinks a record."""
    driver = owner._driver
    do(driver, Stage(B, b"old\n", LONG_MS))
    do(driver, commit("e.1.a", staged=(Staged(B, b"old\n"),)))
    do(driver, Put(LIVE, b"view", LONG_MS))
    do(driver, Stage(A, b"new\n", LONG_MS))
    return commit("e.2.a", expected="e.1.a", staged=(Staged(A, b"new\n"),), unlinked=(B,))


@pytest.mark.parametrize("refused", ["persist", "set"])
def test_a_commit_that_is_refused_before_its_swap_changes_nothing(valkey: Server, refused: str) -> None:
    """A command that the server refuses inside a commit leaves it half applied, leaked or unlinked."""
    with connect(valkey.url) as owner, valkey.client() as admin:
        swap = staged_beside_an_old_commit(owner)
        with driver_without(valkey, refused) as clerk:
            (reply,) = clerk._driver.execute([swap])
        admin.acl_deluser("clerk")
        assert isinstance(reply, Failed)
        assert isinstance(reply.error, AccessDenied)
        assert do(owner._driver, Get(MANIFEST)) == manifest_bytes("e.1.a")
        assert do(owner._driver, Get(LIVE)) == b"view"
        assert admin.pttl(A) > 0, "what is not committed expires"
        assert admin.pttl(B) == -1, "what is committed does not"


@pytest.mark.parametrize("refused", ["pexpire", "unlink", "publish"])
def test_a_commit_stands_whatever_fails_after_its_swap(valkey: Server, refused: str) -> None:
    """A refused clean-up makes the producer repeat a publish that is committed."""
    with connect(valkey.url) as owner, valkey.client() as admin:
        swap = staged_beside_an_old_commit(owner)
        with driver_without(valkey, refused) as clerk:
            assert clerk._driver.execute([swap]) == [Committed()]
        admin.acl_deluser("clerk")
        assert do(owner._driver, Get(MANIFEST)) == manifest_bytes("e.2.a")
        assert admin.pttl(A) == -1


def test_a_record_that_can_be_given_no_ttl_is_removed(valkey: Server) -> None:
    """A refused commit leaves a record that never expires, and that no version will ever name."""
    with connect(valkey.url) as owner, valkey.client() as admin:
        do(owner._driver, Stage(B, b"old\n", LONG_MS))
        rights = ["+@all", "-persist", "-pexpire"]
        admin.acl_setuser(
            "clerk", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=rights, reset=True
        )
        with connect(f"redis://clerk:x@127.0.0.1:{valkey.port}/0") as clerk:
            swap = commit("e.1.a", staged=(Staged(A, b"new\n"), Staged(B, b"old\n")))
            *_, reply = clerk._driver.execute([Stage(A, b"new\n", swap.staging_ttl_ms, b"body"), swap])
        admin.acl_deluser("clerk")
        assert isinstance(reply, Failed)
        assert not admin.exists(A)
        assert admin.pttl(B) > 0


def test_a_dataset_that_cannot_be_listed_is_published_and_said(
    valkey: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A publish succeeds, `datasets` does not show it, and nobody is told why."""
    with driver_without(valkey, "sadd") as clerk, valkey.client() as admin:
        admin.flushdb()
        assert clerk.publish("mena", 1).created
        assert clerk.publish("mena", 2).created
        assert clerk.publish("asia", 1).created
        (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
        assert "dataset 'mena' could not be put on the list of names swapstore:datasets" in said
        assert clerk.datasets() == []
        found = {(finding.dataset, finding.problem.value) for finding in clerk.verify() if finding.wrong}
        assert found == {("mena", "name-missing"), ("asia", "name-missing")}
        assert any("SADD" in check.found + check.advice for check in clerk.doctor())
        with pytest.raises(AccessDenied):
            clerk.repair(apply=True)
        admin.acl_deluser("clerk")
    with connect(valkey.url) as owner:
        owner.repair(apply=True)
        assert owner.datasets() == ["asia", "mena"]
