"""Server-sent events: what is served of a dataset, as it changes.

    id: 42-1769839201000
    event: served
    data: {"version": 42, "id": "…", "ts": …, "committed_at": …, "etag": "…", "sha256": "…", "size": …, …}

A stream begins with `served` and with a state, `current` or `behind`, and then has an event for each change:

- `served`: another snapshot is served, by a commit, a pin, an unpin or a rollback. Of commits that are faster
  than the client reads, it gets the newest; `…/history` lists those between.
- `gone`: nothing is published any more. Its id is empty.
- `behind`: the last look at the store failed; `seen_at` is when it last showed what was sent (ms since the
  Unix epoch; null: never), and `error` the class of the error. `current`: it was read again.

An id is a version and when it was committed: after a dataset was dropped, versions begin anew.
`Last-Event-ID` is compared for equality alone, because a pin or a rollback serves a lower version: a client
that has what is served gets no `served` event, and every other one gets it at once.

404 if nothing is published, so that a name that is misspelt is noticed. In an outage, the stream begins with
`behind` all the same: browsers try again after a stream that ended, but never after a status like 503.
"""

from __future__ import annotations

import asyncio
import random

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from swapstore.serve.feeds import Feed, TooManyFeeds
from swapstore.serve.paths import DATASET
from swapstore.serve.site import site_of

FIRST_LOOK_S = 5.0  # how long a stream waits for the store before it begins
PULSE_S = 15.0  # between comments, which keep proxies from closing the stream and show that a client has gone
SEND_S = 30.0  # a client that takes nothing for so long is disconnected
RETRY_MS = (2000, 5000)  # spread, so that the clients of a server that restarts do not come back at once
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx hands each event on at once
}


async def follow_events(request: Request) -> Response:
    """Return a stream of events, which has no end."""
    feeds, name = site_of(request).feeds, request.path_params["name"]
    try:
        feed = feeds.of(name)
    except TooManyFeeds:
        detail = "too many datasets are followed, or the server stops: try again later"
        raise HTTPException(503, detail, {"Retry-After": "5"}) from None
    try:
        await feed.first_look(FIRST_LOOK_S)
    except Exception:
        feeds.drop_unused(feed)
        raise
    if request.method == "HEAD":
        return Response(headers=HEADERS)
    return _Stream(feed, request.headers.get("last-event-id") or None)


class _Stream(Response):
    """Sends the events of a feed to one client, until either side ends it."""

    def __init__(self, feed: Feed, known: str | None) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._feed = feed
        self._known = known  # the id of what the client has already
        self._number, self._state = -1, b""  # as they were sent last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer the request."""
        with self._feed.joined() as woken:
            gone = asyncio.create_task(_disconnected(receive))
            gone.add_done_callback(lambda _: woken.set())
            try:
                await self._send_all(send, woken, gone)
            except TimeoutError:
                pass  # the client does not read: a server closes a response that is not complete
            finally:
                gone.cancel()

    async def _send_all(self, send: Send, woken: asyncio.Event, gone: asyncio.Task[None]) -> None:
        async with asyncio.timeout(SEND_S):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        more = f"retry: {random.randint(*RETRY_MS)}\n\n".encode()  # noqa: S311 - no secret
        while not gone.done():
            woken.clear()
            more += self._news()
            is_over = self._feed.over
            async with asyncio.timeout(SEND_S):
                await send({"type": "http.response.body", "body": more, "more_body": not is_over})
            if is_over:
                return
            more = b""
            try:
                async with asyncio.timeout(PULSE_S):
                    await woken.wait()
            except TimeoutError:
                more = b":\n\n"

    def _news(self) -> bytes:
        """Return the events that the client does not have, and note that it has them."""
        feed, news = self._feed, b""
        if feed.number != self._number and feed.served:
            news += feed.served if self._known != feed.id else b""
            self._number, self._known = feed.number, None
        if feed.state != self._state:
            news += feed.state
            self._state = feed.state
        return news


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


ROUTES: list[BaseRoute] = [Route(f"/api{DATASET}/events", follow_events)]
