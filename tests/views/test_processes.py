"""Views in processes that fork, that gevent has patched, and that have several event loops."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore import InvalidInput
from tests.support.valkey import Server, free_port
from tests.views.test_view import value
from tests.views.watched import WITHIN_S, eventually

pytestmark = [pytest.mark.slow, pytest.mark.server]

LONG = 60.0

PRELOADED = """
import swapstore

store = swapstore.connect(URL)
view = store.view(["a"], poll=60).start()


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(view["a"].value).encode()]
"""

PATCHED = """
from gevent import monkey

monkey.patch_all()

import sys
import gevent
import swapstore

with swapstore.connect(sys.argv[1]) as store, swapstore.connect(sys.argv[1]) as producer:
    ticks = []

    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.01)

    gevent.spawn(tick)
    with store.view(["a"], poll=60) as view:
        gevent.sleep(0.5)
        assert len(ticks) > 5, "the view blocks the loop"
        waiting = [gevent.spawn(view.wait, 20) for _ in range(3)]
        gevent.sleep(0)
        producer.publish("a", 7)
        gevent.joinall(waiting)
        assert [each.value for each in waiting] == [["a"]] * 3, waiting
        assert view["a"].value == 7
print("done")
"""


def in_a_child(do: Callable[[], object]) -> None:
    """Do it in a forked process, within some seconds."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(WITHIN_S))
        code = 1
        try:
            do()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_keeps_its_own_view_up_to_date(valkey: Server) -> None:
    """A worker that was forked after the view was started serves what was current then, for ever."""
    with swapstore.connect(valkey.url) as store, store.view(["a"], poll=LONG) as view:
        store.publish("a", 1)
        assert view.wait(WITHIN_S) == ["a"]

        def child() -> None:
            assert value(view["a"]) == 1
            with swapstore.connect(valkey.url) as producer:
                producer.publish("a", 2)
                eventually(lambda: value(view["a"]) == 2)
                for number in range(3, 6):  # by hints: the poll is long
                    time.sleep(0.05)
                    producer.publish("a", number)
                    eventually(lambda number=number: value(view["a"]) == number)  # type: ignore[misc]
            view.close()

        in_a_child(child)
        eventually(lambda: value(view["a"]) == 5)
        store.publish("a", 6)
        eventually(lambda: value(view["a"]) == 6)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_threads_use_the_view(valkey: Server) -> None:
    """A lock that a thread holds during the fork stops the child."""
    stop = threading.Event()
    with swapstore.connect(valkey.url) as store, swapstore.connect(valkey.url) as producer:
        producer.publish("a", 1)
        with store.view(["a"], poll=LONG) as view:

            def wait() -> None:
                while not stop.is_set():
                    view.wait(0.001)

            def publish() -> None:
                while not stop.is_set():
                    producer.publish("a", 1)

            def child() -> None:
                assert value(view["a"]) == 1
                view.wait(0.001)
                view.close()

            threads = [threading.Thread(target=wait), threading.Thread(target=publish)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(20):
                    in_a_child(child)
            finally:
                stop.set()
                for thread in threads:
                    thread.join()


def test_gunicorn_with_preload(valkey: Server, tmp_path: Path) -> None:
    """Workers of a server that loads the app before it forks serve old data."""
    (tmp_path / "app.py").write_text(PRELOADED.replace("URL", repr(valkey.url)))
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--threads", "2"]
    command += ["--bind", f"127.0.0.1:{port}", "--worker-tmp-dir", str(tmp_path), "app:app"]
    with swapstore.connect(valkey.url) as producer:
        producer.publish("a", 0)
        with (
            (tmp_path / "log").open("w") as log,
            subprocess.Popen(command, cwd=tmp_path, stderr=log) as process,
        ):
            try:
                eventually(lambda: _get(port) == "0")
                for number in range(1, 4):
                    producer.publish("a", number)
                    eventually(lambda number=number: {_get(port) for _ in range(10)} == {str(number)})  # type: ignore[misc]
            finally:
                process.terminate()
    assert "Traceback" not in (tmp_path / "log").read_text()


def _get(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def test_gevent(valkey: Server) -> None:
    """In a program that gevent has patched, a view stops all greenlets, or never learns of a change."""
    done = subprocess.run(
        [sys.executable, "-c", PATCHED, valkey.url], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "done\n", done.stderr


def test_two_event_loops(valkey: Server) -> None:
    """A view for asyncio that another loop waits for hangs, and does not say why."""

    async def scenario() -> None:
        async with swapstore.aio.connect(valkey.url) as store, store.view(["a"], poll=LONG) as view:
            await store.publish("a", 1)
            assert await view.wait(WITHIN_S) == ["a"]
            found: list[Any] = []

            def elsewhere() -> None:
                found.append(value(view["a"]))  # any thread may read it
                with pytest.raises(InvalidInput, match="in the event loop that started it"):
                    asyncio.run(view.wait(1))

            await asyncio.to_thread(elsewhere)
            assert found == [1]

    asyncio.run(scenario())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_view_for_asyncio_in_a_forked_process_says_what_to_do(valkey: Server) -> None:
    """A forked worker serves old data from a view whose event loop is its parent's."""

    async def scenario() -> None:
        async with swapstore.aio.connect(valkey.url) as store:
            await store.publish("a", 1)
            async with store.view(["a"], poll=LONG) as view:

                def child() -> None:
                    with pytest.raises(InvalidInput, match="make one in each"):
                        view["a"]

                in_a_child(child)
                assert value(view["a"]) == 1

    asyncio.run(scenario())
