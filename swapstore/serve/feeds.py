"""Feeds: one view of a dataset for all clients of this process that follow it.

A feed keeps the newest event alone, made once for all its clients, and wakes them. So a slow client has
nothing queued for it: when it is ready again, it gets what is served then.

The app may be mounted in another one, which does not run its lifespan. So a feed starts when its first
client comes, and ends by itself some time after the last one left.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from swapstore.errors import NotFound, StoreClosed, SwapstoreError, Unavailable
from swapstore.models import Snapshot
from swapstore.store import AsyncStore

MOST_FEEDS = 200  # each has a connection to the store
LINGER_S = 30.0  # how long a feed without clients goes on: a page that is loaded anew finds it
POLL_S = 2.0  # the longest time until a change is seen on a store without hints
LOOK_S = 1.0  # how often a feed looks whether its view is behind; changes wake it at once
FIRST_LOOK_S = 0.02
SENT = ("version", "id", "ts", "committed_at", "etag", "sha256", "size", "codec", "labels")


def event(kind: str, fields: dict[str, object], id_: str | None = None) -> bytes:
    """Return one server-sent event. JSON has no line break, so its data is one line."""
    named = b"" if id_ is None else f"id: {id_}\n".encode()
    return named + f"event: {kind}\ndata: ".encode() + msgspec.json.encode(fields) + b"\n\n"


class Feed:
    """What is served of a dataset, as events.

    `served` is the event of it, `id` that of the event, and `number` counts its changes. `state` says whether
    the last look at the store failed. `over`: it has ended, and so do its clients.
    """

    def __init__(self, store: AsyncStore, name: str) -> None:
        """Begin with the first look. Raises `InvalidInput` for a name that no dataset can have."""
        self.name = name
        self.id, self.served, self.number = "", b"", 0
        self.state = _behind(None, None)
        self.error: SwapstoreError | None = None  # why it could not be read yet
        self.over = False
        self.clients: set[asyncio.Event] = set()
        self._left_at = time.monotonic()
        self._found: Snapshot | None = None
        self._failure: str | None = ""  # the class of the error of the last look; empty: there was none yet
        self._is_read = False
        self._view = store.view([name], wait_ready=0, poll=POLL_S)
        self.task = asyncio.create_task(self._keep())

    @contextmanager
    def joined(self) -> Iterator[asyncio.Event]:
        """Be a client. The event is set when there may be something to send."""
        woken = asyncio.Event()
        self.clients.add(woken)
        try:
            yield woken
        finally:
            self.clients.discard(woken)
            self._left_at = time.monotonic()

    async def first_look(self, most_s: float) -> None:
        """Wait until the store was looked at once, at most so long.

        Raises `NotFound` if nothing is published, and why the dataset cannot be read, unless that may get
        better by itself.
        """
        with self.joined() as woken, suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while not (self._is_read or self.error or self.over):
                    woken.clear()
                    await woken.wait()
        if self.error is not None and not isinstance(self.error, Unavailable):
            raise copy.copy(self.error)
        if self._is_read and self._found is None:
            raise NotFound("nothing is published", dataset=self.name)

    @property
    def is_wanted(self) -> bool:
        """Whether it has clients, or had some a short time ago."""
        return bool(self.clients) or time.monotonic() - self._left_at < LINGER_S

    def end(self) -> None:
        """End it, and let its clients know."""
        self.over = True
        self.task.cancel()
        self._wake()

    async def _keep(self) -> None:
        try:
            async with self._view as view:
                while self.is_wanted:
                    self._look()
                    await view.wait(LOOK_S if self._is_read or self.error else FIRST_LOOK_S)
                self.over = True  # before the view is closed, which takes a moment: nobody may join it now
        except StoreClosed:
            pass  # the site ends
        finally:
            self.over = True
            self._wake()

    def _look(self) -> None:
        """Make events of what the view holds now, and of how it does. Wake the clients if that is news."""
        health = self._view.health().datasets[self.name]
        if health.age is None and health.error is None:
            return  # the first look is under way
        before = (self.number, self.state)
        try:
            found, self.error = self._view[self.name], None
        except SwapstoreError as error:
            self.error = error
        else:
            if found is not self._found or not self._is_read:
                self._show(found)
        failure = None if health.error is None else type(health.error).__name__
        if failure != self._failure:
            self._failure = failure
            seen_at = None if health.age is None else round((time.time() - health.age) * 1000)
            self.state = event("current", {}) if failure is None else _behind(failure, seen_at)
        if before != (self.number, self.state):
            self._wake()

    def _show(self, found: Snapshot | None) -> None:
        """Take over what is held. A confirmation changes the etag alone, which is no news."""
        if self._found is None or found is None or _named(found) != _named(self._found):
            self.number += 1
        self._found, self._is_read = found, True
        if found is None:
            self.id, self.served = "", event("gone", {}, "")
        else:
            fields = {name: getattr(found, name) for name in SENT}
            self.id = f"{found.version}-{found.committed_at}"  # after a drop, versions begin anew
            self.served = event("served", fields, self.id)

    def _wake(self) -> None:
        for woken in self.clients:
            woken.set()


def _named(found: Snapshot) -> tuple[object, ...]:
    return (found.id, found.version, found.ts, found.committed_at, found.sha256)


def _behind(error: str | None, seen_at: int | None) -> bytes:
    return event("behind", {"error": error, "seen_at": seen_at})


class TooManyFeeds(Exception):  # noqa: N818 - the name says it
    """So many datasets are followed that there is no connection for another one."""


class Feeds:
    """The feeds of a site, by dataset."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._feeds: dict[str, Feed] = {}
        self._closed = False

    def of(self, name: str) -> Feed:
        """Return the feed of a dataset, which begins now if there is none."""
        found = self._feeds.get(name)
        if found is not None and not found.over:
            return found
        self._make_room()
        made = self._feeds[name] = Feed(self._store, name)
        made.task.add_done_callback(lambda _: self._forget(made))
        return made

    def drop_unused(self, feed: Feed) -> None:
        """End a feed that has no clients."""
        if not feed.clients:
            feed.end()

    async def close(self) -> None:
        """End all streams, for good: the server stops."""
        self._closed = True
        every = list(self._feeds.values())
        for feed in every:
            feed.end()
        if every:
            await asyncio.wait([feed.task for feed in every])

    def _make_room(self) -> None:
        if not self._closed and len(self._feeds) < MOST_FEEDS:
            return
        unused = next((feed for feed in self._feeds.values() if not feed.clients), None)
        if self._closed or unused is None:
            raise TooManyFeeds
        unused.end()
        self._forget(unused)

    def _forget(self, feed: Feed) -> None:
        if self._feeds.get(feed.name) is feed:
            del self._feeds[feed.name]
