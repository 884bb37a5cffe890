"""One client's conversation with a REST endpoint, without I/O: what to send, and what an answer means.

`Conversation.exchange` is a generator. It yields requests; a driver sends each of them once, and passes in
the response, or throws in the error that it got instead.
"""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Command, Failed, ReadCommand
from swapstore.drivers import refusals
from swapstore.drivers.redis.wire import Wire
from swapstore.drivers.rest import errors, wire
from swapstore.drivers.rest.wire import ItemError, Strings, Unreadable
from swapstore.errors import AccessDenied, PayloadTooLarge, ReplyLost, SwapstoreError, Unsupported
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from swapstore.drivers.redis.wire import Frame
    from swapstore.drivers.rest.address import Address

HTTP_OK = 200
PROBES = 3  # requests that ask for the endpoint's encoding of strings, at most


@attrs.frozen
class Request:
    """A body to post, and its headers."""

    body: bytes = attrs.field(repr=False)
    headers: tuple[tuple[str, str], ...] = attrs.field(repr=False)
    reads_only: bool


@attrs.frozen
class Response:
    """An HTTP response. The names of headers are in lower case."""

    status: int
    headers: dict[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


class Conversation:
    """What a driver knows about its endpoint: its path, the scripts sent, its encoding, its sync token."""

    def __init__(self, address: Address, *, max_request: int) -> None:
        self.where = address.where
        self.target = f"{address.path}/pipeline"
        self._address = address
        self._max_request = max_request
        self._wire = Wire(given_every_key=True)
        self._strings: Strings | None = None
        self._probes_left = PROBES
        self._lacking: set[str] = set()  # commands that are replaced by others
        self._sync = SyncToken()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.where}>"

    def exchange(self, commands: Sequence[Command[Any]]) -> Generator[Request, Response, list[Any]]:
        """Carry out a batch; see `Driver.execute`. An empty batch sends nothing."""
        if not commands:
            return []
        replies = yield from self._ask(commands)
        unknown = [i for i, reply in enumerate(replies) if _lacks_script(reply)]
        if unknown:  # the endpoint does not know the script (any more): they did not run, so send its text
            try:
                again = yield from self._ask([commands[i] for i in unknown], as_text=True)
            except ReplyLost:
                raise
            except SwapstoreError as error:
                again = [error] * len(unknown)  # not carried out, unlike the rest of the batch
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
        refused = [i for i, reply in enumerate(replies) if self._is_replaceable(commands[i], reply)]
        if refused:
            yield from self._replace(commands, replies, refused)
        return [self._answer(command, reply) for command, reply in zip(commands, replies, strict=True)]

    def _is_replaceable(self, command: Command[Any], reply: Any) -> bool:
        """Say whether the endpoint lacks a command that another one can replace."""
        if not isinstance(reply, ItemError):
            return False
        frame = self._wire.frame(command, as_text=False)
        lacks = isinstance(refusals.refusal(reply.text, self.where, command), Unsupported | AccessDenied)
        return lacks and frame[0] not in self._lacking and wire.instead(frame) is not None

    def _replace(
        self, commands: Sequence[Command[Any]], replies: list[Any], refused: Sequence[int]
    ) -> Generator[Request, Response, None]:
        """Ask for the same with other commands, and remember what the endpoint lacks.

        This time they are carried out after the rest of the batch. So a client that publishes asks for each
        of them when it finds out how the endpoint commits, before their order matters.
        """
        names = {self._wire.frame(commands[i], as_text=False)[0] for i in refused}
        self._lacking |= names
        try:
            again = yield from self._ask([commands[i] for i in refused])
        except SwapstoreError as error:
            self._lacking -= names
            if isinstance(error, ReplyLost) or all(isinstance(command, ReadCommand) for command in commands):
                raise
            for i in refused:
                replies[i] = error  # not carried out, unlike the rest of the batch
            return
        for i, reply in zip(refused, again, strict=True):
            if isinstance(reply, ItemError):
                self._lacking.discard(self._wire.frame(commands[i], as_text=False)[0])
            else:
                replies[i] = reply

    def _frame(self, command: Command[Any], *, as_text: bool) -> Frame:
        frame = self._wire.frame(command, as_text=as_text)
        return (wire.instead(frame) if frame[0] in self._lacking else None) or frame

    def _ask(
        self, commands: Sequence[Command[Any]], *, as_text: bool = False
    ) -> Generator[Request, Response, list[Any]]:
        """Post commands; return the values, and an `ItemError` for each refused command."""
        frames = [self._frame(command, as_text=as_text) for command in commands]
        probing = self._strings is None and self._probes_left > 0
        if probing:
            self._probes_left -= 1
            frames.append(wire.PROBING)
        request = self._request(commands, frames)
        number = self._sync.sending()
        response = yield request
        if response.status != HTTP_OK:
            raise errors.of_status(response, request, self.where, self._address.token)
        try:
            results = wire.items(response.body, len(frames))
            strings = self._encoding_of(results, probing=probing)
            values = [
                result if isinstance(result, ItemError) else _value(command, result, strings, frame)
                for command, result, frame in zip(
                    commands, results[: len(commands)], frames[: len(commands)], strict=True
                )
            ]
        except (Unreadable, RecursionError) as error:
            found = str(error) if isinstance(error, Unreadable) else "lists within too many lists"
            failure = errors.of_answer(found, response, request, self.where)
        else:
            self._sync.reached(response.headers.get(SYNC_TOKEN), number, reads_only=request.reads_only)
            return values
        raise failure

    def _request(self, commands: Sequence[Command[Any]], frames: Sequence[Any]) -> Request:
        body = wire.body(commands, frames, self.where)
        if len(body) > self._max_request:
            raise PayloadTooLarge(
                f"a request of {len(body)} bytes is too large for {self.where}: max_request is "
                f"{self._max_request} bytes. Nothing was sent. Publish less at once, or raise max_request= "
                "if the endpoint accepts more",
                size_bytes=len(body),
                limit_bytes=self._max_request,
            )
        headers = [
            ("Host", self._address.authority),
            ("Authorization", f"Bearer {self._address.token}"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "swapstore"),
            ("Upstash-Encoding", "base64"),
        ]
        if self._sync.token is not None:
            headers.append((SYNC_TOKEN, self._sync.token))
        reads_only = all(isinstance(command, ReadCommand) for command in commands)
        return Request(body, tuple(headers), reads_only)

    def _encoding_of(self, results: Sequence[Any], *, probing: bool) -> Strings:
        """Return how the strings of these results are encoded, and remember it if it is certain."""
        if self._strings is not None:
            return self._strings
        found = wire.strings_of(results[-1]) if probing else None
        if found is None:
            guess = wire.guessed([result for result in results if not isinstance(result, ItemError)])
            if guess is Strings.BASE64:
                return guess  # for this answer only: plain text may look like base64
            found = guess
        self._strings = found
        return found

    def _answer(self, command: Command[Any], reply: Any) -> Any:
        if isinstance(reply, ItemError):
            refusal = refusals.refusal(reply.text, self.where, command)
            error = errors.without_token(refusal, reply.text, self._address.token)
            return refusals.failed(error, reply.text)
        return Failed(reply) if isinstance(reply, SwapstoreError) else reply


def _value(command: Command[Any], result: Any, strings: Strings, frame: Frame) -> Any:
    return wire.value(command, wire.decoded(result, strings), frame)


def _lacks_script(reply: Any) -> bool:
    return isinstance(reply, ItemError) and reply.text.startswith("NOSCRIPT")


SYNC_TOKEN = "upstash-sync-token"  # noqa: S105 - a name


class SyncToken:
    """The endpoint's token for the newest state that this client has seen: replicas wait for it.

    Tokens cannot be compared. The token of a write's answer always counts. That of a read's answer does not
    replace one that came while the read was in progress, because it may be older.
    """

    def __init__(self) -> None:
        self.token: str | None = None
        self._numbers = itertools.count(1)
        self._since = 0
        self._lock = threading.RLock()
        survive_forks(self)

    def after_fork(self) -> None:
        """Make a new lock: a thread of the parent may hold the old one."""
        self._lock = threading.RLock()

    def sending(self) -> int:
        """Return a number for a request that is about to be sent."""
        with self._lock:
            return next(self._numbers)

    def reached(self, token: str | None, number: int, *, reads_only: bool) -> None:
        """Remember the token of the answer to the request with this number, unless it may be older."""
        with self._lock:
            if (
                token
                and token.isascii()
                and token.isprintable()
                and not (reads_only and number < self._since)
            ):
                self.token = token
                self._since = next(self._numbers)
