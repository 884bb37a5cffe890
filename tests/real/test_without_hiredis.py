"""A fresh installation has no hiredis: redis-py reads replies with a parser of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.support.valkey import Server

BLOCKING = """
import sys
sys.modules["hiredis"] = None  # as if it were not installed
import redis.utils
import swapstore
assert not redis.utils.HIREDIS_AVAILABLE
with swapstore.connect(URL) as store:
    assert store.read_latest("nothing") is None
    assert store.status("nothing") is None
    for number in range(5):
        assert store.publish("mena", {"n": number}).created
        assert store.read_latest("mena").value == {"n": number}
    assert len(list(store.history("mena"))) == 5
    assert store.datasets() == ["mena"]
"""

AWAITED = """
import asyncio, sys
sys.modules["hiredis"] = None
import redis.utils
import swapstore.aio
assert not redis.utils.HIREDIS_AVAILABLE

async def main():
    async with swapstore.aio.connect(URL, timeout=5) as store:
        assert await store.read_latest("nothing") is None
        assert await store.status("nothing") is None
        for number in range(5):
            assert (await store.publish("mena", {"n": number})).created
            assert (await store.read_latest("mena")).value == {"n": number}
        await asyncio.gather(*(store.publish(f"d{number}", number) for number in range(30)))
        assert len([row async for row in store.history("mena")]) == 5

asyncio.run(main())
"""


@pytest.mark.parametrize("protocol", ["", "?protocol=2", "?protocol=3"])
@pytest.mark.parametrize("script", [BLOCKING, AWAITED], ids=["blocking", "asyncio"])
def test_it_works_without_hiredis(valkey: Server, script: str, protocol: str) -> None:
    """Whoever installs swapstore without its extras waits for a time-out from the second call on."""
    program = f"URL = {valkey.url + protocol!r}\n{textwrap.dedent(script)}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
