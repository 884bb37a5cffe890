"""Listeners on connections that a test plays: they end in time, renew what broke, and leave nothing open."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from swapstore.drivers.redis import subscription
from swapstore.drivers.redis.subscription import AsyncRedisListener, RedisListener

LONG = 3600.0  # waits on a played connection take no time
CONFIRMED = [b"subscribe", b"channel", 1]
HINT = [b"message", b"channel", b"etag"]
PONG = [b"pong", b""]
Message = list[Any] | BaseException | Callable[[], None] | None


class Played:
    """A connection that receives this: a message, an error, None for a slice of silence, or what it calls."""

    def __init__(self, *messages: Message) -> None:
        self.receives(*messages)
        self.sent: list[str] = []
        self.is_open = False

    def receives(self, *messages: Message) -> None:
        self._messages = iter(messages)
        self._next: Message = None

    def connect(self) -> None:
        self.is_open = True

    def disconnect(self) -> None:
        self.is_open = False

    def send_command(self, *words: str, **_: object) -> None:
        self.sent.append(words[0])

    def can_read(self, timeout: float) -> bool:
        assert timeout <= subscription.SLICE_S
        self._next = next(self._messages, None)
        if callable(self._next):
            self._next()
            self._next = None
        return self._next is not None

    def read_response(self, **_: object) -> Any:
        if isinstance(self._next, BaseException):
            raise self._next
        return self._next


def listening(*connections: Played) -> RedisListener:
    opened = iter(connections)
    return RedisListener(lambda: next(opened), ["channel"])


def test_a_server_that_never_confirms() -> None:
    """A proxy that takes a subscription and says nothing stops a follower, which does not poll any more."""
    silent, other = Played(), Played(CONFIRMED)
    listener = listening(silent, other)
    listener.wait(0)
    assert not silent.is_open
    listener.wait(0)
    assert other.is_open
    listener.close()
    assert not other.is_open


def test_a_listener_that_is_closed_while_it_subscribes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is closed waits for a server that does not confirm."""
    monkeypatch.setattr(subscription, "CONFIRM_S", LONG)
    silent = Played()
    listener = listening(silent)
    silent.receives(listener.close, AssertionError("it goes on"))
    listener.wait(LONG)
    assert not silent.is_open


def test_a_subscription_that_is_refused_leaves_no_connection() -> None:
    """Where a permission forbids subscriptions, each poll leaves a connection open."""
    refused = Played(redis.ResponseError("no channel"))
    listener = listening(refused)
    listener.wait(0)
    assert refused.sent == ["SUBSCRIBE"]
    assert not refused.is_open


@pytest.mark.parametrize("when", [0, 1])
def test_an_interrupt_leaves_no_connection(when: int) -> None:
    """Ctrl-C leaves a connection open, in the middle of a message."""
    played = Played(*[CONFIRMED][:when], KeyboardInterrupt())
    other = Played(CONFIRMED)
    listener = listening(played, other)
    for _ in range(when):
        listener.wait(0)
    with pytest.raises(KeyboardInterrupt):
        listener.wait(LONG)
    assert not played.is_open
    listener.wait(LONG)  # it subscribes again, and returns at once: a hint may have been missed
    assert other.is_open
    listener.close()


def test_a_wait_disconnects_when_it_was_closed_meanwhile() -> None:
    """A store that is closed while a follower waits leaves the connection of the follower open."""
    played = Played()
    listener = listening(played)
    played.receives(CONFIRMED, None, listener.close)
    listener.wait(0)
    listener.wait(LONG)
    assert not played.is_open


def test_a_server_that_closes_each_connection_is_not_asked_in_a_loop() -> None:
    """A server that has too many clients is asked for a subscription without a pause."""
    broken = [Played(CONFIRMED, redis.ConnectionError("closed")) for _ in range(3)]
    listener = listening(*broken)
    listener.wait(0)
    waiting = threading.Thread(target=listener.wait, args=[LONG], daemon=True)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive(), "it waits for its full time"
    listener.close()
    waiting.join(10)
    assert not waiting.is_alive()
    assert broken[1].sent == []


def test_silence_is_broken_by_a_ping_and_ended_by_a_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that drops packets is not noticed; or one that is only quiet is left again and again."""
    monkeypatch.setattr(subscription, "SILENCE_S", 0.95)
    monkeypatch.setattr(subscription, "LASTED_S", 0.0)
    quiet: list[Message] = [None] * 10
    hint: list[Message] = [*quiet[1:], HINT, None]
    first = Played(CONFIRMED, *quiet, *quiet[1:], PONG, *quiet, PONG, *hint, *hint, *quiet, *quiet)
    second = Played(CONFIRMED, *hint, *quiet, *quiet)
    third = Played(CONFIRMED, *quiet, PONG, *hint)
    listener = listening(first, second, third)
    for _ in range(3):
        listener.wait(LONG)
    assert (first.sent, first.is_open) == (["SUBSCRIBE", "PING", "PING"], True)
    listener.wait(LONG)
    assert (first.sent[3:], first.is_open, second.is_open) == (["PING"], False, True)
    listener.wait(LONG)
    assert second.sent == ["SUBSCRIBE"]
    listener.wait(LONG)
    assert (second.sent, second.is_open, third.is_open) == (["SUBSCRIBE", "PING"], False, True)
    listener.wait(LONG)
    assert (third.sent, third.is_open) == (["SUBSCRIBE", "PING"], True)
    listener.close()


# --- asyncio ----------------------------------------------------------------------------------------


class AsyncPlayed:
    """The same for asyncio. What comes after the last message is silence."""

    def __init__(self, *messages: Message) -> None:
        self._messages: Iterator[Message] = iter(messages)
        self.sent: list[str] = []
        self.is_open = False

    @property
    def _writer(self) -> Any:
        return self

    @_writer.setter
    def _writer(self, _: object) -> None:
        pass

    def close(self) -> None:
        self.is_open = False

    async def connect(self) -> None:
        self.is_open = True

    async def send_command(self, *words: str, **_: object) -> None:
        self.sent.append(words[0])

    async def read_response(self, **options: Any) -> Any:
        message = next(self._messages, None)
        if message is None:
            await asyncio.sleep(options["timeout"])
        if isinstance(message, BaseException):
            raise message
        return message


def alistening(*connections: AsyncPlayed) -> AsyncRedisListener:
    opened = iter(connections)
    return AsyncRedisListener(lambda: next(opened), ["channel"])


def test_a_task_that_is_cancelled_leaves_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out leaves a connection open in the middle of a message, and the next wait reads the rest."""
    monkeypatch.setattr(subscription, "CONFIRM_S", LONG)

    async def wait(listener: AsyncRedisListener, times: int) -> None:
        for _ in range(times):
            await listener.wait(LONG)

    async def main() -> None:
        for played, waits in ((AsyncPlayed(), 1), (AsyncPlayed(CONFIRMED), 2)):
            other = AsyncPlayed(CONFIRMED)
            listener = alistening(played, other)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wait(listener, waits), 0.05)
            assert not played.is_open
            async with asyncio.timeout(10):
                await listener.wait(LONG)
            assert other.is_open
            listener.drop()
            assert not other.is_open

    asyncio.run(main())


@pytest.mark.parametrize("message", [None, redis.ResponseError("no channel")])
def test_a_subscription_without_a_confirmation(message: Message, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that refuses a subscription, or says nothing, is listened to permanently."""
    monkeypatch.setattr(subscription, "CONFIRM_S", 0.01)

    async def main() -> None:
        refused, other = AsyncPlayed(message), AsyncPlayed(CONFIRMED)
        listener = alistening(refused, other)
        await listener.wait(0)
        assert not refused.is_open
        await listener.wait(0)
        assert other.is_open
        listener.drop()

    asyncio.run(main())


def test_a_server_that_closes_each_connection_is_asked_once_a_wait() -> None:
    """A server that has too many clients is asked for a subscription without a pause, by tasks too."""

    async def main() -> None:
        broken = [AsyncPlayed(CONFIRMED, redis.ConnectionError("closed")) for _ in range(2)]
        listener = alistening(*broken)
        await listener.wait(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(listener.wait(LONG), 0.1)
        assert broken[1].sent == []

    asyncio.run(main())


def test_each_silence_is_broken_by_a_ping(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet connection is left after its first PING; or one whose server is gone is kept."""
    monkeypatch.setattr(subscription, "SILENCE_S", 0.01)
    monkeypatch.setattr(subscription, "LASTED_S", 0.0)

    async def main() -> None:
        played, other = AsyncPlayed(CONFIRMED, None, PONG, None, PONG, None, HINT), AsyncPlayed(CONFIRMED)
        listener = alistening(played, other)
        await listener.wait(0)
        await listener.wait(LONG)
        assert (played.sent, played.is_open) == (["SUBSCRIBE", "PING", "PING", "PING"], True)
        await listener.wait(LONG)  # nothing comes any more
        assert (played.sent[4:], played.is_open, other.is_open) == (["PING"], False, True)
        listener.drop()

    asyncio.run(main())
