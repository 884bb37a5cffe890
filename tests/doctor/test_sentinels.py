"""`doctor` over real sentinels: what they say, and what the replicas that they name say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Sentinel
from redis.asyncio import Sentinel as AsyncSentinel

import swapstore
import swapstore.aio
from swapstore import Check
from tests.support.deployment import kinds, until
from tests.support.sentinels import DOWN_AFTER_MS, NAME, Sentinels

pytestmark = [pytest.mark.server, pytest.mark.slow]

PASSWORD, OF_SENTINELS = "s3cr3t", "0ther-s3cr3t"
ACCESS: Any = {"sentinel_kwargs": {"password": OF_SENTINELS}, "password": PASSWORD}


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    options: Any = {"password": PASSWORD, "sentinel_password": OF_SENTINELS}
    with Sentinels(tmp_path_factory.mktemp("sentinels"), kinds()["valkey"], **options) as made:
        yield made


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def blocking(where: Any) -> dict[str, Check]:
    with swapstore.connect(where) as store:
        return by_name(store.doctor())


def in_asyncio(url: str) -> dict[str, Check]:
    async def examined() -> dict[str, Check]:
        async with swapstore.aio.connect(url) as store:
            return by_name(await store.doctor())

    return asyncio.run(examined())


def with_client(sentinels: Sentinels) -> dict[str, Check]:
    """What doctor says on a client of the caller's."""
    manager: Any = Sentinel(hosts_of(sentinels), **ACCESS)  # type: ignore[no-untyped-call]
    client = manager.master_for(NAME)
    found = blocking(client)
    for each in (client, *manager.sentinels):
        each.close()
    return found


def with_asyncio_client(sentinels: Sentinels) -> dict[str, Check]:
    async def examined() -> dict[str, Check]:
        manager: Any = AsyncSentinel(hosts_of(sentinels), **ACCESS)  # type: ignore[no-untyped-call]
        client = manager.master_for(NAME)
        async with swapstore.aio.connect(client) as store:
            found = by_name(await store.doctor())
        for each in (client, *manager.sentinels):
            await each.connection_pool.disconnect()
        return found

    return asyncio.run(examined())


def hosts_of(sentinels: Sentinels) -> list[tuple[str, int]]:
    return [("127.0.0.1", each.port) for each in sentinels.sentinels]


def test_all_is_well(sentinels: Sentinels) -> None:
    """Sound sentinels are called broken, a caller's client does not ask them, or a password is shown."""
    for found in (
        blocking(sentinels.url),
        in_asyncio(sentinels.url),
        with_client(sentinels),
        with_asyncio_client(sentinels),
    ):
        assert found["sentinels"].found.startswith("3 sentinels, quorum 2")
        assert (found["sentinels"].verdict, found["failover"].verdict) == ("ok", "ok")
        assert f"{DOWN_AFTER_MS / 1000:g} s" in found["failover"].found
        nodes = found["replicas"].nodes
        assert nodes is not None
        assert [node.role for node in nodes] == ["primary", "replica", "replica"]
        assert nodes[0].address == f"127.0.0.1:{sentinels.primary.port}"
        assert {node.link for node in nodes} == {"up"}
        assert len({node.version for node in nodes}) == 1
        assert None not in {node.version for node in nodes}, "the replicas were asked, with the password"
        assert not any(secret in str(found) for secret in (PASSWORD, OF_SENTINELS))


def test_what_is_lost(sentinels: Sentinels) -> None:
    """A replica or a sentinel that is down is not told: the primary knows neither."""
    lost, silent = sentinels.replicas[0], sentinels.sentinels[2]
    lost.stop()
    silent.stop()
    flags = ("SENTINEL SLAVES", NAME)  # as in `Sentinels.is_failing_over`
    until(lambda: any("s_down" in each["flags"] for each in sentinels.ask(*flags)), "it is not noticed")
    found = blocking(sentinels.url)
    assert f"127.0.0.1:{lost.port} (the sentinels call it down)" in found["replicas"].found
    assert (found["replicas"].verdict, found["sentinels"].verdict) == ("warning", "warning")
    assert f"127.0.0.1:{silent.port}" in found["sentinels"].found
    sentinels.sentinels[1].stop()
    until(lambda: blocking(sentinels.url)["sentinels"].verdict == "problem", "no quorum is not noticed")


def test_a_quorum_that_is_never_reached(sentinels: Sentinels) -> None:
    """Nobody agrees that the primary is down, whatever happens."""
    sentinels.ask("SENTINEL", "SET", NAME, "quorum", "5")
    check = blocking(sentinels.url)["sentinels"]
    assert (check.verdict, "needs 5 to agree and knows 3" in check.found) == ("problem", True)
