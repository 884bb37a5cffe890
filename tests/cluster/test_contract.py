"""The driver contract on a real cluster, blocking and for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from swapstore.drivers.base import Driver
from swapstore.drivers.redis.cluster import AsyncClusterDriver, ClusterDriver
from swapstore.testing import DriverContract
from tests.aio.support import Blocking, InThread
from tests.support.cluster import Cluster
from tests.support.deployment import kinds

pytestmark = [pytest.mark.server, pytest.mark.slow]


class TestCluster(DriverContract):
    """The commands mean on several nodes what they mean on one."""

    @pytest.fixture
    def driver(self, cluster: Cluster) -> Iterator[Driver]:
        driver = ClusterDriver.from_url(cluster.url)
        yield driver
        driver.close()


class TestAsyncCluster(DriverContract):
    """The same for asyncio."""

    @pytest.fixture
    def driver(self, cluster: Cluster) -> Iterator[Driver]:
        async def made() -> AsyncClusterDriver:
            await asyncio.sleep(0)
            return AsyncClusterDriver.from_url(cluster.url)

        with InThread() as home:
            driver = home.run(made())
            yield Blocking(driver, home)
            home.run(driver.close())


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("redis"), kinds()["redis"]) as running:
        yield running


@pytest.mark.nightly
@pytest.mark.skipif("redis" not in kinds(), reason="there is no wheel of Redis 6.2 for this platform")
class TestOldestCluster(DriverContract):
    """The same on Redis 6.2."""

    @pytest.fixture
    def driver(self, oldest: Cluster) -> Iterator[Driver]:
        oldest.flush()
        driver = ClusterDriver.from_url(oldest.url)
        yield driver
        driver.close()
