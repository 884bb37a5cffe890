"""Heavy work, such as to decode or to compare large payloads: in two threads, so that the event loop goes on.

More of it waits in a line of bounded length. Beyond that, requests are refused, before they take memory.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from swapstore.errors import Throttled

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 2
LONGEST_LINE = 64

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="swapstore-serve")
_room = threading.BoundedSemaphore(LONGEST_LINE)


async def in_thread(work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Run this in a thread, and return what it returns. Raises `Throttled` if too much waits already."""
    if not _room.acquire(blocking=False):
        raise Throttled("the server has too much to do: try again", retry_after_s=2)

    try:
        future = _threads.submit(work, *args, **options)
    except BaseException:
        _room.release()
        raise
    future.add_done_callback(lambda _: _room.release())  # of work that is cancelled in the line, too
    return await asyncio.wrap_future(future)
