"""How the Redis driver treats replies: redis-py reads them, and each one is checked by itself."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
import redis
from redis.connection import DefaultParser

from swapstore.commands import Command, Failed, Get, Members, Put, Register
from swapstore.drivers.redis.address import ANONYMOUS, READ_SIZE
from swapstore.drivers.redis.aio import AsyncRedisDriver
from swapstore.drivers.redis.driver import RedisDriver
from swapstore.errors import ReplyLost, StoreFull, Unavailable

A, B = Get("a"), Get("b")


@contextmanager
def server(
    *pieces: bytes, options: str = "", ends: bool = False, borrowed: bool = False
) -> Iterator[RedisDriver]:
    """Yield a driver whose server answers the first batch with these pieces, one at a time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as words, suppress(OSError):
                command(words)  # the first thing that is sent: some proxies hang up at CLIENT SETINFO
                for piece in pieces:
                    connection.sendall(piece)
                if not ends:
                    connection.recv(1)
                    connection.recv(1 << 16)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        client = redis.Redis(host="127.0.0.1", port=port, protocol=2, **ANONYMOUS)
        url = f"redis://127.0.0.1:{port}{options}"
        driver = RedisDriver.from_client(client) if borrowed else RedisDriver.from_url(url)
        try:
            yield driver
        finally:
            driver.close()
            client.close()
        thread.join(10)
        assert not thread.is_alive()


def command(words: Any) -> list[bytes]:
    """Read one command."""
    return [words.read(int(words.readline()[1:]) + 2)[:-2] for _ in range(int(words.readline()[1:]))]


def test_replies_that_arrive_in_pieces() -> None:
    """A reply that arrives in pieces is taken for that of another command."""
    said = b"$3\r\none\r\n$-1\r\n*2\r\n$1\r\nx\r\n$1\r\ny\r\n"
    with server(*(said[i : i + 1] for i in range(len(said)))) as driver:
        assert driver.execute([A, B, Members("c")]) == [b"one", None, frozenset({"x", "y"})]


@pytest.mark.parametrize("size", [READ_SIZE - 9, READ_SIZE, 3 * READ_SIZE + 7])
def test_a_large_value_and_what_comes_behind_it(size: int) -> None:
    """The bytes after a large payload are lost for the next reply."""
    value = bytes(range(256)) * (size // 256) + b"\r\n" * (size % 256)
    with server(b"$%d\r\n%b\r\n$2\r\nok\r\n" % (len(value), value)) as driver:
        assert driver.execute([A, B]) == [value, b"ok"]


def test_an_error_is_that_of_one_command() -> None:
    """An error reply, whatever bytes it holds, hides the replies of its neighbours."""
    with server(b"$1\r\n1\r\n-OOM no \xff room\r\n$1\r\n3\r\n") as driver:
        one, refused, three = driver.execute([A, Put("b", b"2", 1), B])
        assert (one, three) == (b"1", b"3")
        assert isinstance(refused, Failed)
        assert isinstance(refused.error, StoreFull)


def test_the_end_of_a_connection_is_not_a_reply() -> None:
    """Half a value is taken for a whole one."""
    with server(b"$10\r\nhalf", ends=True) as driver, pytest.raises(ReplyLost, match=r"[Cc]onnection closed"):
        driver.execute([A])


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n", b"~x\r\n", b"\r\n", b"$x\r\n"])
def test_something_else_on_the_port_is_refused(said: bytes) -> None:
    """Another service on the port is taken for a Redis server."""
    with server(said) as driver, pytest.raises(ReplyLost):
        driver.execute([A])


def test_silence_ends_at_the_time_out() -> None:
    """A server that hangs makes its clients hang."""
    with server(options="?socket_timeout=0.05") as driver, pytest.raises(ReplyLost, match="[Tt]ime"):
        driver.execute([A])


def blocking(url: str, command: Command[Any]) -> None:
    with closing(RedisDriver.from_url(url)) as driver:
        driver.execute([command])


def in_asyncio(url: str, command: Command[Any]) -> None:
    asyncio.run(AsyncRedisDriver.from_url(url).execute([command]))


@pytest.mark.parametrize("send", [blocking, in_asyncio])
def test_a_server_that_takes_nothing_of_a_large_request(send: Callable[..., None]) -> None:
    """A server that hangs is told as one that finds the payload too large."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}?socket_timeout=0.1"
        with pytest.raises(ReplyLost) as caught:
            send(url, Put("a", bytes(64 << 20), 1))
    assert not caught.value.cut_off


@pytest.mark.parametrize(
    "commands", [[A, B], [Put("a", b"1", 1), Register("b", "x")]], ids=["reads", "writes"]
)
def test_a_loading_server_has_carried_out_nothing(commands: list[Command[Any]]) -> None:
    """The caller is told that the outcome is unknown instead of to try again."""
    loading = b"-LOADING the dataset is in memory soon\r\n" * len(commands)
    with server(loading) as driver, pytest.raises(Unavailable, match="still loading") as caught:
        driver.execute(commands)
    assert type(caught.value) is Unavailable


def test_a_server_that_stops_loading_within_a_batch() -> None:
    """A command that was carried out after a refused one is reported as lost."""
    with server(b"-LOADING the dataset is in memory soon\r\n:1\r\n$1\r\nx\r\n") as driver:
        refused, registered, value = driver.execute([Put("a", b"1", 1), Register("b", "x"), A])
        assert isinstance(refused, Failed)
        assert "still loading" in str(refused.error)
        assert (registered, value) == (None, b"x")


@pytest.mark.parametrize(
    ("commands", "kind"),
    [([A, B], Unavailable), ([Put("a", b"1", 1)], Unavailable), ([Put("a", b"1", 1), A], ReplyLost)],
)
def test_loading_as_a_borrowed_client_reads_it(commands: list[Command[Any]], kind: type[Unavailable]) -> None:
    """A caller's client reads nothing after LOADING: what may have been carried out is told as refused."""
    loading = b"-LOADING the dataset is in memory soon\r\n"
    with server(loading, b":1\r\n", borrowed=True) as driver, pytest.raises(Unavailable) as caught:
        driver.execute(commands)
    assert type(caught.value) is kind


def test_hiredis_reads_where_it_is_installed() -> None:
    """A value of 1 MB takes several times as long to read."""
    pytest.importorskip("hiredis")
    assert "Hiredis" in DefaultParser.__name__
