"""The faults that a test can switch on in the REST server, at any moment and from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import attrs

Kind = Literal["fail", "drop_before", "drop_after", "delay_before", "delay_after", "answer", "mangle", "cut"]
NO_SCRIPTS = frozenset({"EVAL", "EVALSHA", "PERSIST", "MULTI", "EXEC", "WATCH"})  # what a proxy may lack
TooLarge = Literal["command", "request", "413", "reset"]


@attrs.define
class Plan:
    """One fault of the next requests, or of the next ones that hold a command of this name."""

    kind: Kind
    when: str | None = None
    skip: int = 0
    times: int = 1
    number: int = 0  # of the command to fail, the first is 1
    error: str = ""
    seconds: float = 0.0
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = attrs.field(factory=dict)
    applied: bool = False
    change: Callable[[bytes], bytes] = bytes


class Switches:
    """Permanent rules are attributes; methods plan what happens to the next requests.

    Every method takes `when` (only requests that hold a command of this name, such as "EVAL"), `skip`
    (let this many of those pass first) and `times` (then affect this many). Faults of the same kind,
    except `fail`, happen one after the other; faults of different kinds may meet in one request.
    """

    def __init__(self) -> None:
        self.denied: frozenset[str] = frozenset()  # commands that are not available, in capitals
        self.compares = True  # False: SET knows no IFEQ, like servers before Valkey 8.1 and Redis 8.4
        self.failing: dict[str, str] = {}  # name of a command, in capitals: its error, each time
        self.cap_bytes = 10 * 1024 * 1024
        self.too_large: TooLarge = "command"  # what happens above the cap: see rest.py
        self.encodes_ok = False  # True: as serverless-redis-http does, which encodes the status OK too
        self._plans: list[Plan] = []
        self._lock = threading.Lock()

    def fail(
        self,
        number: int,
        error: str = "ERR DB capacity quota exceeded",
        *,
        when: str | None = None,
        skip: int = 0,
        times: int = 1,
    ) -> None:
        """The command of this number (from 1) is not run, and answered with this error."""
        self._add(Plan("fail", when, skip, times, number=number, error=error))

    def drop_before(self, *, when: str | None = None, skip: int = 0, times: int = 1) -> None:
        """Close the connection; nothing was run."""
        self._add(Plan("drop_before", when, skip, times))

    def drop_after(self, *, when: str | None = None, skip: int = 0, times: int = 1) -> None:
        """Run everything, then close the connection without an answer."""
        self._add(Plan("drop_after", when, skip, times))

    def delay_before(self, seconds: float, *, when: str | None = None, skip: int = 0, times: int = 1) -> None:
        """Wait before anything is run: the client may have given up by then."""
        self._add(Plan("delay_before", when, skip, times, seconds=seconds))

    def delay_after(self, seconds: float, *, when: str | None = None, skip: int = 0, times: int = 1) -> None:
        """Run everything at once, and answer late."""
        self._add(Plan("delay_after", when, skip, times, seconds=seconds))

    def answer(
        self,
        status: int,
        body: bytes | str = b"",
        headers: Mapping[str, str] | None = None,
        *,
        applied: bool = False,
        when: str | None = None,
        skip: int = 0,
        times: int = 1,
    ) -> None:
        """Answer this to any request; the commands are run first only if `applied`."""
        text = body.encode() if isinstance(body, str) else body
        self._add(
            Plan(
                "answer",
                when,
                skip,
                times,
                status=status,
                body=text,
                headers=dict(headers or {}),
                applied=applied,
            )
        )

    def mangle(
        self, change: Callable[[bytes], bytes], *, when: str | None = None, skip: int = 0, times: int = 1
    ) -> None:
        """Run everything and damage the body of the response: truncated JSON, too few or too many items."""
        self._add(Plan("mangle", when, skip, times, change=change))

    def cut(self, *, when: str | None = None, skip: int = 0, times: int = 1) -> None:
        """Run everything, then close the connection in the middle of the response's body."""
        self._add(Plan("cut", when, skip, times))

    def reset(self) -> None:
        """Forget every plan that has not happened yet."""
        with self._lock:
            self._plans.clear()

    def take(self, names: Sequence[str]) -> list[Plan]:
        """Return the faults of a request that holds these commands."""
        taken: list[Plan] = []
        with self._lock:
            for plan in list(self._plans):
                if plan.when is not None and plan.when.upper() not in names:
                    continue
                if plan.kind != "fail" and any(plan.kind == each.kind for each in taken):
                    continue
                if plan.skip:
                    plan.skip -= 1
                    continue
                taken.append(plan)
                plan.times -= 1
                if not plan.times:
                    self._plans.remove(plan)
        return taken

    def _add(self, plan: Plan) -> None:
        with self._lock:
            self._plans.append(plan)
