"""Which connections a pool lends again, and which it closes: on connections that only note what is done."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
import redis

from swapstore.drivers.redis.pool import FOR_ANY_COMMAND, BorrowedPool, Pool
from swapstore.errors import StoreClosed

Kind = Callable[..., Any]


class Connection(redis.Connection):
    """A connection to nothing."""

    made: list[Connection]
    when_connected: Callable[[], None] | None = None
    unreadable: Exception | None = None
    unhealthy: Exception | None = None
    is_open = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.made.append(self)

    def connect(self) -> None:
        self.is_open = True
        if self.when_connected is not None:
            self.when_connected()

    def disconnect(self, *_: Any) -> None:
        self.is_open = False

    def can_read(self, timeout: float | None = 0) -> bool:
        if self.unreadable is not None:
            raise self.unreadable
        return False

    def check_health(self) -> None:
        if self.unhealthy is not None:
            raise self.unhealthy


@pytest.fixture
def kind() -> Any:
    """Return a class of connections of this test's own."""
    return type("Connection", (Connection,), {"made": []})


def pool_of(kind: Any, size: int = 2) -> Pool:
    return Pool(kind, {}, size=size, wait_s=0.01)


@pytest.fixture(params=[redis.ConnectionPool, redis.BlockingConnectionPool])
def borrowed(request: pytest.FixtureRequest, kind: Any) -> Any:
    """Return a caller's pool of two connections, of each class that redis-py has."""
    options = {"timeout": 0.01} if request.param is redis.BlockingConnectionPool else {}
    return request.param(connection_class=kind, max_connections=2, **options)


def test_a_connection_that_is_made_while_the_pool_closes_is_closed(kind: Any) -> None:
    """A closed store leaves a connection open, and sends a batch on it."""
    pool = pool_of(kind)
    kind.when_connected = staticmethod(pool.close)
    with pytest.raises(StoreClosed):
        pool.get_connection()
    assert [each.is_open for each in kind.made] == [False]


def test_a_connection_that_came_back_while_another_could_not_be_made_is_retired(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover, a batch is sent on a connection to the demoted server."""
    pool = pool_of(kind)
    lent = pool.get_connection()

    def failing(**_: Any) -> None:
        pool.release(lent)
        raise OSError("no descriptor is left")

    with monkeypatch.context() as patch:
        patch.setattr(pool, "connection_class", failing)
        with pytest.raises(OSError, match="no descriptor"):
            pool.get_connection()
    assert lent.is_open
    pool.retire()
    assert not lent.is_open
    assert pool.get_connection() is not lent


def test_a_connection_is_examined_after_a_wait_for_it_too(kind: Any) -> None:
    """A batch that waited for a connection is sent on one that the server has closed meanwhile."""
    pool = Pool(kind, {}, size=1, wait_s=60)
    lent = pool.get_connection()
    lent.unreadable = redis.ConnectionError("closed")
    pool.max_connections = 2

    def overtaken(**options: Any) -> Any:
        pool.connection_class = kind
        pool.release(lent)
        pool.max_connections = 1
        return kind(**options)

    pool.connection_class = overtaken  # type: ignore[assignment]
    found = pool.get_connection()
    assert found is not lent
    assert (lent.is_open, found.is_open) == (False, True)


def test_a_lent_connection_is_ended_and_its_user_closes_it(kind: Any) -> None:
    """A thread waits for what another thread opens next: the number of a closed socket is given again."""
    pool = pool_of(kind)
    lent = pool.get_connection()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lent._sock = ours
        pool.close()
        assert theirs.recv(1) == b"", "the server is told at once"
        assert ours.recv(1) == b"", "a thread that waits for a reply is told at once"
        assert ours.fileno() >= 0
    pool.release(lent)
    assert not lent.is_open


def test_a_connection_that_comes_back_after_the_end_is_closed(kind: Any) -> None:
    """A closed store keeps a connection open."""
    pool = pool_of(kind)
    lent = pool.get_connection()
    pool.close()
    lent.connect()  # as redis-py does when a closed connection sends
    pool.release(lent)
    assert not lent.is_open


def test_a_connection_that_cannot_be_examined_is_replaced(kind: Any) -> None:
    """In a process with more than a thousand open files, a store fails that was idle."""
    pool = pool_of(kind)
    first = pool.get_connection()
    pool.release(first)
    first.unreadable = ValueError("filedescriptor out of range in select()")
    second = pool.get_connection()
    assert second is not first
    assert (first.is_open, second.is_open) == (False, True)


def test_an_idle_connection_that_does_not_answer_retires_the_others(kind: Any) -> None:
    """After a network forgot all connections, each of them costs a time-out."""
    pool = pool_of(kind)
    both = [pool.get_connection(), pool.get_connection()]
    for each in both:
        pool.release(each)
    both[1].unhealthy = redis.TimeoutError("no PONG")  # it is lent first
    found = pool.get_connection()
    assert found not in both
    assert [each.is_open for each in both] == [False, False]


def test_failed_connections_free_their_places(kind: Any) -> None:
    """After an outage no connection is to be had."""
    pool = pool_of(kind, size=1)

    def refused() -> None:
        raise redis.ConnectionError("refused")

    kind.when_connected = staticmethod(refused)
    kept = []  # as a traceback does, whose frames refer to the connection
    for _ in range(3):
        with pytest.raises(redis.ConnectionError) as caught:
            pool.get_connection()
        kept.append(caught.value)
    kind.when_connected = None
    assert pool.get_connection().is_open


def test_a_borrowed_pool_loses_no_place_when_its_connections_are_retired(borrowed: Any) -> None:
    """After some failovers, the caller's pool is exhausted."""
    pool = BorrowedPool(borrowed)
    for _ in range(3):
        pool.release(pool.get_connection())
        pool.retire()
    both = [pool.get_connection(), pool.get_connection()]
    assert [each.is_open for each in both] == [True, True]


def test_an_idle_connection_of_a_borrowed_pool_is_retired(borrowed: Any) -> None:
    """After a failover, a batch is sent on a connection to the demoted server."""
    pool = BorrowedPool(borrowed)
    both = [pool.get_connection(), pool.get_connection()]
    pool.release(both[0])
    pool.retire()
    assert [each.is_open for each in both] == [False, True]
    pool.release(both[1])
    assert [each.is_open for each in both] == [False, False]
    again = pool.get_connection()
    pool.release(again)
    assert again.is_open, "it is connected anew"


def test_what_the_caller_does_with_its_own_pool_goes_on(borrowed: Any) -> None:
    """A failover that this library sees breaks the caller's own commands, which may be under way."""
    pool = BorrowedPool(borrowed)
    callers = borrowed.get_connection(*FOR_ANY_COMMAND)
    pool.retire()
    assert callers.is_open


def test_a_connection_that_is_retired_while_it_is_lent_out_is_not_used_again(
    borrowed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread meets the failover just then: a later batch goes to the demoted server."""
    pool = BorrowedPool(borrowed)
    lend = borrowed.get_connection

    def overtaken(*arguments: Any) -> Any:
        connection = lend(*arguments)
        pool.retire()
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(borrowed, "get_connection", overtaken)
        lent = pool.get_connection()
    pool.release(lent)
    assert not lent.is_open


def test_a_connection_that_is_retired_while_it_is_made_anew_is_not_used_again(
    borrowed: Any, kind: Any
) -> None:
    """The same, while a connection without an answer is replaced."""
    pool = BorrowedPool(borrowed)
    lent = pool.get_connection()
    pool.release(lent)
    lent.unhealthy = redis.TimeoutError("no PONG")
    kind.when_connected = staticmethod(lambda: pool.retire() if kind.armed else None)
    kind.armed = False
    disconnect = lent.disconnect

    def armed() -> None:
        kind.armed = True
        disconnect()

    lent.disconnect = armed
    found = pool.get_connection()
    kind.armed = False
    assert found is lent
    assert found.is_open
    pool.release(found)
    assert not found.is_open


def test_a_borrowed_connection_that_does_not_answer_retires_the_others(borrowed: Any) -> None:
    """After a network forgot all connections, each of them costs a time-out."""
    pool = BorrowedPool(borrowed)
    other, failed = both = [pool.get_connection(), pool.get_connection()]
    for each in both:
        pool.release(each)
    failed.unhealthy = redis.TimeoutError("no PONG")
    assert pool.get_connection() is failed
    assert (other.is_open, failed.is_open) == (False, True)


def test_a_borrowed_connection_that_cannot_be_replaced_is_given_back(borrowed: Any, kind: Any) -> None:
    """After an outage, the caller's pool is exhausted."""
    pool = BorrowedPool(borrowed)
    pool.release(pool.get_connection())
    kind.unhealthy = redis.TimeoutError("no PONG")
    refusing = False

    def connect() -> None:
        nonlocal refusing
        if refusing:
            raise redis.ConnectionError("refused")
        refusing = True

    for _ in range(3):
        refusing = False
        kind.when_connected = staticmethod(connect)
        with pytest.raises(redis.ConnectionError):
            pool.get_connection()
    kind.unhealthy = kind.when_connected = None
    both = [pool.get_connection(), pool.get_connection()]
    assert [each.is_open for each in both] == [True, True]


def test_a_borrowed_connection_is_given_back_closed_after_a_failure(borrowed: Any) -> None:
    """The caller's next command reads what is left of a reply to this library."""
    pool = BorrowedPool(borrowed)
    lent = pool.get_connection()
    pool.discard(lent)
    assert not lent.is_open
    both = [pool.get_connection(), pool.get_connection()]
    assert [each.is_open for each in both] == [True, True]
