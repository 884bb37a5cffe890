"""Append and retention as pure code: every key is named by the manifest until the swap that unlinks it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapstore.format import append, manifest, pages, records, retention, search
from swapstore.format.append import Draft, Retained, Stamp
from swapstore.format.keys import Keys
from swapstore.format.manifest import Manifest
from swapstore.format.pages import Page
from swapstore.format.retention import Limits
from swapstore.models import Entry, Ref, Row
from tests.conftest import steps as runs_of
from tests.retention.test_properties import pages_of

pytestmark = pytest.mark.slow

KEYS = Keys("ns")
NOTHING = records.digest(b"")
LIMITS = st.builds(Limits, st.sampled_from([0, 0, 10, 30, 60]), st.sampled_from([None, None, 1, 3, 8, 20]))
STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 100), LIMITS),
    st.tuples(st.just("append"), st.integers(0, 100), LIMITS),
    st.tuples(st.just("serve"), st.sampled_from(["latest", "pinned"]), st.integers(0, 99)),
    st.tuples(st.just("unpin")),
    st.tuples(st.just("prune"), LIMITS, st.integers(1, 20)),
    st.tuples(st.just("lose"), st.integers(0, 99)),
)


@attrs.define
class Line:
    """The versions of a dataset, the keys that are named, and the pages that can be read."""

    current: Manifest | None = None
    named: set[str] = attrs.field(factory=set)
    stored: dict[str, bytes] = attrs.field(factory=dict)
    number: int = 0

    def page(self, ref: Ref) -> Page:
        return pages.parse(self.stored[ref.key], ref, "d")

    def find(self, searching: Generator[Ref, Page, Row | None]) -> bool:
        try:
            ref = next(searching)
            while True:
                ref = searching.send(self.page(ref))
        except StopIteration as stop:
            return bool(stop.value)
        except KeyError:
            return True

    def stamp(self) -> Stamp:
        self.number += 1
        return Stamp(now_ms=self.number, nonce=f"{self.number:016x}", new_epoch="e" * 12, keys=KEYS)

    def retained(self, limits: Limits, keeping: set[int], most: int) -> Retained:
        """What `protocol.prune.retained` reads, without I/O."""
        base = self.current
        assert base is not None
        ripe = retention.ripe(retention.hidden(base.head, base.log, limits), base.log, limits)
        found = {ref.key: self.page(ref) for ref in ripe if ref.key in self.stored}
        released = [
            row
            for row in base.head.kept
            if row.version not in keeping
            and not base.head.shows(row)
            and not self.find(search.in_log(base.log, search.ByVersion(row.version)))
        ]
        return Retained(
            limits=limits, pages=retention.chosen(base.log, found, most), released=tuple(released)
        )

    def swap(self, draft: Draft) -> None:
        unlinked = set(draft.unlinked)
        assert len(unlinked) == len(draft.unlinked), "nothing is unlinked twice in a swap"
        assert unlinked <= self.named, "nothing is unlinked that belongs to another row now"
        staged = {page.ref.key for page in draft.pages}
        if draft.row is not None:
            staged |= set(append.keys_of([draft.row], "d", KEYS))
        assert not staged & self.named, "nothing is staged over what is named"
        assert not staged & unlinked
        self.stored |= {page.ref.key: page.record for page in draft.pages}
        self.named = self.named - unlinked | staged
        self.current = draft.manifest
        reachable, lost = self.reachable()
        assert reachable <= self.named
        assert reachable == self.named or lost, "a key leaks"

    def reachable(self) -> tuple[set[str], bool]:
        assert self.current is not None
        rows: list[Row] = [*self.current.head.kept, *self.current.log.rows]
        ahead, found, lost = [*self.current.log.pages], set[str](), False
        while ahead:
            ref = ahead.pop()
            found.add(ref.key)
            if ref.key not in self.stored:
                lost = True
                continue
            page = self.page(ref)
            rows += page.rows
            ahead += page.pages
        return found | set(append.keys_of(rows, "d", KEYS)), lost

    def carry_out(self, step: tuple[Any, ...]) -> None:
        base = self.current
        if base is None and step[0] != "append":
            return
        head = base.head if base else None
        match step:
            case ("append", ts, limits):
                entry = Entry(id=f"n{self.number}", ts=ts, size=0, sha256=NOTHING, codec="json", labels={})
                taken = None
                if head is not None:
                    latest = set[int]() if head.latest.ts <= ts else {head.latest.version}
                    taken = self.retained(
                        limits, latest | ({head.pinned.version} if head.pinned else set()), 1
                    )
                draft = append.append(
                    base, entry, dataset="d", dedupe_key=None, stamp=self.stamp(), retained=taken
                )
            case ("prune", limits, most):
                assert head is not None
                taken = self.retained(limits, {row.version for row in head.kept}, most)
                draft = self.repoint(taken)
            case ("lose", which):
                self.stored.pop(sorted(self.stored)[which % len(self.stored)], None) if self.stored else None
                return
            case _:
                assert head is not None
                served = {"latest": head.latest, "pinned": head.pinned}
                if step[0] == "unpin":
                    served["pinned"] = None
                else:
                    shown = [row for row in self.current.log.rows if head.shows(row)] if self.current else []
                    choice = [*head.kept, *shown]
                    served[step[1]] = choice[step[2] % len(choice)]
                keeping = {row.version for row in served.values() if row is not None}
                draft = self.repoint(self.retained(Limits(), keeping, 0), **served)
        self.swap(draft)

    def repoint(self, taken: Retained, **served: Row | None) -> Draft:
        assert self.current is not None
        return append.repoint(self.current, stamp=self.stamp(), retained=taken, **served)


@runs_of(200, 50)
@given(
    sizes=st.sampled_from([(1, 2), (2, 2), (2, 3), (3, 2)]),
    steps=st.lists(STEPS, min_size=20, max_size=120),
    damage=st.booleans(),
)
def test_every_key_is_named_until_the_swap_that_unlinks_it(
    sizes: tuple[int, int], steps: list[tuple[Any, ...]], *, damage: bool
) -> None:
    """A record leaks, expires while it is named, or is unlinked under its new owner."""
    line = Line()
    with pages_of(*sizes):
        for step in steps:
            if damage or step[0] != "lose":
                line.carry_out(step)
        if line.current is None:
            return
        for _ in range(300):
            before = line.current
            line.carry_out(("prune", Limits(101, 1), 16))
            if line.current.log == before.log and line.current.head.count == before.head.count:
                break
        after = len(line.current.log.rows)
        for ref in reversed(line.current.log.pages):
            assert after < manifest.recent() or ref.key not in line.stored, "what can be unlinked is"
            after += ref.count
        assert damage or after < manifest.recent() + manifest.F
