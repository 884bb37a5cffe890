"""Heavy work in threads: the line of what waits for one."""

from __future__ import annotations

import asyncio
import threading

import pytest

from swapstore.errors import Throttled
from swapstore.serve import heavy


@pytest.fixture(autouse=True)
def _short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heavy, "_room", threading.BoundedSemaphore(heavy.THREADS + 1))


def test_work_that_fails_leaves_the_line() -> None:
    """After some documents that cannot be decoded, the server refuses all heavy work for good."""

    async def run() -> int:
        for _ in range(10):
            with pytest.raises(ValueError, match="invalid literal"):
                await heavy.in_thread(int, "x")
        return await heavy.in_thread(int, "7")

    assert asyncio.run(run()) == 7


def test_work_that_nobody_waits_for_any_more_leaves_the_line() -> None:
    """A request is cancelled while it waits for a thread, and its place in the line is never free again."""
    go_on = threading.Event()

    async def run() -> int:
        under_way = [asyncio.ensure_future(heavy.in_thread(go_on.wait, 20)) for _ in range(heavy.THREADS)]
        await asyncio.sleep(0)
        for _ in range(10):
            waiting = asyncio.ensure_future(heavy.in_thread(int, "1"))
            await asyncio.sleep(0)
            with pytest.raises(Throttled):
                await heavy.in_thread(int, "2")
            assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        go_on.set()
        await asyncio.gather(*under_way)
        return await heavy.in_thread(int, "7")

    try:
        assert asyncio.run(run()) == 7
    finally:
        go_on.set()
